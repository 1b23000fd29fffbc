# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The client's truth: probes and connections from inside its namespace, written down as JSON lines (see record.py).

A UDP probe every 10 ms, a new TCP connection every 100 ms, long TCP connections that talk (echo) or listen (download),
and a bulk download whose bytes are checked. It ends when its standard input is closed, and by itself after --seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import socket
import struct
import time
from pathlib import Path
from typing import cast

from lab.vpc.bulk import content
from lab.vpc.server import BULK_PORT, DOWNLOAD_PORT, ECHO_PORT, HTTP_PORT, wait_for_end_of_input

LOST_AFTER = 2.0  # seconds without an answer
CONNECT_SECONDS = 1.0
TALK_SECONDS = 0.1  # between two messages of a talking flow
FLOW_GAP = 0.25  # seconds of silence on a long flow that are worth a line
TELL_SECONDS, TELL_BULK_SECONDS = 1.0, 0.1  # between two lines of a flow whose data comes
STALL = 0.05  # seconds that the client itself came too late
DRAIN_SECONDS = 0.5


class Log:
    """Appends whole lines to the record file. Others (marks) append to it too."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._lines: list[str] = []

    def add(self, kind: str, moment: float | None = None, **values: object) -> None:
        self._lines.append(json.dumps({"t": moment or time.monotonic(), "kind": kind, **values}))

    def flush(self) -> None:
        if self._lines:
            os.write(self._file, ("\n".join(self._lines) + "\n").encode())
            self._lines.clear()


class Probes(asyncio.DatagramProtocol):
    """Numbered UDP packets on one socket, so they are one flow to a NAT."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._pending: dict[int, float] = {}
        self._number = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def send(self) -> None:
        self._number += 1
        self._pending[self._number] = time.monotonic()
        self._transport.sendto(struct.pack("!Q", self._number))

    def datagram_received(self, data: bytes, _peer: tuple[str, int]) -> None:
        now = time.monotonic()
        (number,) = struct.unpack("!Q", data[:8])
        sent = self._pending.pop(number, None)
        if sent is not None:  # else: it came after it was written off
            self._log.add("udp", now, n=number, sent=sent, seen=data[8:].decode())

    def error_received(self, error: Exception) -> None:
        """An unreachable network loses the packet; that it was lost is found by its missing answer."""

    def write_off(self, older_than: float) -> None:
        """Count as lost what was sent before this moment and has no answer."""
        for number, sent in list(self._pending.items()):
            if sent > older_than:
                break
            del self._pending[number]
            self._log.add("lost", n=number, sent=sent)

    @property
    def pending(self) -> int:
        return len(self._pending)


class Flow(asyncio.Protocol):
    """A long TCP connection; writes down when its data pauses and when it ends."""

    tell_seconds = TELL_SECONDS

    def __init__(self, name: str, log: Log) -> None:
        self._name, self._log = name, log
        self._last = self._told = time.monotonic()
        self._number = 0
        self._open = False

    def say(self, event: str, moment: float | None = None, **values: object) -> None:
        self._log.add("flow", moment, flow=self._name, event=event, **values)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._open = True
        self._last = time.monotonic()
        self.say("open")

    def talk(self) -> None:
        if self._open:
            self._number += 1
            self._transport.write(struct.pack("!Q", self._number))

    def data_received(self, _data: bytes) -> None:
        now = time.monotonic()
        if now - self._last >= FLOW_GAP:
            self.say("gap", now, **{"from": self._last}, last=now)
        self._last = now
        if now - self._told >= self.tell_seconds:
            self.tell()

    def tell(self) -> None:
        self._told = time.monotonic()
        self.say("alive", last=self._last)

    def connection_lost(self, error: Exception | None) -> None:
        if self._open:
            self._open = False
            self.say("closed", last=self._last, error=_describe(error))

    def end(self) -> None:
        """The client's own end, which is not the flow's."""
        if self._open:
            self.tell()
            self._open = False
            self._transport.abort()


class BulkFlow(Flow):
    """A bulk download, checked byte by byte. Wrong bytes end it."""

    tell_seconds = TELL_BULK_SECONDS

    def __init__(self, name: str, log: Log) -> None:
        super().__init__(name, log)
        self._received = 0

    def data_received(self, data: bytes) -> None:
        if data != content(self._received, len(data)):
            self.connection_lost(ValueError(f"wrong data from byte {self._received} on"))
            self._transport.abort()
            return
        self._received += len(data)
        super().data_received(data)

    def tell(self) -> None:
        self._told = time.monotonic()
        self.say("alive", last=self._last, bytes=self._received)


