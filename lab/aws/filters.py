# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of Describe calls: any of the filter's values matches any of the object's, with * and ? as wildcards."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import moto.ec2.utils as ec2_utils
from moto.ec2.exceptions import FilterNotImplementedError
from moto.ec2.models.core import TaggedEC2Resource
from moto.ec2.models.elastic_network_interfaces import NetworkInterface
from moto.ec2.models.route_tables import RouteTable
from moto.ec2.utils import EC2_PREFIX_TO_RESOURCE, format_timestamp, get_prefix

from lab.aws import addresses
from lab.aws.patching import replace


def pattern(text: str) -> re.Pattern[str]:
    """EC2's wildcards as a regular expression; a backslash takes their meaning away."""
    parts = re.findall(r"\\.|.", text, re.DOTALL)
    wild = {"*": ".*", "?": "."}
    return re.compile("".join(wild.get(part) or re.escape(part[-1]) for part in parts), re.DOTALL)


def as_texts(value: Any) -> list[str]:
    """A value of an object as filters compare it."""
    if value is None:
        return []
    if isinstance(value, bool):
        return [str(value).lower()]
    if isinstance(value, datetime):
        return [format_timestamp(value)]
    if isinstance(value, (str, int)):
        return [str(value)]
    return [text for item in value for text in as_texts(item)]


def matches(value: Any, wanted: Any) -> bool:
    texts = as_texts(value)
    patterns = [pattern(item) for item in ([wanted] if isinstance(wanted, str) else wanted)]
    return any(one.fullmatch(text) for one in patterns for text in texts)


def is_filter_matching(obj: Any, name: str, wanted: Any) -> bool:
    return matches(obj.get_filter_value(name), wanted)


def tags_of(resource: Any) -> dict[str, str]:
    return dict(resource.ec2_backend.tags.get(resource.id, {}))


def get_tags(self: Any) -> list[dict[str, str]]:
    """moto searches all tags of the account by regular expression for each object; this looks them up."""
    kind = EC2_PREFIX_TO_RESOURCE.get(get_prefix(self.id), "") if self.id else ""
    return [
        {"resource_id": self.id, "key": key, "value": value, "resource_type": kind}
        for key, value in tags_of(self).items()
    ]


def tag_value(resource: Any, name: str) -> Any:
    tags = tags_of(resource)
    if name == "tag-key":
        return list(tags)
    return list(tags.values()) if name == "tag-value" else tags.get(name.removeprefix("tag:"))


# --- interfaces ---------------------------------------------------------------------------------------------------


def _associations(eni: Any) -> list[dict[str, Any]]:
    return [addresses.association(eni, public_ip) for public_ip in eni.public_ips_by_private_ip.values()]


ATTACHMENT_VALUES = {
    "attachment.attach-time": lambda eni: eni.attach_time,
    "attachment.attachment-id": lambda eni: eni.attachment_id,
    "attachment.delete-on-termination": lambda eni: bool(eni.delete_on_termination),
    "attachment.device-index": lambda eni: eni.device_index,
    "attachment.instance-id": lambda eni: eni.instance.id,
    "attachment.instance-owner-id": lambda eni: eni.owner_id,
    "attachment.network-card-index": lambda eni: 0,
    "attachment.status": lambda eni: eni.attachment_status,
}
ASSOCIATION_VALUES = {
    "association.allocation-id": "AllocationId",
    "association.association-id": "AssociationId",
    "association.ip-owner-id": "IpOwnerId",
    "association.public-ip": "PublicIp",
    "association.public-dns-name": "PublicDnsName",
}
INTERFACE_VALUES = {
    "addresses.primary": lambda eni: [bool(entry.get("Primary")) for entry in eni.private_ip_addresses],
    "addresses.private-ip-address": lambda eni: [entry["PrivateIpAddress"] for entry in eni.private_ip_addresses],
    "availability-zone": lambda eni: eni.subnet.availability_zone,
    "availability-zone-id": lambda eni: eni.subnet.availability_zone_id,
    "description": lambda eni: eni.description,
    "group-id": lambda eni: [group.id for group in eni.group_set],
    "group-name": lambda eni: [group.name for group in eni.group_set],
    "interface-type": lambda eni: eni.interface_type,
    "ipv6-addresses.ipv6-address": lambda eni: eni.ipv6_addresses,
    "mac-address": lambda eni: eni.mac_address,
    "network-interface-id": lambda eni: eni.id,
    "operator.managed": lambda eni: False,
    "operator.principal": lambda eni: None,
    "owner-id": lambda eni: eni.owner_id,
    "private-dns-name": lambda eni: getattr(eni, "private_dns_name", None),
    "private-ip-address": lambda eni: eni.private_ip_address,
    "requester-id": lambda eni: eni.requester_id,
    "requester-managed": lambda eni: eni.requester_managed,
    "source-dest-check": lambda eni: bool(eni.source_dest_check),
    "status": lambda eni: eni.status,
    "subnet-id": lambda eni: eni.subnet.id,
    "vpc-id": lambda eni: eni.subnet.vpc_id,
}


