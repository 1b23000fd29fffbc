# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers of the lab's internet. They tell each peer which address it seems to have.

UDP 7    echo, with the source address and port that was seen
TCP 7    echo
TCP 19   pushes a few bytes 10 times a second
TCP 20   a bulk download that never ends, at a set rate
TCP 80   HTTP: answers the peer's address and port, and closes

python -m lab.vpc.server ADDRESS... prints `ready`, and serves until its standard input is closed.
"""

from __future__ import annotations

import argparse
import asyncio
import struct
from typing import ClassVar, cast

from lab.vpc.bulk import content

ECHO_PORT, DOWNLOAD_PORT, BULK_PORT, HTTP_PORT = 7, 19, 20, 80
PUSH_INTERVAL = 0.1
BULK_INTERVAL = 0.02
BULK_RATE = 20.0  # Mbit/s, which leaves a small machine's processors to the hosts
MAXIMUM_SECONDS = 4 * 3600.0
UNREAD_LIMIT = 65536  # bytes kept for a peer that went away without a word


class UdpEcho(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, peer: tuple[str, int]) -> None:
        self._transport.sendto(data + f"{peer[0]}:{peer[1]}".encode(), peer)


class Stream(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)


class TcpEcho(Stream):
    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Http(Stream):
    def data_received(self, data: bytes) -> None:
        peer, port = self.transport.get_extra_info("peername")
        body = f"{peer}:{port}\n"
        head = f"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
        self.transport.write(f"{head}{body}".encode())
        self.transport.close()


class Download(Stream):
    """One peer that is sent to; `peers` holds all of them."""

    peers: ClassVar[set[Download]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.peers.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.peers.discard(self)

    @classmethod
    async def push(cls) -> None:
        number = 0
        while True:
            for peer in cls.peers:
                if peer.transport.get_write_buffer_size() < UNREAD_LIMIT:
                    peer.transport.write(struct.pack("!Q", number))
            number += 1
            await asyncio.sleep(PUSH_INTERVAL)


class Bulk(Stream):
    """One peer's bulk download. What a slow peer has missed of its rate is not made up for."""

    peers: ClassVar[set[Bulk]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._sent = 0
        self.peers.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.peers.discard(self)

    def send(self, length: int) -> None:
        if self.transport.get_write_buffer_size() < UNREAD_LIMIT:
            self.transport.write(content(self._sent, length))
            self._sent += length

    @classmethod
    async def push(cls, rate: float) -> None:
        """`rate` in Mbit/s."""
        length = round(rate * 1e6 / 8 * BULK_INTERVAL)
        while True:
            for peer in cls.peers:
                peer.send(length)
            await asyncio.sleep(BULK_INTERVAL)


async def serve(addresses: list[str], bulk_rate: float) -> None:
    loop = asyncio.get_running_loop()
    for address in addresses:
        # One socket for each address: an answer must leave from the address that was asked.
        await loop.create_datagram_endpoint(UdpEcho, local_addr=(address, ECHO_PORT))
        for protocol, port in (
            (TcpEcho, ECHO_PORT),
            (Download, DOWNLOAD_PORT),
            (Bulk, BULK_PORT),
            (Http, HTTP_PORT),
        ):
            await loop.create_server(protocol, address, port)
    pushing = [asyncio.create_task(Download.push()), asyncio.create_task(Bulk.push(bulk_rate))]
    print("ready", flush=True)
    await wait_for_end_of_input(MAXIMUM_SECONDS)
    for task in pushing:
        task.cancel()


async def wait_for_end_of_input(seconds: float) -> None:
    """Until standard input is closed (the parent ended, or wants this process to), at most `seconds`."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    # A pipe that nobody writes to becomes readable only when it is closed.
    loop.add_reader(0, ended.set)
    try:
        await asyncio.wait_for(ended.wait(), seconds)
    except asyncio.TimeoutError:
        return
    finally:
        loop.remove_reader(0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("addresses", nargs="+")
    parser.add_argument("--bulk-rate", type=float, default=BULK_RATE, help="Mbit/s; default: %(default)s")
    options = parser.parse_args()
    asyncio.run(serve(options.addresses, options.bulk_rate))
