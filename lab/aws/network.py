# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""VPCs, subnets, gateways and security groups: no default VPC, and nothing goes while something depends on it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import moto.ec2.models.amis as amis
import moto.ec2.responses.subnets as subnet_responses
from moto.ec2.models import EC2Backend
from moto.ec2.models.amis import AmiBackend
from moto.ec2.models.internet_gateways import InternetGatewayBackend
from moto.ec2.models.security_groups import SecurityGroupBackend
from moto.ec2.models.subnets import Subnet, SubnetBackend
from moto.ec2.models.vpcs import VPCBackend

from lab.aws import interfaces
from lab.aws.errors import refusal
from lab.aws.patching import replace
from lab.aws.settings import DEBIAN_12_AMI, DEBIAN_13_AMI, DEBIAN_OWNER_ID
from lab.aws.snapshot import all_groups
from lab.aws.world import world


def debian_image(ami_id: str, release: str, date: str) -> dict[str, Any]:
    name = f"debian-{release}-amd64-{date}"
    return {
        "ami_id": ami_id, "name": name, "description": f"Debian {release} ({date})", "owner_id": DEBIAN_OWNER_ID,
        "public": True, "virtualization_type": "hvm", "architecture": "x86_64", "state": "available",
        "platform": None, "image_type": "machine", "hypervisor": "xen", "root_device_name": "/dev/xvda",
        "root_device_type": "ebs", "sriov": "simple", "creation_date": "2026-01-12T00:00:00.000Z",
        "image_location": f"{DEBIAN_OWNER_ID}/{name}",
    }  # fmt: skip


IMAGES = [
    debian_image(DEBIAN_13_AMI, "13", "20260112-2355"),
    debian_image(DEBIAN_12_AMI, "12", "20260112-2356"),
]


def load_amis(backend: Any) -> None:
    """Debian's images, as their owner names them, in place of moto's long list of others."""
    from moto.core.parse import default_timestamp_parser

    for image in IMAGES:
        described = dict(image, creation_date=default_timestamp_parser(image["creation_date"]))
        backend.amis[image["ami_id"]] = amis.Ami(backend, **described)


def no_default_vpc(backend: Any) -> Any:
    """moto looks up the id of the default VPC here and there; no object has this one."""
    return SimpleNamespace(id="vpc-none", is_default=False)


def own_zone(zones: list[Any]) -> Any:
    """The zone of a subnet that names none: the one of the settings if the region has it."""
    return next((zone for zone in zones if zone.name == world().settings.zone), zones[0])


def create_subnet(
    backend: Any,
    vpc_id: str,
    cidr_block: str,
    ipv6_cidr_block: str | None = None,
    availability_zone: str | None = None,
    *arguments: Any,
    **more: Any,
) -> Any:
    zones = [zone.name for zone in backend.describe_availability_zones()]
    if availability_zone is not None and availability_zone not in zones:
        raise refusal(
            "InvalidParameterValue",
            f"Value ({availability_zone}) for parameter availabilityZone is invalid. Subnets can currently only be "
            f"created in the following availability zones: {', '.join(zones)}.",
        )
    subnet = _create_subnet(backend, vpc_id, cidr_block, ipv6_cidr_block, availability_zone, *arguments, **more)
    subnet.default_for_az = subnet.map_public_ip_on_launch = False
    return subnet


def delete_subnet(backend: Any, subnet_id: str) -> Any:
    subnet = backend.get_subnet(subnet_id)
    if any(eni.subnet is subnet for eni in backend.enis.values()):
        raise refusal("DependencyViolation", f"The subnet '{subnet_id}' has dependencies and cannot be deleted.")
    for table in backend.route_tables.values():
        for association_id in [key for key, target in table._associations.items() if target == subnet_id]:
            table._associations.pop(association_id)
    backend.tags.pop(subnet_id, None)
    return _delete_subnet(backend, subnet_id)


def delete_security_group(backend: Any, name: str | None = None, group_id: str | None = None) -> None:
    group = backend.get_security_group_by_name_or_id(group_id or name)
    if group is not None:
        if group.is_default:
            raise refusal(
                "CannotDelete", f'the specified group: "{group.id}" name: "default" cannot be deleted by a user'
            )
        if _is_used(backend, group):
            raise refusal("DependencyViolation", f"resource {group.id} has a dependent object")
    _delete_security_group(backend, name, group_id)
    if group is not None:
        backend.tags.pop(group.id, None)


