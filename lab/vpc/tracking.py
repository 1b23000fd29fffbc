# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection tracking table of a namespace, over netlink, so that the machine needs no further tool.

A netlink message is a header, a family, and attributes, which may hold attributes.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterable, Iterator

from lab import netns

NETLINK_NETFILTER = 12
CT_GET, CT_DELETE = 0x101, 0x102
REQUEST, ACKNOWLEDGE, DUMP = 0x1, 0x4, 0x300
ERROR, DONE = 2, 3
TUPLE_ORIG, TUPLE_IP, V4_SRC, V4_DST = 1, 1, 1, 2
TYPE_MASK = 0x3FFF  # the upper two bits are flags
HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
FAMILY = struct.pack("=BBH", socket.AF_INET, 0, 0)
TIMEOUT = 5.0  # seconds; the kernel walks through its whole table in a tenth of one


def forget(namespace: str, addresses: Iterable[str]) -> None:
    """Remove every connection that was opened from or to one of the IPv4 addresses. Raises OSError."""
    with _table(namespace) as table:
        for connection in _connections(table, addresses):
            _delete(table, connection)


def count(namespace: str, address: str) -> int:
    """How many connections from or to an IPv4 address the table holds. Raises OSError."""
    with _table(namespace) as table:
        return len(_connections(table, [address]))


def _table(namespace: str) -> socket.socket:
    def make() -> socket.socket:
        return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)

    table = netns.enter(namespace, make)
    table.settimeout(TIMEOUT)
    return table


def _connections(table: socket.socket, addresses: Iterable[str]) -> list[bytes]:
    """The original direction of each connection from or to one of the addresses, in the kernel's attributes."""
    wanted = {socket.inet_aton(address) for address in addresses}
    return [original for original in _dump(table) if _ends(original) & wanted]


def _dump(table: socket.socket) -> Iterator[bytes]:
    table.send(_message(CT_GET, REQUEST | DUMP, b""))
    while True:
        for kind, body in _messages(table.recv(1 << 20)):
            if kind == DONE:
                return
            _raise_if_failed(kind, body)
            yield dict(_attributes(body[len(FAMILY) :]))[TUPLE_ORIG]


def _ends(original: bytes) -> set[bytes]:
    addresses = dict(_attributes(dict(_attributes(original))[TUPLE_IP]))
    return {addresses[side] for side in (V4_SRC, V4_DST) if side in addresses}


def _delete(table: socket.socket, original: bytes) -> None:
    attribute = struct.pack("=HH", 4 + len(original), TUPLE_ORIG | 0x8000) + original
    table.send(_message(CT_DELETE, REQUEST | ACKNOWLEDGE, attribute))
    for kind, body in _messages(table.recv(1 << 16)):
        with contextlib.suppress(FileNotFoundError):  # it ended meanwhile
            _raise_if_failed(kind, body)


def _message(kind: int, flags: int, attributes: bytes) -> bytes:
    return HEADER.pack(HEADER.size + len(FAMILY) + len(attributes), kind, flags, 0, 0) + FAMILY + attributes


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        length, kind, *_ = HEADER.unpack_from(data)
        yield kind, data[HEADER.size : length]
        data = data[_aligned(length) :]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        length, kind = struct.unpack_from("=HH", data)
        yield kind & TYPE_MASK, data[4:length]
        data = data[_aligned(length) :]


def _aligned(length: int) -> int:
    return (length + 3) & ~3


def _raise_if_failed(kind: int, body: bytes) -> None:
    if kind == ERROR and (number := -struct.unpack_from("=i", body)[0]):
        raise OSError(number, f"connection tracking: {os.strerror(number)}")
