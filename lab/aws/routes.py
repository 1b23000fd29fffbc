# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Routes: checked when they are made, and `blackhole` while their target is not there."""

from __future__ import annotations

import ipaddress
from functools import partial
from typing import Any

from moto.ec2.models.route_tables import Route, RouteBackend
from moto.ec2.responses.route_tables import RouteTables

from lab.aws.errors import refusal
from lab.aws.patching import replace
from lab.aws.world import world

TARGETS = (
    "gateway_id", "instance_id", "nat_gateway_id", "egress_only_igw_id", "transit_gateway_id", "interface_id",
    "vpc_peering_connection_id", "carrier_gateway_id", "vpc_endpoint_id",
)  # fmt: skip


def create_route(
    backend: Any, route_table_id: str, destination_cidr_block: str | None, *arguments: Any, **more: Any
) -> Any:
    if more.get("local"):
        return _create_route(backend, route_table_id, destination_cidr_block, *arguments, **more)
    table = backend.get_route_table(route_table_id)
    if destination_cidr_block is not None:
        destination_cidr_block = checked_cidr(destination_cidr_block)
        if any(route.destination_cidr_block == destination_cidr_block for route in table.routes):
            raise refusal("RouteAlreadyExists", f"The route identified by {destination_cidr_block} already exists.")
    _check_target(backend, table, more)
    return _create_route(backend, route_table_id, destination_cidr_block, *arguments, **more)


def replace_route(backend: Any, route_table_id: str, destination_cidr_block: str, *arguments: Any, **more: Any) -> None:
    table = backend.get_route_table(route_table_id)
    _check_target(backend, table, more, given=sum(value is not None for value in arguments[2:]))
    known = [route.destination_cidr_block for route in table.routes]
    if destination_cidr_block is not None and destination_cidr_block not in known:
        raise refusal(
            "InvalidParameterValue",
            f"There is no route defined for '{destination_cidr_block}' in the route table. Use CreateRoute instead.",
        )
    change = partial(_replace_route, backend, route_table_id, destination_cidr_block, *arguments, **more)
    world().take_effect(world().settings.reassign_delay, change)


def checked_cidr(text: str) -> str:
    """An IPv4 block as EC2 keeps it: bits beyond the prefix cleared."""
    try:
        if "/" not in text:
            raise ValueError("no prefix length")
        return str(ipaddress.IPv4Network(text, strict=False))
    except ValueError:
        raise refusal(
            "InvalidParameterValue",
            f"Value ({text}) for parameter destinationCidrBlock is invalid. This is not a valid CIDR block.",
        ) from None


def _check_target(backend: Any, table: Any, more: dict[str, Any], given: int = 0) -> None:
    """Exactly one target, in the same VPC."""
    if given + sum(more.get(name) is not None for name in TARGETS) != 1:
        raise refusal("InvalidParameterCombination", "Exactly one target of the route must be specified.")
    if more.get("interface_id"):
        eni = backend.get_network_interface(more["interface_id"])
        if eni.vpc_id != table.vpc_id:
            raise refusal(
                "InvalidParameterValue",
                f"route table {table.id} and interface {eni.id} belong to different networks",
            )
    gateway_id = more.get("gateway_id")
    if gateway_id and gateway_id.startswith("igw-"):
        gateway = backend.get_internet_gateway(gateway_id)
        if not gateway.vpc or gateway.vpc.id != table.vpc_id:
            raise refusal(
                "InvalidParameterValue",
                f"route table {table.id} and network gateway {gateway_id} belong to different networks",
            )


def state(route: Any) -> str:
    """`blackhole`: the target is detached, gone, or on an instance that does not run."""
    if route.interface:
        eni = route.interface
        present = eni.ec2_backend.enis.get(eni.id) is eni and eni.attachment_status in ("attached", "detaching")
        return "active" if present and eni.instance.state in ("pending", "running") else "blackhole"
    if route.instance:
        return "active" if route.instance.state in ("pending", "running") else "blackhole"
    if route.gateway and route.gateway.id.startswith("igw-"):
        gateway = route.gateway
        there = gateway.ec2_backend.internet_gateways.get(gateway.id) is gateway and gateway.vpc is not None
        return "active" if there else "blackhole"
    return "active"


def instance_id(route: Any) -> str | None:
    """A route to an interface tells the instance that it is attached to, too."""
    if route.interface:
        return route.interface.instance.id if route.interface.instance else None
    return route.instance.id if route.instance else None


def instance_owner_id(route: Any) -> str | None:
    return route.route_table.ec2_backend.account_id if instance_id(route) else None


def associate(backend: Any, route_table_id: str, gateway_id: str | None = None, subnet_id: str | None = None) -> str:
    backend.get_route_table(route_table_id)
    if subnet_id is not None:
        for table in backend.route_tables.values():
            if subnet_id in table._associations.values() and table.id != route_table_id:
                raise refusal(
                    "Resource.AlreadyAssociated",
                    f"the specified association for route table {route_table_id} conflicts with "
                    "an existing association",
                )
    return _associate(backend, route_table_id, gateway_id, subnet_id)


def respond_with_dry_run(original: Any) -> Any:
    """moto's route calls carry out a dry run."""

    def respond(self: Any) -> Any:
        self.error_on_dryrun()
        return original(self)

    return respond


def apply() -> None:
    """Put all of this in moto's place."""
    global _create_route, _replace_route, _associate
    # A destination is a CIDR block and has one route; a route has one target, of the same VPC.
    _create_route = replace(RouteBackend, "create_route", create_route)
    _replace_route = replace(RouteBackend, "replace_route", replace_route)
    # A route is a blackhole while its interface is detached or gone.
    replace(Route, "state", property(state))
    # A route to an interface names the instance too.
    replace(Route, "instance_id", property(instance_id))
    Route.instance_owner_id = property(instance_owner_id)  # type: ignore[attr-defined]
    # A subnet has one route table: ReplaceRouteTableAssociation changes it.
    _associate = replace(RouteBackend, "associate_route_table", associate)
    for name in (
        "associate_route_table", "create_route", "create_route_table", "delete_route", "delete_route_table",
        "disassociate_route_table", "replace_route", "replace_route_table_association",
    ):  # fmt: skip
        replace(RouteTables, name, respond_with_dry_run(getattr(RouteTables, name)))


_create_route: Any = None
_replace_route: Any = None
_associate: Any = None
