# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packets that arrive late: a relay in user space, as not every kernel has a queue that can delay.

The relay sees a packet as it enters the router, which must lose it (Fabric.cut), and puts it onto the link where it was
to go when its time has come.
"""

from __future__ import annotations

import heapq
import itertools
import select
import socket
import struct
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType

from lab.netns import enter

ETH_P_IP, IPPROTO_UDP, PACKET_OUTGOING = 0x0800, 17, 4


@dataclass(frozen=True)
class Way:
    """From one device of the router to another; `mac` is that of the interface behind the second."""

    source: str
    target: str
    mac: str


def late_copy(frame: bytes, ports: frozenset[int], way_mac: bytes, own_mac: bytes) -> bytes | None:
    """Pure: the frame as it goes on to its destination; None if it is not UDP to one of the ports over IPv4.

    Its UDP checksum is left out, as IPv4 allows: on a virtual link the sender has not computed it yet.
    """
    if len(frame) < 42 or struct.unpack_from("!H", frame, 12)[0] != ETH_P_IP or frame[23] != IPPROTO_UDP:
        return None
    udp = 14 + (frame[14] & 0x0F) * 4
    if struct.unpack_from("!H", frame, udp + 2)[0] not in ports:
        return None
    return way_mac + own_mac + frame[12 : udp + 6] + b"\0\0" + frame[udp + 8 :]


class Delay:
    """Delays UDP packets to some ports while the block runs. `namespace` is the router's."""

    def __init__(self, namespace: str, ways: Iterable[Way], ports: Iterable[int], seconds: float) -> None:
        self._namespace = namespace
        self._ways = list(ways)
        self._ports = frozenset(ports)
        self._seconds = seconds
        self._sockets: dict[str, socket.socket] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._relay, name="delay")

    def __enter__(self) -> Delay:
        devices = {device for way in self._ways for device in (way.source, way.target)}
        self._sockets = enter(self._namespace, lambda: {device: _open(device) for device in devices})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        for each in self._sockets.values():
            each.close()

    def _relay(self) -> None:
        ways = {self._sockets[way.source]: way for way in self._ways}
        waiting: list[tuple[float, int, socket.socket, bytes]] = []
        order = itertools.count()
        while not self._stop.is_set():
            wait = min(waiting[0][0] - time.monotonic(), 0.05) if waiting else 0.05
            for source in select.select(list(ways), [], [], max(0.0, wait))[0]:
                frame, address = source.recvfrom(65535)
                way = ways[source]
                target = self._sockets[way.target]
                mac = bytes.fromhex(way.mac.replace(":", ""))
                copy = late_copy(frame, self._ports, mac, target.getsockname()[4])
                if copy is not None and address[2] != PACKET_OUTGOING:
                    heapq.heappush(waiting, (time.monotonic() + self._seconds, next(order), target, copy))
            while waiting and waiting[0][0] <= time.monotonic():
                _, _, target, copy = heapq.heappop(waiting)
                target.send(copy)


def _open(device: str) -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_IP))
    opened.bind((device, ETH_P_IP))
    return opened
