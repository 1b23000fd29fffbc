# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The truth on this host: is the ENI here, and does it forward? And what start and stop change on the host.

`look()` reads the kernel, `faults()` judges what it read without I/O. No API, no metadata service, no disk, no child.
"""

from __future__ import annotations

import socket

import netlink
from netlink import Address, Netlink, Route, Rule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from netlink import Link
    from ocf import Deadline

BLACKHOLE_METRIC = 9999
SYSCTL = "/proc/sys/net/ipv4"
STRICT = "1"  # rp_filter: the strict check drops what comes in by another link than the way back


class Wanted:
    """What the ENI needs on its host. Taken from the agent's parameters; None where a stop was given a bad one."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.mac: str | None = settings["mac_address"]
        self.ip: str | None = settings["private_ip"]
        self.subnet: tuple[str, int] = settings["subnet"] or ("0.0.0.0", 32)
        self.gateway: str = settings["gateway"] or first_address(self.subnet)
        self.table: int = settings["route_table"]
        self.priority: int = settings["rule_priority"]


class View:
    """One reading of the kernel. Without a link, nothing beyond forwarding and NAT was read."""

    def __init__(
        self,
        link: Link | None,
        addresses: list[Address],
        routes: list[Route],
        rules: list[Rule],
        sysctls: Mapping[str, str],
        snat: bool,
    ) -> None:
        self.link = link
        self.addresses = addresses
        self.routes = routes
        self.rules = rules
        self.sysctls = sysctls
        self.snat = snat

    def has_address(self, ip: str | None) -> bool:
        return any(address.ip == ip for address in self.addresses)


class HostError(Exception):
    """The kernel refused or did not answer: the state of this host is not known, or not as wanted."""


def first_address(subnet: tuple[str, int]) -> str:
    """A VPC subnet's router: the address after the network's own."""
    return socket.inet_ntoa((int.from_bytes(socket.inet_aton(subnet[0]), "big") + 1).to_bytes(4, "big"))


def find_link(mac: str | None, links: list[Link]) -> Link | None:
    """The link with this MAC (the lowest index: what is stacked on a link may share its MAC)."""
    return min((link for link in links if link.mac == mac), key=lambda link: link.index, default=None)


def look(wanted: Wanted) -> View:
    """Read all that `faults` judges. Raises HostError."""
    try:
        with Netlink() as kernel:
            link = find_link(wanted.mac, kernel.links())
            if link is None:
                return View(None, [], [], [], {}, False)
            addresses = [address for address in kernel.addresses() if address.index == link.index]
            routes = kernel.routes(wanted.table)
            rules = kernel.rules()
        return View(link, addresses, routes, rules, _sysctls(link.name), netlink.has_snat_to(str(wanted.ip)))
    except OSError as error:
        raise HostError(f"the kernel's state could not be read: {error}") from error


def is_stopped(view: View, wanted: Wanted) -> bool:
    """True on positive evidence: the MAC is on no link here, or on one that is down and has lost the address.

    The second is what a stop leaves while EC2 still shows the attachment, and a start before it configures.
    """
    return view.link is None or (not view.link.up and not view.has_address(wanted.ip))


def faults(view: View, wanted: Wanted) -> list[str]:
    """Why the ENI, whose link is here, does not forward; empty if it does."""
    link = view.link
    if link is None:
        return [f"no link has the MAC {wanted.mac}"]
    found = []
    if not link.up:
        found.append(f"link {link.name} is down")
    elif not link.carrier:
        found.append(f"link {link.name} has no carrier")
    if not view.has_address(wanted.ip):
        found.append(f"address {wanted.ip} is not on {link.name}")
    if not any(_is_our_default(route, link, wanted) for route in view.routes):
        found.append(f"table {wanted.table} has no default route by {wanted.gateway} on {link.name}")
    for rule in _rules(wanted, link.name):
        if not any(_same_rule(rule, present) for present in view.rules):
            selector = f"iif {rule.link}" if rule.link else f"from {rule.source}"
            found.append(f"routing rule {selector} lookup {rule.table} is missing")
    return found + _forwarding_faults(view, link.name, wanted)