def interface_value(eni: Any, name: str, method: str | None = None) -> Any:
    if name in INTERFACE_VALUES:
        return INTERFACE_VALUES[name](eni)
    if name in ATTACHMENT_VALUES:
        return ATTACHMENT_VALUES[name](eni) if eni.attachment_id else None
    plain = name.removeprefix("addresses.").replace("association.owner-id", "association.ip-owner-id")
    if plain in ASSOCIATION_VALUES:
        return [shown.get(ASSOCIATION_VALUES[plain]) for shown in _associations(eni)]
    if name.startswith("tag"):
        return tag_value(eni, name)
    raise FilterNotImplementedError(name, method or "DescribeNetworkInterfaces")


# --- instances ---------------------------------------------------------------------------------------------------

INSTANCE_VALUES = {
    "client-token": lambda instance: instance.client_token,
    "iam-instance-profile.arn": lambda instance: (instance.iam_instance_profile or {}).get("Arn"),
    "iam-instance-profile.id": lambda instance: (instance.iam_instance_profile or {}).get("Id"),
    "instance-state-code": lambda instance: instance.state_code,
    "instance.group-id": lambda instance: [group.id for group in instance.security_groups],
    "instance.group-name": lambda instance: [group.name for group in instance.security_groups],
    "launch-index": lambda instance: instance.ami_launch_index,
    "metadata-options.http-tokens": lambda instance: instance.metadata_options.http_tokens,
    "reservation-id": lambda instance: instance.reservation_id,
    "tenancy": lambda instance: instance.placement.tenancy,
    "hypervisor": lambda instance: instance.hypervisor,
    "root-device-name": lambda instance: instance.root_device_name,
    "root-device-type": lambda instance: instance.root_device_type,
    "virtualization-type": lambda instance: instance.virtualization_type,
}


def instance_value(instance: Any, name: str) -> Any:
    if name.startswith("tag:") or name in ("tag-key", "tag-value"):
        return tag_value(instance, name)
    if name.startswith("network-interface."):
        inner = name.removeprefix("network-interface.")
        return [interface_value(eni, inner, "DescribeInstances") for eni in instance.nics.values()]
    if name in INSTANCE_VALUES:
        return INSTANCE_VALUES[name](instance)
    attribute = ec2_utils.filter_dict_attribute_mapping.get(name)
    if attribute is None:
        raise FilterNotImplementedError(name, "DescribeInstances")
    return ec2_utils.get_object_value(instance, attribute)


def passes_filter_dict(instance: Any, filters: dict[str, Any]) -> bool:
    return all(matches(instance_value(instance, name), wanted) for name, wanted in filters.items())


# --- route tables --------------------------------------------------------------------------------------------------

ROUTE_VALUES = {
    "route.instance-id": lambda route: route.instance_id,
    "route.network-interface-id": lambda route: route.network_interface_id,
    "route.origin": lambda route: route.origin,
    "route.state": lambda route: route.state,
    "route.gateway-id": lambda route: route.gateway_id,
    "route.destination-ipv6-cidr-block": lambda route: route.destination_ipv6_cidr_block,
}


def route_table_value(table: Any, name: str, method: str | None = None) -> Any:
    if name in ROUTE_VALUES:
        return [ROUTE_VALUES[name](route) for route in table.routes]
    if name == "association.gateway-id":
        return [target for target in table._associations.values() if target.startswith("igw")]
    if name in ("association.subnet-id", "association.route-table-association-id"):
        return list(_route_table_value(table, name, method))
    return _route_table_value(table, name, method)


def apply() -> None:
    """Put all of this in moto's place."""
    global _route_table_value
    # Values are joined with OR, * and ? match, comparison is with each of an object's values.
    replace(ec2_utils, "is_filter_matching", is_filter_matching)
    replace(ec2_utils, "passes_filter_dict", passes_filter_dict)
    # DescribeNetworkInterfaces filters by attachment, association and all else that its reference lists.
    replace(NetworkInterface, "get_filter_value", interface_value)
    # DescribeRouteTables filters by what its routes lead to and by their state.
    _route_table_value = replace(RouteTable, "get_filter_value", route_table_value)
    replace(TaggedEC2Resource, "get_tags", get_tags)


_route_table_value: Any = None
