# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a role may do: each resource of a call is put to the role's policies, with the context of the call."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from lab.aws import emulation, policy
from lab.aws.authentication import Caller, Denied
from lab.aws.settings import ACCOUNT_ID

Parameters = Mapping[str, str]


@dataclass(frozen=True)
class Resource:
    """One resource that a call touches, with its condition keys."""

    arn: str
    keys: dict[str, list[str]] = field(default_factory=dict)


def authorize(caller: Caller, service: str, action: str, parameters: Parameters, backend: Any, source: str) -> None:
    """Raises Denied unless the policies of the caller's role allow the action on all of its resources."""
    if (service, action) == ("sts", "GetCallerIdentity"):
        return
    documents = role_policies(caller.session.role_arn)
    common = _common_context(caller, action, parameters, backend, source)
    name = f"{service}:{action}"
    for resource in resources(service, action, parameters, backend):
        if not policy.is_allowed(documents, name, resource.arn, {**common, **resource.keys}):
            raise _denial(service, caller.arn, name, resource.arn)


def _denial(service: str, arn: str, action: str, resource: str) -> Denied:
    reason = (
        f"User: {arn} is not authorized to perform: {action} on resource: {resource} "
        f"because no identity-based policy allows the {action} action"
    )
    if service == "ec2":
        return Denied("UnauthorizedOperation", f"You are not authorized to perform this operation. {reason}", 403)
    return Denied("AccessDenied", reason, 403)


def role_policies(role_arn: str) -> list[dict[str, Any]]:
    """The documents of a role: its inline policies and those attached to it."""
    iam = emulation.iam(ACCOUNT_ID)
    role = iam.get_role(role_arn.rsplit("/", 1)[-1])
    documents = [iam.get_role_policy(role.name, name)[1] for name in iam.list_role_policies(role.name)]
    attached, _ = iam.list_attached_role_policies(role.name)
    for managed in attached:
        documents.append(next(version.document for version in managed.versions if version.is_default))
    return [json.loads(document) for document in documents]


def _common_context(
    caller: Caller, action: str, parameters: Parameters, backend: Any, source: str
) -> dict[str, list[str]]:
    """The keys that every call of a role has."""
    region = backend.region_name
    session = caller.session
    now = datetime.now(timezone.utc)
    context = {
        "ec2:region": [region],
        "aws:requestedregion": [region],
        "aws:principalarn": [session.role_arn],
        "aws:principalaccount": [ACCOUNT_ID],
        "aws:principaltype": ["AssumedRole"],
        "aws:userid": [session.user_id],
        "aws:sourceip": [source],
        "aws:securetransport": ["true"],
        "aws:viaawsservice": ["false"],
        "aws:currenttime": [now.strftime("%Y-%m-%dT%H:%M:%SZ")],
        "aws:epochtime": [str(int(now.timestamp()))],
        "aws:sourceaccount": [ACCOUNT_ID],
    }
    for key, value in _role_tags(session.role_arn).items():
        context[f"aws:principaltag/{key}"] = [value]
    if caller.host.startswith("i-"):
        context["ec2:sourceinstancearn"] = [_arn(backend, "instance", caller.host)]
        context["ec2:roledelivery"] = ["2.0"]  # its keys came by IMDSv2
    for key, value in _request_tags(parameters).items():
        context[f"aws:requesttag/{key}"] = [value]
    tag_keys = list(_request_tags(parameters))
    if tag_keys:
        context["aws:tagkeys"] = tag_keys
    context.update(_attributes(action, parameters))
    return context


def _role_tags(role_arn: str) -> dict[str, str]:
    role = emulation.iam(ACCOUNT_ID).get_role(role_arn.rsplit("/", 1)[-1])
    return {tag["Key"]: tag["Value"] for tag in role.tags}


def _request_tags(parameters: Parameters) -> dict[str, str]:
    """The tags that a call names: Tag.N.Key of CreateTags, TagSpecification.N.Tag.M.Key of the others."""
    tags = {}
    for name, key in parameters.items():
        if re.fullmatch(r"(TagSpecification\.\d+\.)?Tag\.\d+\.Key", name):
            tags[key] = parameters.get(name.removesuffix("Key") + "Value", "")
    return tags


def _attributes(action: str, parameters: Parameters) -> dict[str, list[str]]:
    """ec2:Attribute and ec2:Attribute/Name of the Modify...Attribute calls."""
    if not re.fullmatch(r"(Modify|Reset)\w+Attribute", action):
        return {}
    found = {
        name.split(".")[0]: value
        for name, value in parameters.items()
        if name.split(".")[0] not in ("Action", "Version", "DryRun", "NetworkInterfaceId", "InstanceId")
    }
    keys = {f"ec2:attribute/{name}": [value] for name, value in found.items()}
    return {**keys, "ec2:attribute": list(found)} if found else {}


