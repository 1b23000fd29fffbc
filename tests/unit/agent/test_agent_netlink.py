# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The netlink layer: what it makes of the kernel's bytes."""

from __future__ import annotations

import socket
import struct

import netlink
import pytest
from netlink import Netlink


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def expression(name: str, data: bytes) -> bytes:
    return attribute(
        1, attribute(netlink.NFTA_EXPR_NAME, name.encode() + b"\0") + attribute(netlink.NFTA_EXPR_DATA, data)
    )


def nft_rule(address: str, nat_type: int) -> bytes:
    """As `nft ... snat to ADDRESS` is kept: load the address into a register, then nat."""
    load = attribute(1, struct.pack("!I", 1)) + attribute(2, attribute(1, socket.inet_aton(address)))
    return expression("immediate", load) + expression(
        "nat", attribute(netlink.NFTA_NAT_TYPE, struct.pack("!I", nat_type))
    )


def iptables_rule(target: str, address: str) -> bytes:
    """As `iptables -j SNAT --to-source ADDRESS` is kept by iptables-nft: struct nf_nat_range2 in a target."""
    packed = socket.inet_aton(address)
    range2 = struct.pack("=I", 1) + packed + b"\0" * 12 + packed + b"\0" * 16
    return expression("target", attribute(1, target.encode() + b"\0") + attribute(3, range2))


@pytest.mark.parametrize(
    ("expressions", "found"),
    [
        (nft_rule("10.0.1.100", 0), True),
        (nft_rule("10.0.1.100", 1), False),  # DNAT
        (nft_rule("10.0.1.101", 0), False),
        (iptables_rule("SNAT", "10.0.1.100"), True),
        (iptables_rule("DNAT", "10.0.1.100"), False),
        (iptables_rule("SNAT", "10.0.1.10"), False),
        (expression("cmp", socket.inet_aton("10.0.1.100")) + iptables_rule("SNAT", "10.0.1.10"), False),
        (b"", False),
    ],
)
def test_snat_rules_are_told_from_others(expressions: bytes, found: bool) -> None:
    assert netlink._is_snat(expressions, socket.inet_aton("10.0.1.100")) is found


def test_attributes_end_at_garbage() -> None:
    assert netlink.attributes(attribute(5, b"abc") + b"\0" * 8, 0) == {5: b"abc"}


def test_a_route_is_read() -> None:
    head = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 0, 4, 0, netlink.RTN_UNICAST, 0)
    body = (
        head + attribute(netlink.RTA_TABLE, struct.pack("=I", 1000)) + attribute(netlink.RTA_OIF, struct.pack("=I", 7))
    )
    body += attribute(netlink.RTA_GATEWAY, socket.inet_aton("10.0.1.1"))
    route = netlink._route(body)
    assert (route.table, route.destination, route.prefix, route.index) == (1000, "0.0.0.0", 0, 7)
    assert (route.gateway, route.source, route.metric) == ("10.0.1.1", None, 0)


def test_this_kernel_is_read_without_privileges() -> None:
    with Netlink() as kernel:
        loopback = next(link for link in kernel.links() if link.name == "lo")
        assert loopback.mac == "00:00:00:00:00:00"
        assert kernel.routes(987654) == []
        assert any(rule.table == netlink.MAIN_TABLE and rule.plain for rule in kernel.rules())
        assert all(address.prefix <= 32 for address in kernel.addresses())


def test_the_kernels_errors_are_raised() -> None:
    with Netlink() as kernel, pytest.raises(OSError, match=r"No such device|not permitted"):
        kernel.set_link(987654, up=True)


def test_an_interrupted_dump_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []

    def answers(self: Netlink, sequence: int) -> object:
        flags = netlink.NLM_F_DUMP_INTR if len(sent) < 2 else 0
        return iter([(16, flags, bytes([len(sent)])), (netlink.NLMSG_DONE, 0, b"\0\0\0\0")])

    monkeypatch.setattr(Netlink, "_send", lambda self, kind, body, flags: sent.append(kind))
    monkeypatch.setattr(Netlink, "_answers", answers)
    with Netlink() as kernel:
        assert kernel._dump(netlink.RTM_GETLINK, b"") == [b"\x02"]
    sent.clear()
    monkeypatch.setattr(netlink, "ATTEMPTS", 1)
    with Netlink() as kernel, pytest.raises(OSError, match="changed during each"):
        kernel._dump(netlink.RTM_GETLINK, b"")
