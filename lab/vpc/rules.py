# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pure: from a Network to what the kernel must hold: routes and rules for ip(8), rulesets for nft(8).

The VPC is a router without layer 2 (as on AWS): each interface is a device of the router, with a /32 route to each of
its private addresses. Free addresses are blackholes, so nothing answers for them. Those of an interface without a link
lead into the void: the VPC answers ARP for them, as it does for every interface it knows, and packets get lost.

    a packet from an interface: prerouting raw   source check, metadata service, nothing else link-local; flows that
                                                 security groups don't track
                                (conntrack)      sees private addresses in both directions
                                ip rule iif      the VPC's own addresses first, then the subnet's route table
                                forward          dest check, internet gateway's admission, security groups
                                postrouting      internet gateway: private to public source, stateless
    a packet from the internet: prerouting raw   internet gateway: public to private destination, stateless

Security groups keep state, as AWS documents it: a flow is tracked, unless its protocol (TCP or UDP) is open to and from
0.0.0.0/0 on all ports. A tracked flow's state belongs to the attachment (see `Fabric.unplug`); a packet in the middle
of a flow that is not known counts as a new one's, and needs an ingress rule.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network

from lab.vpc.network import Ingress, Interface, Network, Route, RouteTable, SecurityGroup, Subnet

INTERNET_DEVICE = "internet"
VOID_DEVICE = "void"
METADATA_ADDRESS = "169.254.169.254"
RESOLVER_ADDRESS = "169.254.169.253"

# Order of the ip rules: the VPC's own addresses win over every route table (AWS's "local" route); then nothing.
PREFERENCE_LOCAL, PREFERENCE_TABLES, PREFERENCE_END = 100, 200, 300

EVERYWHERE = "0.0.0.0/0"

# What must hold in the kernel: ("route", table, prefix), ("rule", device, table) or ("address", address), each with the
# rest of its ip(8) line.
Routing = Mapping[tuple[str, ...], str]


def device_name(interface_id: str) -> str:
    """Name of the router's device for an interface: at most 15 characters, as the kernel wants."""
    return "e" + interface_id.removeprefix("eni-")[-14:]


def gateway_address(subnet: Subnet) -> str:
    """The subnet's first address, which is the VPC router's."""
    return str(IPv4Network(subnet.cidr)[1])


def prefix_length(subnet: Subnet) -> int:
    return IPv4Network(subnet.cidr).prefixlen


def table_number(route_table_id: str) -> int:
    """Kernel number of a route table: the same for the same id, far from the kernel's own."""
    return 0x10000 + (zlib.crc32(route_table_id.encode()) >> 1)


# --- routes and rules -------------------------------------------------------------------------------------------------


def routing(network: Network, live: frozenset[str]) -> Routing:
    """Addresses, routes and rules of the router. `live`: ids of the interfaces with a link to a host under power."""
    state: dict[tuple[str, ...], str] = {}
    for cidr in network.cidrs:
        state["route", "main", cidr] = f"blackhole {cidr}"
    for subnet in network.subnets:
        state["route", "main", subnet.cidr] = f"blackhole {subnet.cidr}"
        state["address", f"{gateway_address(subnet)}/32"] = "dev lo"
    for interface in network.interfaces:
        state.update(_interface_routes(interface, interface.id in live))
    for table in network.route_tables:
        state.update(_table_routes(table, network, live))
    state.update(_table_rules(network))
    return state


def routing_batch(old: Routing, new: Routing) -> list[str]:
    """The ip(8) lines that lead from one state to the other, with no gap for what both have."""
    added = [(key, rest) for key, rest in new.items() if old.get(key) != rest]
    removed = [(key, rest) for key, rest in old.items() if key not in new]
    return [_add_line(key, rest) for key, rest in added] + [_remove_line(key, rest) for key, rest in removed]


def _interface_routes(interface: Interface, live: bool) -> Routing:
    primary, device = interface.private_ips[0], device_name(interface.id)
    state: dict[tuple[str, ...], str] = {}
    for address in interface.private_ips:
        if not live:
            way = f"dev {VOID_DEVICE}"
        elif address == primary:
            way = f"dev {device}"
        else:  # through the primary address, whose neighbour entry holds the MAC
            way = f"via {primary} dev {device} onlink"
        state["route", "main", f"{address}/32"] = f"{address}/32 {way}"
    return state


def _table_routes(table: RouteTable, network: Network, live: frozenset[str]) -> Routing:
    number = str(table_number(table.id))
    return {
        ("route", number, route.cidr): _target(route, network, live) for route in table.routes if route.kind != "local"
    }


def _target(route: Route, network: Network, live: frozenset[str]) -> str:
    if route.kind == "internet":
        return f"{route.cidr} dev {INTERNET_DEVICE}"
    interface = network.interface(route.interface_id)
    if route.kind == "interface" and interface is not None and interface.id in live:
        return f"{route.cidr} via {interface.private_ips[0]} dev {device_name(interface.id)} onlink"
    return f"blackhole {route.cidr}"


def _table_rules(network: Network) -> Routing:
    state: dict[tuple[str, ...], str] = {}
    for interface in network.interfaces:
        subnet = network.subnet(interface.subnet_id)
        if subnet is not None:
            number = table_number(subnet.route_table_id)
            state["rule", device_name(interface.id), str(number)] = f"pref {PREFERENCE_TABLES}"
    return state


def _add_line(key: tuple[str, ...], rest: str) -> str:
    kind = key[0]
    if kind == "route":
        return f"route replace {rest} table {key[1]}"
    if kind == "rule":
        return f"rule add iif {key[1]} lookup {key[2]} {rest}"
    return f"address replace {key[1]} {rest}"


def _remove_line(key: tuple[str, ...], rest: str) -> str:
    kind = key[0]
    if kind == "route":
        return f"route del {key[2]} table {key[1]}"
    if kind == "rule":
        return f"rule del iif {key[1]} lookup {key[2]} {rest}"
    return f"address del {key[1]} {rest}"


# --- the ruleset of the VPC -------------------------------------------------------------------------------------------


def vpc_ruleset(network: Network) -> str:
    """The table `ip vpc`: internet gateway, source/dest check, metadata service, security groups. One transaction."""
    interfaces = network.interfaces
    own = [(device_name(each.id), address) for each in interfaces for address in each.private_ips]
    metadata = [(device_name(each.id), address) for each in interfaces if each.metadata for address in each.private_ips]
    checked = [device_name(each.id) for each in interfaces if each.source_dest_check]
    public = sorted(pair for each in interfaces for pair in each.public_ips)
    open_ = [(each, protocol) for each in interfaces for protocol in untracked_protocols(each, network)]
    untracked_from = [f'"{device_name(each.id)}" . {protocol}' for each, protocol in open_]
    untracked_to = [f"{address} . {protocol}" for each, protocol in open_ for address in each.private_ips]
    return "\n".join(
        [
            "table ip vpc",
            "delete table ip vpc",
            "table ip vpc {",
            _set("cidrs", "ipv4_addr; flags interval", sorted(network.cidrs)),
            _set("own", "ifname . ipv4_addr", [f'"{device}" . {address}' for device, address in sorted(own)]),
            _set("metadata", "ifname . ipv4_addr", [f'"{device}" . {address}' for device, address in sorted(metadata)]),
            _set("checked", "ifname", [f'"{device}"' for device in sorted(checked)]),
            _set("addresses", "ipv4_addr", sorted(address for _, address in own)),
            _set("untracked_from", "ifname . inet_proto", sorted(untracked_from)),
            _set("untracked_to", "ipv4_addr . inet_proto", sorted(untracked_to)),
            _map("public_of", [f"{private} : {address}" for private, address in public]),
            _map("private_of", [f"{address} : {private}" for private, address in public]),
            _CHAINS,
            *(_group(group, network) for group in network.security_groups),
            *(_admission(interface, network) for interface in interfaces),
            _crossing(interfaces),
            "}",
            "",
        ]
    )


_CHAINS = f"""\
  chain before_tracking {{
    type filter hook prerouting priority raw; policy accept;
    iifname "lo" accept
    iifname "{INTERNET_DEVICE}" ip daddr @cidrs drop
    iifname "{INTERNET_DEVICE}" ip saddr @cidrs drop
    iifname "{INTERNET_DEVICE}" ip daddr set ip daddr map @private_of
    iifname "{INTERNET_DEVICE}" ip daddr != @cidrs drop
    iifname @checked iifname . ip saddr != @own drop
    ip saddr 169.254.0.0/16 drop
    ip daddr {{ {METADATA_ADDRESS}, {RESOLVER_ADDRESS} }} iifname . ip saddr @metadata accept
    ip daddr 169.254.0.0/16 drop
    iifname "{INTERNET_DEVICE}" ip daddr . meta l4proto @untracked_to notrack
    iifname . meta l4proto @untracked_from ip daddr != @addresses notrack
    iifname . meta l4proto @untracked_from ip daddr . meta l4proto @untracked_to notrack
  }}
  chain after_tracking {{
    type filter hook postrouting priority srcnat + 200; policy accept;
    oifname "{INTERNET_DEVICE}" ip saddr set ip saddr map @public_of
  }}
  chain to_router {{
    type filter hook input priority filter; policy drop;
    iifname "lo" accept
    ip daddr {METADATA_ADDRESS} tcp dport 80 accept
    ip daddr {RESOLVER_ADDRESS} meta l4proto {{ tcp, udp }} th dport 53 accept
  }}
  chain from_router {{
    type filter hook output priority filter; policy accept;
    icmp type {{ redirect, time-exceeded }} drop
  }}"""


def untracked_protocols(interface: Interface, network: Network) -> list[str]:
    """Of TCP and UDP those whose flows the interface's security groups don't track. (Egress is open in every group.)"""
    groups = [group for group in network.security_groups if group.id in interface.security_group_ids]
    return [
        protocol
        for protocol in ("tcp", "udp")
        if any(_is_open(rule, protocol) for group in groups for rule in group.ingress)
    ]


def _is_open(rule: Ingress, protocol: str) -> bool:
    all_ports = rule.protocol == "all" or rule.from_port < 0 or (rule.from_port, rule.to_port) == (0, 65535)
    return rule.protocol in ("all", protocol) and all_ports and EVERYWHERE in rule.cidrs


def _crossing(interfaces: Iterable[Interface]) -> str:
    """The forward chain. It comes last, since it jumps to the chains of the interfaces."""
    targets = sorted(f'"{device_name(each.id)}" : jump {_admission_name(each)}' for each in interfaces)
    lines = [
        "  chain crossing {",
        "    type filter hook forward priority filter; policy drop;",
        f'    oifname "{VOID_DEVICE}" drop',
        "    oifname @checked oifname . ip daddr != @own drop",
        # The gateway knows an interface by its own address: what comes un-NATed, or by another one, has no way out.
        f'    oifname "{INTERNET_DEVICE}" iifname . ip saddr != @own drop',
        f'    oifname "{INTERNET_DEVICE}" ip saddr != @public_of drop',
        f'    oifname "{INTERNET_DEVICE}" accept',
        "    ct state established,related accept",
    ]
    if targets:
        lines.append(f"    oifname vmap {{ {', '.join(targets)} }}")
    return "\n".join([*lines, "  }"])


def _admission(interface: Interface, network: Network) -> str:
    known = {group.id for group in network.security_groups}
    jumps = [f"    jump {_group_name(group_id)}" for group_id in interface.security_group_ids if group_id in known]
    return "\n".join([f"  chain {_admission_name(interface)} {{", *jumps, "  }"])


def _group(group: SecurityGroup, network: Network) -> str:
    lines = [f"    {match} accept" for rule in group.ingress for match in _matches(rule, network)]
    return "\n".join([f"  chain {_group_name(group.id)} {{", *lines, "  }"])


def _matches(rule: Ingress, network: Network) -> list[str]:
    """The nft matches of one ingress rule: one for each source."""
    sources = ["" if cidr == EVERYWHERE else f"ip saddr {cidr} " for cidr in rule.cidrs]
    for group_id in rule.group_ids:
        members = sorted(
            address
            for interface in network.interfaces
            if group_id in interface.security_group_ids
            for address in interface.private_ips
        )
        if members:
            sources.append(f"ip saddr {{ {', '.join(members)} }} ")
    return [source + _service(rule) for source in sources]


def _service(rule: Ingress) -> str:
    if rule.protocol == "all":
        return "meta l4proto 0-255"
    if rule.protocol in ("tcp", "udp"):
        ports = "0-65535" if rule.from_port < 0 else f"{rule.from_port}-{rule.to_port}"
        return f"{rule.protocol} dport {ports}"
    if rule.protocol == "icmp" and rule.from_port >= 0:
        code = f" icmp code {rule.to_port}" if rule.to_port >= 0 else ""
        return f"icmp type {rule.from_port}{code}"
    return f"meta l4proto {rule.protocol}"


def _group_name(group_id: str) -> str:
    return f"group_{group_id}"


def _admission_name(interface: Interface) -> str:
    return f"to_{device_name(interface.id)}"


def _set(name: str, type_: str, elements: list[str]) -> str:
    content = f" elements = {{ {', '.join(elements)} }};" if elements else ""
    return f"  set {name} {{ type {type_};{content} }}"


def _map(name: str, elements: list[str]) -> str:
    content = f" elements = {{ {', '.join(elements)} }};" if elements else ""
    return f"  map {name} {{ type ipv4_addr : ipv4_addr;{content} }}"
