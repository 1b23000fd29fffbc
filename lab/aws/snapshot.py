# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A frozen picture of what the account holds, for those who realise it or look at it."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class VpcRecord:
    id: str
    cidr: str


@dataclass(frozen=True)
class SubnetRecord:
    id: str
    vpc_id: str
    cidr: str
    zone: str
    route_table_id: str  # its own, or the VPC's main one
    map_public: bool


@dataclass(frozen=True)
class RouteRecord:
    cidr: str
    target_kind: str  # local | interface | gateway | none
    target_id: str
    state: str  # active | blackhole


@dataclass(frozen=True)
class RouteTableRecord:
    id: str
    vpc_id: str
    main: bool
    routes: tuple[RouteRecord, ...]


@dataclass(frozen=True)
class AttachmentRecord:
    id: str
    instance_id: str
    device_index: int
    status: str  # attaching | attached | detaching
    delete_on_termination: bool


@dataclass(frozen=True)
class InterfaceRecord:
    id: str
    mac: str
    private_ips: tuple[str, ...]  # the primary one first
    subnet_id: str
    vpc_id: str
    zone: str
    public_ips: dict[str, str]  # private address: public or elastic one
    source_dest_check: bool
    security_group_ids: tuple[str, ...]
    attachment: AttachmentRecord | None


@dataclass(frozen=True)
class IngressRecord:
    protocol: str  # tcp | udp | icmp | -1 (all)
    from_port: int | None
    to_port: int | None
    cidrs: tuple[str, ...]
    group_ids: tuple[str, ...]


@dataclass(frozen=True)
class SecurityGroupRecord:
    id: str
    vpc_id: str
    ingress: tuple[IngressRecord, ...]


@dataclass(frozen=True)
class InternetGatewayRecord:
    id: str
    vpc_id: str | None


@dataclass(frozen=True)
class InstanceRecord:
    id: str
    state: str
    image_id: str
    instance_type: str
    zone: str
    key_name: str | None
    public_key: str | None  # OpenSSH's one line
    user_data: bytes
    tags: dict[str, str]
    private_ip: str | None
    public_ip: str | None
    interfaces: dict[int, InterfaceRecord]  # by device index; only those whose attachment is complete


@dataclass(frozen=True)
class Snapshot:
    vpcs: dict[str, VpcRecord] = field(default_factory=dict)
    subnets: dict[str, SubnetRecord] = field(default_factory=dict)
    route_tables: dict[str, RouteTableRecord] = field(default_factory=dict)
    interfaces: dict[str, InterfaceRecord] = field(default_factory=dict)
    security_groups: dict[str, SecurityGroupRecord] = field(default_factory=dict)
    internet_gateways: dict[str, InternetGatewayRecord] = field(default_factory=dict)
    instances: dict[str, InstanceRecord] = field(default_factory=dict)


def take(backend: Any) -> Snapshot:
    """The picture of one region's EC2 backend of moto. The caller holds the lock."""
    return Snapshot(
        vpcs={vpc.id: VpcRecord(vpc.id, vpc.cidr_block) for vpc in backend.vpcs.values()},
        subnets={subnet.id: _subnet(backend, subnet) for subnet in backend.describe_subnets()},
        route_tables={table.id: _route_table(table) for table in backend.route_tables.values()},
        interfaces={eni.id: interface_record(eni) for eni in backend.enis.values()},
        security_groups={group.id: _security_group(group) for group in all_groups(backend)},
        internet_gateways={
            gateway.id: InternetGatewayRecord(gateway.id, gateway.vpc.id if gateway.vpc else None)
            for gateway in backend.internet_gateways.values()
        },
        instances={instance.id: instance_record(instance) for instance in all_instances(backend)},
    )


def all_groups(backend: Any) -> Iterable[Any]:
    return [group for groups in backend.groups.values() for group in groups.values()]


def all_instances(backend: Any) -> Iterable[Any]:
    return [instance for reservation in backend.reservations.values() for instance in reservation.instances]


def interface_record(eni: Any) -> InterfaceRecord:
    attachment = None
    if eni.attachment_id:
        attachment = AttachmentRecord(
            eni.attachment_id, eni.instance.id, eni.device_index, eni.attachment_status,
            bool(eni.delete_on_termination),
        )  # fmt: skip
    return InterfaceRecord(
        id=eni.id,
        mac=eni.mac_address,
        private_ips=tuple(
            address["PrivateIpAddress"]
            for address in sorted(eni.private_ip_addresses, key=lambda item: not item.get("Primary"))
        ),
        subnet_id=eni.subnet.id,
        vpc_id=eni.subnet.vpc_id,
        zone=eni.subnet.availability_zone,
        public_ips=eni.public_ips_by_private_ip,
        source_dest_check=bool(eni.source_dest_check),
        security_group_ids=tuple(group.id for group in eni.group_set),
        attachment=attachment,
    )


def instance_record(instance: Any) -> InstanceRecord:
    key = instance.ec2_backend.key_pairs.get(instance.key_name)
    interfaces = {
        index: interface_record(eni)
        for index, eni in sorted(instance.nics.items())
        if eni.attachment_status == "attached"
    }
    return InstanceRecord(
        id=instance.id,
        state=instance.state,
        image_id=instance.image_id,
        instance_type=instance.instance_type,
        zone=instance.availability_zone,
        key_name=instance.key_name,
        public_key=key.material_public.decode().strip() if key else None,
        user_data=_user_data(instance.user_data),
        tags=dict(instance.ec2_backend.tags.get(instance.id, {})),
        private_ip=instance.private_ip,
        public_ip=instance.public_ip,
        interfaces=interfaces,
    )


def _user_data(value: Any) -> bytes:
    """moto keeps user data as the base64 text that came in."""
    return base64.b64decode(str(value)) if value else b""


def _subnet(backend: Any, subnet: Any) -> SubnetRecord:
    own = main = ""
    for table in backend.route_tables.values():
        if subnet.id in table._associations.values():
            own = table.id
        if table.vpc_id == subnet.vpc_id and table.main_association_id:
            main = table.id
    return SubnetRecord(
        subnet.id, subnet.vpc_id, subnet.cidr_block, subnet.availability_zone, own or main,
        bool(subnet.map_public_ip_on_launch),
    )  # fmt: skip


def _route_table(table: Any) -> RouteTableRecord:
    return RouteTableRecord(
        table.id, table.vpc_id, table.main_association_id is not None,
        tuple(_route(route) for route in table.routes if route.destination_cidr_block),
    )  # fmt: skip


def _route(route: Any) -> RouteRecord:
    if route.local:
        kind, target = "local", "local"
    elif route.interface:
        kind, target = "interface", route.interface.id
    elif route.gateway:
        kind, target = "gateway", route.gateway.id
    else:
        kind, target = "none", ""
    return RouteRecord(route.destination_cidr_block, kind, target, route.state)


def _security_group(group: Any) -> SecurityGroupRecord:
    rules: dict[tuple[str, int | None, int | None], tuple[list[str], list[str]]] = {}
    for rule in group.ingress_rules:
        cidrs, groups = rules.setdefault((rule.ip_protocol, rule.from_port, rule.to_port), ([], []))
        if rule.cidr_ipv4:
            cidrs.append(rule.cidr_ipv4)
        if rule.source_group:
            groups.append(rule.source_group["GroupId"])
    return SecurityGroupRecord(
        group.id, group.vpc_id or "",
        tuple(
            IngressRecord(protocol, first, last, tuple(sorted(cidrs)), tuple(sorted(groups)))
            for (protocol, first, last), (cidrs, groups) in rules.items()
        ),
    )  # fmt: skip