# --- the resources of each action ----------------------------------------------------------------------------------


def resources(service: str, action: str, parameters: Parameters, backend: Any) -> list[Resource]:
    """What a call touches, as the Service Authorization Reference lists it; "*" where there is no resource level."""
    finder = FINDERS.get(action) if service == "ec2" else None
    found = list(finder(parameters, backend)) if finder else []
    return found or [Resource("*")]


def _arn(backend: Any, kind: str, identifier: str) -> str:
    return f"arn:aws:ec2:{backend.region_name}:{ACCOUNT_ID}:{kind}/{identifier}"


def _listed(parameters: Parameters, name: str) -> list[str]:
    return [value for key, value in parameters.items() if re.fullmatch(rf"{name}(\.\d+)?", key)]


def _with_tags(backend: Any, kind: str, identifier: str, keys: Mapping[str, str | None]) -> Resource:
    """A resource with its own keys and both spellings of its tags'."""
    tags = backend.tags.get(identifier, {})
    context = {key: [value] for key, value in keys.items() if value is not None}
    for name in ("aws", "ec2"):
        context.update({f"{name}:resourcetag/{key}": [value] for key, value in tags.items()})
    return Resource(_arn(backend, kind, identifier), context)


def interface(backend: Any, identifier: str) -> Resource:
    eni = backend.enis.get(identifier)
    keys: dict[str, str | None] = {"ec2:networkinterfaceid": identifier}
    if eni is not None:
        keys.update(
            {
                "ec2:subnet": _arn(backend, "subnet", eni.subnet.id),
                "ec2:vpc": _arn(backend, "vpc", eni.subnet.vpc_id),
                "ec2:availabilityzone": eni.subnet.availability_zone,
            }
        )
    return _with_tags(backend, "network-interface", identifier, keys)


def instance(backend: Any, identifier: str) -> Resource:
    found = backend.get_instance_by_id(identifier)
    keys: dict[str, str | None] = {"ec2:instanceid": identifier}
    if found is not None:
        keys.update(
            {
                "ec2:availabilityzone": found.availability_zone,
                "ec2:instancetype": found.instance_type,
                "ec2:instanceprofile": (found.iam_instance_profile or {}).get("Arn"),
                "ec2:metadatahttpendpoint": found.metadata_options.http_endpoint,
                "ec2:metadatahttptokens": found.metadata_options.http_tokens,
                "ec2:metadatahttpputresponsehoplimit": str(found.metadata_options.http_put_response_hop_limit),
                "ec2:tenancy": "default",
                "ec2:rootdevicetype": "ebs",
            }
        )
    return _with_tags(backend, "instance", identifier, keys)


def _attachment(parameters: Parameters, backend: Any) -> Iterable[Resource]:
    """Of DetachNetworkInterface: the interface and the instance behind an attachment id."""
    for eni in backend.enis.values():
        if eni.attachment_id == parameters.get("AttachmentId"):
            yield interface(backend, eni.id)
            yield instance(backend, eni.instance.id)
            return
    yield Resource(_arn(backend, "network-interface", "*"))  # EC2 can't tell which: only an unrestricted policy passes
    yield Resource(_arn(backend, "instance", "*"))


def _association(parameters: Parameters, backend: Any) -> Iterable[Resource]:
    for eip in backend.addresses:
        if parameters.get("AssociationId") == eip.association_id or parameters.get("PublicIp") == eip.public_ip:
            yield elastic_ip(backend, eip.allocation_id)
            if eip.eni:
                yield interface(backend, eip.eni.id)


def elastic_ip(backend: Any, identifier: str) -> Resource:
    address = next((eip.public_ip for eip in backend.addresses if eip.allocation_id == identifier), None)
    keys = {"ec2:allocationid": identifier, "ec2:publicipaddress": address, "ec2:domain": "vpc"}
    return _with_tags(backend, "elastic-ip", identifier, keys)


def subnet(backend: Any, identifier: str) -> Resource:
    found = next((item for item in backend.describe_subnets() if item.id == identifier), None)
    keys: dict[str, str | None] = {"ec2:subnetid": identifier}
    if found is not None:
        keys.update({"ec2:availabilityzone": found.availability_zone, "ec2:vpc": _arn(backend, "vpc", found.vpc_id)})
    return _with_tags(backend, "subnet", identifier, keys)


def _in_vpc(kind: str, key: str, find: Callable[[Any, str], Any]) -> Callable[[Any, str], Resource]:
    def resource(backend: Any, identifier: str) -> Resource:
        found = find(backend, identifier)
        vpc = _arn(backend, "vpc", found.vpc_id) if found is not None else None
        return _with_tags(backend, kind, identifier, {key: identifier, "ec2:vpc": vpc})

    return resource