def _forwarding_faults(view: View, link: str, wanted: Wanted) -> list[str]:
    switches = ("ip_forward", f"conf/{link}/forwarding")
    found = [f"net.ipv4.{name} is 0" for name in switches if view.sysctls.get(name) == "0"]
    if max(view.sysctls.get(f"conf/{name}/rp_filter", "0") for name in ("all", link)) == STRICT:
        found.append(f"rp_filter is strict on {link}")
    if not view.snat:
        found.append(f"no SNAT rule to {wanted.ip}")
    return found


def warnings(view: View, wanted: Wanted) -> list[str]:
    """What makes a later fault likelier while the ENI forwards now."""
    if any(route.kind == netlink.RTN_BLACKHOLE and route.prefix == 0 for route in view.routes):
        return []
    return [f"table {wanted.table} has no blackhole default: packets could leave without NAT during a move"]


def missing_for_start(wanted: Wanted) -> list[str]:
    """What another must have set up before the ENI is any use here (the role `router` does). Raises HostError."""
    try:
        snat = netlink.has_snat_to(str(wanted.ip))
        forward = _read(f"{SYSCTL}/ip_forward")
    except OSError as error:
        raise HostError(f"the kernel's state could not be read: {error}") from error
    found = ["net.ipv4.ip_forward is 0"] if forward == "0" else []
    return found if snat else [*found, f"no SNAT rule to {wanted.ip}"]


def prepare(wanted: Wanted) -> None:
    """Before the link is here: what would leave by the ENI goes nowhere, rather than by the primary link, un-NATed."""
    try:
        with Netlink() as kernel:
            kernel.replace_route(Route(wanted.table, "0.0.0.0", 0, netlink.RTN_BLACKHOLE, metric=BLACKHOLE_METRIC))
            _ensure_rules(kernel, wanted, _rules(wanted, None))
    except OSError as error:
        raise HostError(f"table {wanted.table} could not be prepared: {error}") from error


def configure(wanted: Wanted) -> None:
    """Bring the link into service: rules while it is still down, then up, then its routes. Can be repeated."""
    try:
        with Netlink() as kernel:
            link = find_link(wanted.mac, kernel.links())
            if link is None:
                raise HostError(f"the link with the MAC {wanted.mac} has gone")
            _ensure_rules(kernel, wanted, _rules(wanted, link.name))
            for name, value in (("forwarding", "1"), ("rp_filter", "2"), ("send_redirects", "0")):
                _write(f"{SYSCTL}/conf/{link.name}/{name}", value)
            kernel.add_address(Address(link.index, str(wanted.ip), 32))
            kernel.set_link(link.index, up=True)
            network, prefix = wanted.subnet
            kernel.replace_route(Route(wanted.table, network, prefix, index=link.index, source=wanted.ip))
            kernel.replace_route(
                Route(wanted.table, "0.0.0.0", 0, index=link.index, gateway=wanted.gateway, source=wanted.ip)
            )
    except OSError as error:
        raise HostError(f"the link with the MAC {wanted.mac} could not be configured: {error}") from error


def tear_down(wanted: Wanted) -> bool:
    """Take the link down and the address off, wherever it is. True if there was anything. Raises HostError.

    Rules and blackhole stay: nothing of the clients may leave by another way. Down first, so that nothing comes in.
    """
    changed = False
    try:
        with Netlink() as kernel:
            link = find_link(wanted.mac, kernel.links()) if wanted.mac else None
            if link is not None and link.up:
                _unless_gone(kernel.set_link, link.index, up=False)
                changed = True
            for address in kernel.addresses():
                if address.ip == wanted.ip or (link is not None and address.index == link.index):
                    _unless_gone(kernel.delete_address, address)
                    changed = True
    except OSError as error:
        raise HostError(f"the link with the MAC {wanted.mac} could not be taken down: {error}") from error
    return changed


