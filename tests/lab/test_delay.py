# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packets to a port of the other host come late, and whole; others do not notice."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from vpc_picture import HOST_A, HOST_B, NETWORK, udp

from lab.vpc.delay import Delay, Way, late_copy
from lab.vpc.fabric import Fabric
from lab.vpc.rules import device_name

MACS = b"\2" * 6, b"\4" * 6


@pytest.fixture
def fabric() -> Iterator[Fabric]:
    with Fabric(f"late{os.getpid()}") as fabric:
        fabric.apply(NETWORK)
        for key, interface in (("a", HOST_A), ("b", HOST_B)):
            fabric.add_host(key)
            fabric.plug(interface, key, "ens5", configure=True)
        yield fabric


@pytest.mark.root
def test_only_the_port_is_late(fabric: Fabric) -> None:
    first, second = device_name(HOST_A.id), device_name(HOST_B.id)
    ways = [Way(first, second, HOST_B.mac), Way(second, first, HOST_A.mac)]
    fabric.cut("a", "b", udp_ports=[5405])
    with (
        Delay(fabric.vpc_netns, ways, [5405], 0.3),
        udp(fabric.namespace("a"), "10.0.1.11", 5405) as a,
        udp(fabric.namespace("b"), "10.0.1.12", 5405) as b,
        udp(fabric.namespace("b"), "10.0.1.12", 7) as other,
    ):
        for each in (a, b, other):
            each.settimeout(5)
        sent = time.monotonic()
        a.sendto(b"late", ("10.0.1.12", 5405))
        a.sendto(b"at once", ("10.0.1.12", 7))
        assert other.recv(10) == b"at once"
        soon = time.monotonic()
        data, sender = b.recvfrom(10)
        assert (data, sender) == (b"late", ("10.0.1.11", 5405))
        assert time.monotonic() - sent >= 0.3 > soon - sent
        b.sendto(b"back", sender)
        assert a.recv(10) == b"back"


def frame(kind: bytes = b"\x08\x00", protocol: int = 17, port: int = 5405) -> bytes:
    ip = b"\x45" + bytes(8) + bytes([protocol]) + bytes(10)
    return b"\1" * 6 + b"\3" * 6 + kind + ip + b"\0\1" + port.to_bytes(2, "big") + b"\0\x0c" + b"\xab\xcd" + b"data"


def test_a_copy_has_new_macs_and_no_checksum() -> None:
    copy = late_copy(frame(), frozenset({5405}), *MACS)
    assert copy is not None
    assert copy[:12] == b"".join(MACS)
    assert copy[12:40] == frame()[12:40]
    assert copy[40:] == b"\0\0data"


@pytest.mark.parametrize("other", [frame(port=5404), frame(protocol=6), frame(kind=b"\x08\x06"), frame()[:30]])
def test_what_is_not_for_the_port_is_left_alone(other: bytes) -> None:
    assert late_copy(other, frozenset({5405}), *MACS) is None
