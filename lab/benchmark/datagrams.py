# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many UDP datagrams in one system call: sendmmsg(2) and recvmmsg(2), which Python does not offer.

One call carries a thousand datagrams, so what is measured is the kernel's path and not the interpreter's loop.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Sequence

MSG_DONTWAIT = 0x40
SOCKADDR_IN = struct.Struct("=H2s4s8x")  # the family in the machine's order, then port and address in the network's


class _IoVector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class _Header(ctypes.Structure):  # struct msghdr
    _fields_ = [
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.POINTER(_IoVector)),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


class _Message(ctypes.Structure):  # struct mmsghdr
    _fields_ = [("header", _Header), ("length", ctypes.c_uint)]


_libc = ctypes.CDLL(None, use_errno=True)
_libc.sendmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int]
_libc.recvmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p]


class Batch:
    """Room for `count` datagrams of `size` bytes, each with the address of its peer."""

    def __init__(self, count: int, size: int) -> None:
        self.count = count
        self._size = size
        self._payload = ctypes.create_string_buffer(count * size)
        self._names = ctypes.create_string_buffer(count * SOCKADDR_IN.size)
        self._vectors = (_IoVector * count)()
        self._messages = (_Message * count)()
        payload, names = ctypes.addressof(self._payload), ctypes.addressof(self._names)
        for number in range(count):
            self._vectors[number] = _IoVector(payload + number * size, size)
            self._messages[number].header = _Header(
                names + number * SOCKADDR_IN.size, SOCKADDR_IN.size, ctypes.pointer(self._vectors[number]), 1
            )

    def address(self, peers: Sequence[tuple[str, int]]) -> None:
        """Whom the first datagrams go to, one each."""
        packed = b"".join(
            SOCKADDR_IN.pack(socket.AF_INET, port.to_bytes(2, "big"), socket.inet_aton(address))
            for address, port in peers
        )
        ctypes.memmove(self._names, packed, len(packed))

    def peers(self, count: int) -> list[bytes]:
        """The addresses of the first `count` datagrams as the kernel wrote them."""
        size = SOCKADDR_IN.size
        packed = ctypes.string_at(self._names, count * size)
        return [packed[start : start + size] for start in range(0, count * size, size)]

    def send(self, sender: socket.socket, count: int) -> int:
        """Send the first `count` datagrams; returns `count`. Raises OSError."""
        sent = 0
        while sent < count:  # the kernel may take fewer at a time
            first = ctypes.addressof(self._messages) + sent * ctypes.sizeof(_Message)
            sent += _checked(_libc.sendmmsg(sender.fileno(), first, count - sent, 0))
        return sent

    def receive(self, receiver: socket.socket) -> int:
        """Take what has arrived, up to the batch's size; 0 if nothing has. Raises OSError."""
        try:
            return _checked(_libc.recvmmsg(receiver.fileno(), self._messages, self.count, MSG_DONTWAIT, None))
        except BlockingIOError:
            return 0


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
