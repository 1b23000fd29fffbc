# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""ICMP errors about a packet, as AWS's internet gateway hands them over: they tell of the private address.

The fabric's own gateway rewrites outer addresses alone, so an error of the lab's internet would be about a public
address, which no host knows.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from lab import netns

UNREACHABLE = 3
PORT_UNREACHABLE, FRAGMENTATION_NEEDED = 3, 4  # codes of UNREACHABLE


@dataclass(frozen=True)
class Packet:
    """The packet that an error is about. `protocol` is IPPROTO_TCP or IPPROTO_UDP."""

    source: tuple[str, int]
    target: tuple[str, int]
    protocol: int


def unreachable(code: int, about: Packet, mtu: int = 0) -> bytes:
    """The ICMP message: its header, the IP header of the packet, and the first 8 bytes of what that carried."""
    ports = struct.pack("!HHI", about.source[1], about.target[1], 0)
    addresses = socket.inet_aton(about.source[0]) + socket.inet_aton(about.target[0])
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(ports), 0, 0x4000, 63, about.protocol, 0) + addresses
    rest = _with_checksum(header, 10) + ports
    return _with_checksum(struct.pack("!BBHHH", UNREACHABLE, code, 0, 0, mtu) + rest, 2)


def send(namespace: str, target: str, message: bytes) -> None:
    """Send an ICMP message from a namespace. Raises OSError."""

    def make() -> socket.socket:
        return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)

    with netns.enter(namespace, make) as sender:
        sender.sendto(message, (target, 0))


def _with_checksum(data: bytes, offset: int) -> bytes:
    """The data, with the internet checksum of the whole put into the two bytes at `offset`, which were zero."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return data[:offset] + struct.pack("!H", ~total & 0xFFFF) + data[offset + 2 :]