def _is_used(backend: Any, group: Any) -> bool:
    """By an interface, or by a rule of another group."""
    if any(group in eni.group_set for eni in backend.enis.values()):
        return True
    return any(
        rule.source_group.get("GroupId") == group.id
        for other in all_groups(backend)
        if other is not group
        for rule in other.ingress_rules + other.egress_rules
    )


def detach_internet_gateway(backend: Any, internet_gateway_id: str, vpc_id: str) -> None:
    if any(eni.vpc_id == vpc_id and eni.public_ips_by_private_ip for eni in backend.enis.values()):
        raise refusal(
            "DependencyViolation",
            f"Network {vpc_id} has some mapped public address(es). "
            "Please unmap those public address(es) before detaching the gateway.",
        )
    _detach_internet_gateway(backend, internet_gateway_id, vpc_id)


def delete_vpc(backend: Any, vpc_id: str) -> Any:
    backend.get_vpc(vpc_id)
    own_groups = any(group.vpc_id == vpc_id and not group.is_default for group in all_groups(backend))
    gateways = any(item.vpc and item.vpc.id == vpc_id for item in backend.internet_gateways.values())
    subnets = any(subnet.vpc_id == vpc_id for subnet in backend.describe_subnets())
    tables = any(table.vpc_id == vpc_id and not table.main_association_id for table in backend.route_tables.values())
    if own_groups or gateways or subnets or tables:
        raise refusal("DependencyViolation", f"The vpc '{vpc_id}' has dependencies and cannot be deleted.")
    for group in [group for group in all_groups(backend) if group.vpc_id == vpc_id]:
        backend.groups[vpc_id].pop(group.id)  # the default one, which nobody but its VPC may delete
    backend.tags.pop(vpc_id, None)
    return _delete_vpc(backend, vpc_id)


def delete_route_table(backend: Any, route_table_id: str) -> None:
    table = backend.get_route_table(route_table_id)
    if table.main_association_id and backend.vpcs.get(table.vpc_id) and _has_objects(backend, table.vpc_id):
        raise refusal(
            "DependencyViolation", f"The routeTable '{route_table_id}' has dependencies and cannot be deleted."
        )
    _delete_route_table(backend, route_table_id)
    backend.tags.pop(route_table_id, None)


def _has_objects(backend: Any, vpc_id: str) -> bool:
    """While its VPC is being deleted, the main route table's last group is gone."""
    return any(group.vpc_id == vpc_id for group in all_groups(backend))


def apply() -> None:
    """Put all of this in moto's place."""
    global _create_subnet, _delete_subnet, _delete_security_group, _detach_internet_gateway
    global _delete_vpc, _delete_route_table
    # Accounts here have no default VPC, and Debian's images.
    replace(EC2Backend, "create_default_vpc", no_default_vpc)
    replace(AmiBackend, "_load_amis", load_amis)
    # A subnet is in a zone of its region, and gives no public addresses unless it is told to.
    replace(subnet_responses, "random", SimpleNamespace(choice=own_zone))
    _create_subnet = replace(SubnetBackend, "create_subnet", create_subnet)
    # Addresses of a subnet are counted by its interfaces alone.
    replace(Subnet, "get_available_subnet_ip", lambda self, instance: interfaces.free_address(self))
    replace(Subnet, "request_ip", lambda self, ip, instance: interfaces.check_address(self, ip))
    replace(Subnet, "del_subnet_ip", lambda self, ip: None)
    # What is in use can't be deleted.
    _delete_subnet = replace(SubnetBackend, "delete_subnet", delete_subnet)
    _delete_security_group = replace(SecurityGroupBackend, "delete_security_group", delete_security_group)
    _detach_internet_gateway = replace(InternetGatewayBackend, "detach_internet_gateway", detach_internet_gateway)
    _delete_vpc = replace(VPCBackend, "delete_vpc", delete_vpc)
    _delete_route_table = replace(EC2Backend, "delete_route_table", delete_route_table)


_create_subnet: Any = None
_delete_subnet: Any = None
_delete_security_group: Any = None
_detach_internet_gateway: Any = None
_delete_vpc: Any = None
_delete_route_table: Any = None
