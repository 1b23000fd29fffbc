# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The picture of one VPC that the fabric realises: frozen values without behaviour of their own.

Addresses, CIDR blocks and MACs are strings as EC2 writes them ("10.0.1.5", "10.0.1.0/24", "02:00:0a:00:01:64").
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

RouteKind = Literal["local", "internet", "interface", "blackhole"]


@dataclass(frozen=True)
class Route:
    """One route. `interface_id` is set for the kind "interface" alone."""

    cidr: str
    kind: RouteKind
    interface_id: str | None = None


@dataclass(frozen=True)
class RouteTable:
    id: str
    routes: tuple[Route, ...] = ()


@dataclass(frozen=True)
class Subnet:
    """`route_table_id` is the table that holds for the subnet: its own, or the VPC's main table."""

    id: str
    cidr: str
    route_table_id: str


@dataclass(frozen=True)
class Ingress:
    """One rule of a security group: who may open connections, to which ports.

    `protocol` is "tcp", "udp", "icmp", "all", or an IP protocol number. Ports -1 mean all of them; for icmp
    `from_port` is the type and `to_port` the code, as in EC2.
    """

    protocol: str = "all"
    from_port: int = -1
    to_port: int = -1
    cidrs: tuple[str, ...] = ()
    group_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class SecurityGroup:
    """Stateful, as in EC2 (see rules.py for what is not tracked). Outgoing connections are all allowed."""

    id: str
    ingress: tuple[Ingress, ...] = ()


@dataclass(frozen=True)
class Interface:
    """A network interface. `private_ips[0]` is its primary address; `public_ips` are pairs (private, public).

    `metadata`: whether the instance metadata service answers on this interface's link.
    """

    id: str
    mac: str
    subnet_id: str
    private_ips: tuple[str, ...]
    public_ips: tuple[tuple[str, str], ...] = ()
    source_dest_check: bool = True
    security_group_ids: tuple[str, ...] = ()
    metadata: bool = True


@dataclass(frozen=True)
class Network:
    """One VPC with its CIDR blocks and everything in it."""

    cidrs: tuple[str, ...] = ()
    subnets: tuple[Subnet, ...] = ()
    route_tables: tuple[RouteTable, ...] = ()
    security_groups: tuple[SecurityGroup, ...] = ()
    interfaces: tuple[Interface, ...] = ()

    def subnet(self, subnet_id: str) -> Subnet | None:
        return next((subnet for subnet in self.subnets if subnet.id == subnet_id), None)

    def interface(self, interface_id: str | None) -> Interface | None:
        return next((interface for interface in self.interfaces if interface.id == interface_id), None)

    def with_interface(self, interface: Interface) -> Network:
        """The same picture with this interface added, or in the place of the one with its id."""
        others = tuple(other for other in self.interfaces if other.id != interface.id)
        return replace(self, interfaces=(*others, interface))