class Client:
    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._log = Log(options.record)
        self._probes = Probes(self._log)
        self._talkers = [Flow(f"echo-{number + 1}", self._log) for number in range(options.echo_flows)]
        self._listeners = [Flow(f"download-{number + 1}", self._log) for number in range(options.download_flows)]
        self._bulk = [BulkFlow("bulk", self._log)] if options.bulk else []

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        target, other = self._options.servers[0], self._options.servers[-1]
        await loop.create_datagram_endpoint(lambda: self._probes, remote_addr=(target, ECHO_PORT))
        self._log.add("start")
        for flow in self._flows():
            flow.say("opening")
        tasks = [
            asyncio.create_task(self._tick()),
            asyncio.create_task(self._connect_again_and_again()),
            *(asyncio.create_task(self._open(flow, target, ECHO_PORT)) for flow in self._talkers),
            *(asyncio.create_task(self._open(flow, other, DOWNLOAD_PORT)) for flow in self._listeners),
            *(asyncio.create_task(self._open(flow, other, BULK_PORT)) for flow in self._bulk),
        ]
        ended = asyncio.create_task(wait_for_end_of_input(self._options.seconds))
        done, _ = await asyncio.wait([ended, *tasks[:2]], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        for task in done:
            task.result()  # the tick must not die unseen
        await self._drain()

    def _flows(self) -> list[Flow]:
        return [*self._talkers, *self._listeners, *self._bulk]

    async def _tick(self) -> None:
        """Every 10 ms, on a fixed beat: send the probe, let talkers talk whose turn it is, write off, flush."""
        interval = self._options.udp_interval
        due = time.monotonic()
        turns = itertools.cycle(_turns(self._talkers, max(1, round(TALK_SECONDS / interval))))
        while True:
            now = time.monotonic()
            if now - due > STALL:
                self._log.add("stall", now, seconds=now - due)
                due = now
            self._probes.send()
            for flow in next(turns):
                flow.talk()
            self._probes.write_off(now - LOST_AFTER)
            self._log.flush()
            due += interval
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _connect_again_and_again(self) -> None:
        running: set[asyncio.Task[None]] = set()
        number = 0
        while True:
            server = self._options.servers[number % len(self._options.servers)]
            task = asyncio.create_task(self._connect_once(server))
            running.add(task)
            task.add_done_callback(running.discard)
            number += 1
            await asyncio.sleep(self._options.tcp_interval)

    async def _connect_once(self, server: str) -> None:
        loop = asyncio.get_running_loop()
        start = time.monotonic()
        with socket.socket() as connection:
            connection.setblocking(False)
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await loop.sock_connect(connection, (server, HTTP_PORT))
                    await loop.sock_sendall(connection, b"GET / HTTP/1.0\r\n\r\n")
                    answer = b""
                    while chunk := await loop.sock_recv(connection, 4096):
                        answer += chunk
            except (OSError, TimeoutError) as error:
                self._log.add("tcp", start=start, ok=False, server=server, error=_describe(error))
                return
        seen = answer.partition(b"\r\n\r\n")[2].decode().strip()
        self._log.add("tcp", start=start, ok=bool(seen), server=server, seen=seen)

    async def _open(self, flow: Flow, server: str, port: int) -> None:
        """Connect a long flow, trying until it works: what counts begins when it is open."""
        loop = asyncio.get_running_loop()
        while True:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(CONNECT_SECONDS):
                    await loop.create_connection(lambda: flow, server, port)
                return
            await asyncio.sleep(0.05)

    async def _drain(self) -> None:
        """Wait for the last answers, then write off the rest, and close."""
        deadline = time.monotonic() + DRAIN_SECONDS
        while self._probes.pending and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        self._probes.write_off(time.monotonic())
        for flow in self._flows():
            flow.end()
        self._log.add("end", cpu=time.process_time())
        self._log.flush()


def _turns(flows: list[Flow], count: int) -> list[list[Flow]]:
    """The flows spread over so many turns, so that they don't all talk at once."""
    return [flows[turn::count] for turn in range(count)]


def _describe(error: BaseException | None) -> str:
    if error is None:
        return "closed by the peer"
    return f"{type(error).__name__}: {error}".rstrip(": ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", type=Path, help="file that the lines are appended to")
    parser.add_argument("servers", nargs="+", help="addresses of the servers; the first gets the UDP probes")
    parser.add_argument("--udp-interval", type=float, default=0.01)
    parser.add_argument("--tcp-interval", type=float, default=0.1)
    parser.add_argument("--echo-flows", type=int, default=10)
    parser.add_argument("--download-flows", type=int, default=10)
    parser.add_argument("--bulk", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--seconds", type=float, default=900.0, help="end by itself after this time")
    asyncio.run(Client(parser.parse_args()).run())


if __name__ == "__main__":
    main()
