# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pure: faults of the network between hosts and the world, as an nft table of their own beside the VPC's rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Union

from lab.vpc.rules import INTERNET_DEVICE, METADATA_ADDRESS

# What a host can be isolated from: the other hosts, the EC2 endpoint, the rest of the internet (with the operator),
# the instance metadata service, and the clients in the VPC.
PARTNERS = frozenset({"ring", "api", "internet", "imds", "clients"})


@dataclass(frozen=True)
class Cut:
    """Packets from one host's primary interface to the other's are lost: all, or those to the given UDP ports."""

    from_host: str
    to_host: str
    udp_ports: tuple[int, ...] = ()
    percent: float = 100.0


@dataclass(frozen=True)
class Isolation:
    """Packets between all links of a host and its partners are lost, both ways."""

    host: str
    partners: frozenset[str]
    percent: float = 100.0


Fault = Union[Cut, Isolation]


@dataclass(frozen=True)
class Links:
    """Which devices of the router lead where, at this moment. A host's primary device comes first."""

    hosts: Mapping[str, tuple[str, ...]]
    clients: tuple[str, ...] = ()
    api_addresses: tuple[str, ...] = ()


def faults_ruleset(faults: Iterable[Fault], links: Links) -> str:
    """The table `ip faults`, for nft -f."""
    crossing: list[str] = []
    to_router: list[str] = []
    for fault in faults:
        if isinstance(fault, Cut):
            crossing += _cut(fault, links)
        else:
            crossing += _isolation(fault, links)
            devices = links.hosts.get(fault.host, ())
            if devices and "imds" in fault.partners:
                to_router.append(f"iifname {_names(devices)} ip daddr {METADATA_ADDRESS} {_loss(fault.percent)}")
    return "\n".join(
        [
            "table ip faults",
            "delete table ip faults",
            "table ip faults {",
            _chain("crossing", "forward", crossing),
            _chain("to_router", "input", to_router),
            "}",
            "",
        ]
    )


def _cut(fault: Cut, links: Links) -> list[str]:
    source, target = links.hosts.get(fault.from_host, ()), links.hosts.get(fault.to_host, ())
    if not source or not target:
        return []
    ports = f"udp dport {{ {', '.join(map(str, fault.udp_ports))} }} " if fault.udp_ports else ""
    return [f"iifname {_names(source[:1])} oifname {_names(target[:1])} {ports}{_loss(fault.percent)}"]


def _isolation(fault: Isolation, links: Links) -> list[str]:
    devices = links.hosts.get(fault.host, ())
    if not devices:
        return []
    others = tuple(device for host, group in links.hosts.items() if host != fault.host for device in group)
    api = f"{{ {', '.join(links.api_addresses)} }}"
    loss, own, gateway = _loss(fault.percent), _names(devices), _names([INTERNET_DEVICE])
    lines: list[str] = []
    if "ring" in fault.partners and others:
        lines += _both(own, _names(others), loss)
    if "clients" in fault.partners and links.clients:
        lines += _both(own, _names(links.clients), loss)
    if "api" in fault.partners and links.api_addresses:
        lines += [f"iifname {own} ip daddr {api} {loss}", f"oifname {own} ip saddr {api} {loss}"]
    if "internet" in fault.partners:
        lines += [
            f"iifname {own} oifname {gateway} ip daddr != {api} {loss}",
            f"iifname {gateway} oifname {own} ip saddr != {api} {loss}",
        ]
    return lines


def _both(one: str, other: str, loss: str) -> list[str]:
    return [f"iifname {one} oifname {other} {loss}", f"iifname {other} oifname {one} {loss}"]


def _names(devices: Iterable[str]) -> str:
    return "{ " + ", ".join(f'"{device}"' for device in devices) + " }"


def _loss(percent: float) -> str:
    return "drop" if percent >= 100 else f"numgen random mod 10000 < {round(percent * 100)} drop"


def _chain(name: str, hook: str, lines: Iterable[str]) -> str:
    head = f"    type filter hook {hook} priority filter - 10; policy accept;"
    return "\n".join([f"  chain {name} {{", head, *(f"    {line}" for line in lines), "  }"])