route_table = _in_vpc("route-table", "ec2:routetableid", lambda backend, key: backend.route_tables.get(key))
security_group = _in_vpc(
    "security-group", "ec2:securitygroupid", lambda backend, key: backend.get_security_group_from_id(key)
)


def _plain(kind: str, key: str) -> Callable[[Any, str], Resource]:
    return lambda backend, identifier: _with_tags(backend, kind, identifier, {key: identifier})


vpc = _plain("vpc", "ec2:vpcid")
internet_gateway = _plain("internet-gateway", "ec2:internetgatewayid")
image = _plain("image", "ec2:imageid")

BY_PREFIX: dict[str, Callable[[Any, str], Resource]] = {
    "eni": interface, "i": instance, "subnet": subnet, "rtb": route_table, "sg": security_group, "vpc": vpc,
    "igw": internet_gateway, "eipalloc": elastic_ip, "ami": image,
}  # fmt: skip


def _named(*parts: tuple[str, Callable[[Any, str], Resource]]) -> Callable[[Parameters, Any], Iterable[Resource]]:
    """The resources that a call's parameters name."""

    def find(parameters: Parameters, backend: Any) -> Iterable[Resource]:
        for name, make in parts:
            for identifier in _listed(parameters, name):
                yield make(backend, identifier)

    return find


def _tagged(parameters: Parameters, backend: Any) -> Iterable[Resource]:
    for identifier in _listed(parameters, "ResourceId"):
        make = BY_PREFIX.get(identifier.rsplit("-", 1)[0])
        yield make(backend, identifier) if make else Resource(_arn(backend, "*", identifier))


def _launch(parameters: Parameters, backend: Any) -> Iterable[Resource]:
    """Of RunInstances: what it uses, and what it is about to make."""
    yield from _named(
        ("ImageId", image), ("SubnetId", subnet), ("SecurityGroupId", security_group),
        (r"NetworkInterface\.\d+\.SubnetId", subnet), (r"NetworkInterface\.\d+\.NetworkInterfaceId", interface),
    )(parameters, backend)  # fmt: skip
    yield Resource(_arn(backend, "instance", "*"), {"ec2:instancetype": [parameters.get("InstanceType", "m1.small")]})
    yield Resource(_arn(backend, "network-interface", "*"))
    yield Resource(_arn(backend, "volume", "*"))


_INSTANCES = _named(("InstanceId", instance))
_ROUTE = _named(("RouteTableId", route_table))
_GROUP = _named(("GroupId", security_group))

FINDERS: dict[str, Callable[[Parameters, Any], Iterable[Resource]]] = {
    "AttachNetworkInterface": _named(("NetworkInterfaceId", interface), ("InstanceId", instance)),
    "DetachNetworkInterface": _attachment,
    "DeleteNetworkInterface": _named(("NetworkInterfaceId", interface)),
    "ModifyNetworkInterfaceAttribute": _named(("NetworkInterfaceId", interface), ("SecurityGroupId", security_group)),
    "ResetNetworkInterfaceAttribute": _named(("NetworkInterfaceId", interface)),
    "AssignPrivateIpAddresses": _named(("NetworkInterfaceId", interface)),
    "UnassignPrivateIpAddresses": _named(("NetworkInterfaceId", interface)),
    "CreateNetworkInterface": _named(("SubnetId", subnet), ("SecurityGroupId", security_group)),
    "ModifyInstanceAttribute": _named(("InstanceId", instance), ("GroupId", security_group)),
    "ModifyInstanceMetadataOptions": _INSTANCES,
    "StartInstances": _INSTANCES,
    "StopInstances": _INSTANCES,
    "RebootInstances": _INSTANCES,
    "TerminateInstances": _INSTANCES,
    "RunInstances": _launch,
    "AssociateAddress": _named(
        ("AllocationId", elastic_ip), ("NetworkInterfaceId", interface), ("InstanceId", instance)
    ),
    "DisassociateAddress": _association,
    "ReleaseAddress": _named(("AllocationId", elastic_ip)),
    "CreateRoute": _ROUTE,
    "ReplaceRoute": _ROUTE,
    "DeleteRoute": _ROUTE,
    "DeleteRouteTable": _ROUTE,
    "AssociateRouteTable": _named(("RouteTableId", route_table), ("SubnetId", subnet)),
    "AuthorizeSecurityGroupIngress": _GROUP,
    "AuthorizeSecurityGroupEgress": _GROUP,
    "RevokeSecurityGroupIngress": _GROUP,
    "RevokeSecurityGroupEgress": _GROUP,
    "DeleteSecurityGroup": _GROUP,
    "DeleteSubnet": _named(("SubnetId", subnet)),
    "DeleteVpc": _named(("VpcId", vpc)),
    "CreateTags": _tagged,
    "DeleteTags": _tagged,
}