def wait_for_link(mac: str, deadline: Deadline) -> Link | None:
    """The link with this MAC as soon as the kernel shows one; None at the deadline. Raises HostError."""
    return _wait_until(mac, True, deadline)


def wait_until_gone(mac: str | None, deadline: Deadline) -> bool:
    """Whether no link has this MAC any more, at the deadline at the latest. Raises HostError."""
    return _wait_until(mac, False, deadline) is None


def _wait_until(mac: str | None, is_there: bool, deadline: Deadline) -> Link | None:
    """The link with this MAC, or None, once that is as wanted or the time is up."""
    try:
        with Netlink(groups=netlink.RTMGRP_LINK) as events, Netlink() as kernel:
            while True:
                link = find_link(mac, kernel.links())
                if (link is not None) == is_there or deadline.left() <= 0:
                    return link
                events.wait_for_event(min(0.25, deadline.left()))
    except OSError as error:
        raise HostError(f"the kernel's links could not be read: {error}") from error


class Primary:
    """The link and the address by which this host reaches its subnet without the ENI."""

    def __init__(self, link: str, ip: str) -> None:
        self.link = link
        self.ip = ip


def primary(links: list[Link], addresses: list[Address], routes: list[Route], eni_mac: str | None) -> Primary | None:
    """The link of the main table's best default route, the ENI's own left out. None without one."""
    names = {link.index: link.name for link in links if link.mac != eni_mac}
    defaults = [route for route in routes if route.prefix == 0 and route.index in names]
    for route in sorted(defaults, key=lambda route: route.metric):
        ip = route.source or next((address.ip for address in addresses if address.index == route.index), None)
        if ip is not None and route.index is not None:
            return Primary(names[route.index], ip)
    return None


def read_primary(eni_mac: str | None) -> Primary | None:
    """Raises OSError."""
    with Netlink() as kernel:
        return primary(kernel.links(), kernel.addresses(), kernel.routes(netlink.MAIN_TABLE), eni_mac)


def _rules(wanted: Wanted, link: str | None) -> list[Rule]:
    """From the ENI's address, for what this host itself answers; and by link, for what is forwarded."""
    rules = [Rule(wanted.table, wanted.priority, source=wanted.ip)]
    return rules if link is None else [*rules, Rule(wanted.table, wanted.priority, link=link)]


def _ensure_rules(kernel: Netlink, wanted: Wanted, rules: list[Rule]) -> None:
    present = kernel.rules()
    for rule in rules:
        if not any(_same_rule(rule, other) for other in present):
            kernel.add_rule(rule)


def _same_rule(rule: Rule, other: Rule) -> bool:
    return other.plain and (rule.table, rule.source, rule.link) == (other.table, other.source, other.link)


def _is_our_default(route: Route, link: Link, wanted: Wanted) -> bool:
    here = route.index == link.index and route.gateway == wanted.gateway
    return route.prefix == 0 and route.kind == netlink.RTN_UNICAST and here


def _unless_gone(change: Callable[..., None], *arguments: object, **options: object) -> None:
    """Make a change; no error if its object has gone: another host may detach the ENI, and its link, at this moment."""
    try:
        change(*arguments, **options)
    except OSError as error:
        if error.errno not in (netlink.errno.EADDRNOTAVAIL, netlink.errno.ENODEV):
            raise


def _sysctls(link: str) -> dict[str, str]:
    names = ("ip_forward", f"conf/{link}/forwarding", "conf/all/rp_filter", f"conf/{link}/rp_filter")
    return {name: _read(f"{SYSCTL}/{name}") for name in names}


def _read(path: str) -> str:
    with open(path, "rb") as file:
        return file.read().decode().strip()


def _write(path: str, value: str) -> None:
    if _read(path) != value:
        with open(path, "wb") as file:
            file.write(value.encode())
