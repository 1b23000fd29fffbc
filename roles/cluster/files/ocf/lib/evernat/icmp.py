# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""ICMP echo to the ENI's address by the primary link: does somebody else hold it and serve?"""

from __future__ import annotations

import os
import socket
import struct
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from host import Primary

ECHO_REPLY, ECHO_REQUEST = 0, 8
SOL_RAW, ICMP_FILTER = 255, 1


class Echo:
    """A socket that is bound to one link and one source address and asks one target. Raises OSError."""

    def __init__(self, source: Primary, target: str) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMP)
        try:
            # A raw socket gets all ICMP of the host: the kernel drops all but echo replies of the target.
            self._socket.setsockopt(SOL_RAW, ICMP_FILTER, struct.pack("=I", ~(1 << ECHO_REPLY) & 0xFFFFFFFF))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, source.link.encode() + b"\0")
            self._socket.bind((source.ip, 0))
            self._socket.connect((target, 0))
        except OSError:
            self._socket.close()
            raise
        self._cookie = os.urandom(8)
        self._sequence = 0

    def __enter__(self) -> Echo:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def send(self) -> None:
        self._sequence = (self._sequence + 1) & 0xFFFF
        self._socket.send(request(self._cookie, self._sequence))

    def answered(self, seconds: float) -> bool:
        """Whether an answer to any of our requests comes within a time; what is queued counts at zero seconds."""
        end = time.monotonic() + seconds
        while True:
            self._socket.settimeout(max(0.0, end - time.monotonic()))  # 0: do not wait
            try:
                packet = self._socket.recv(2048)
            except (socket.timeout, BlockingIOError):
                return False
            except OSError:  # an earlier request drew an ICMP error
                if time.monotonic() >= end:
                    return False
                continue
            if is_reply(packet, self._cookie):
                return True

    def drain(self) -> bool:
        """Whether answers are queued; none is afterwards. A burst of late ones must not count round after round."""
        heard = False
        while self.answered(0.0):
            heard = True
        return heard


def answers(source: Primary, target: str, probes: int, interval: float) -> bool:
    """Ask up to `probes` times, `interval` seconds apart; True at the first answer. Raises OSError."""
    with Echo(source, target) as echo:
        for _unused in range(probes):
            echo.send()
            if echo.answered(interval):
                return True
    return False


def request(cookie: bytes, sequence: int) -> bytes:
    head = struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, os.getpid() & 0xFFFF, sequence)
    return head[:2] + struct.pack("!H", checksum(head + cookie)) + head[4:] + cookie


def is_reply(packet: bytes, cookie: bytes) -> bool:
    """Whether an IPv4 packet is an echo reply that carries our cookie."""
    if len(packet) < 20:
        return False
    message = packet[(packet[0] & 0x0F) * 4 :]
    return len(message) >= 16 and message[0] == ECHO_REPLY and message[8:16] == cookie


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF
