# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what the emulated account holds (lab.aws) to what the fabric realises (lab.vpc). Pure."""

from __future__ import annotations

from lab.aws.snapshot import IngressRecord, InterfaceRecord, RouteRecord, Snapshot
from lab.vpc.network import Ingress, Interface, Network, Route, RouteTable, SecurityGroup, Subnet


def network_of(snapshot: Snapshot, vpc_id: str) -> Network:
    """The picture of one VPC."""
    return Network(
        cidrs=(snapshot.vpcs[vpc_id].cidr,),
        subnets=tuple(
            Subnet(subnet.id, subnet.cidr, subnet.route_table_id)
            for subnet in snapshot.subnets.values()
            if subnet.vpc_id == vpc_id
        ),
        route_tables=tuple(
            RouteTable(table.id, tuple(route_of(route) for route in table.routes))
            for table in snapshot.route_tables.values()
            if table.vpc_id == vpc_id
        ),
        security_groups=tuple(
            SecurityGroup(group.id, tuple(ingress_of(rule) for rule in group.ingress))
            for group in snapshot.security_groups.values()
            if group.vpc_id == vpc_id
        ),
        interfaces=tuple(
            interface_of(interface) for interface in snapshot.interfaces.values() if interface.vpc_id == vpc_id
        ),
    )


def interface_of(record: InterfaceRecord) -> Interface:
    return Interface(
        id=record.id,
        mac=record.mac,
        subnet_id=record.subnet_id,
        private_ips=record.private_ips,
        public_ips=tuple(sorted(record.public_ips.items())),
        source_dest_check=record.source_dest_check,
        security_group_ids=record.security_group_ids,
    )


def route_of(record: RouteRecord) -> Route:
    """A gateway is the internet gateway: the lab has no other. What leads nowhere is a blackhole."""
    if record.state == "blackhole":
        return Route(record.cidr, "blackhole")
    if record.target_kind == "interface":
        return Route(record.cidr, "interface", record.target_id)
    if record.target_kind == "gateway":
        return Route(record.cidr, "internet")
    return Route(record.cidr, "local" if record.target_kind == "local" else "blackhole")


def ingress_of(record: IngressRecord) -> Ingress:
    return Ingress(
        protocol="all" if record.protocol == "-1" else record.protocol,
        from_port=-1 if record.from_port is None else record.from_port,
        to_port=-1 if record.to_port is None else record.to_port,
        cidrs=record.cidrs,
        group_ids=record.group_ids,
    )
