# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Load from the client's side, for a bounded time or number; prints one JSON object about what it did.

python -m lab.benchmark.generator bulk        SERVER SECONDS   one TCP stream: bytes at the sink, seconds
                                  small       SERVER SECONDS   smallest UDP packets, one flow: packets sent, seconds
                                  new-flows   SERVER COUNT     UDP packets, each a new flow: packets sent, seconds
                                  connections SERVER SECONDS   TCP connections, one after another: how many, seconds

Nothing need listen for the UDP packets: whoever measures counts them where they arrive. `cpu` is what the load took
in CPU seconds, with the kernel's work on its packets' way as far as that was done in the sender's name.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import struct
import time
from collections.abc import Iterator

from lab.benchmark.datagrams import Batch
from lab.benchmark.sink import ACCEPT_PORT, DISCARD_PORT, TOTAL

PAYLOAD = 18  # bytes: with all headers and the checksum 64, Ethernet's smallest frame
BATCH = 1024  # datagrams in one system call
CHUNK = 1 << 20  # bytes in one write to the stream
PORTS = range(1024, 65536)  # where the flows lead to; a multiple of BATCH
TCP_SECONDS = 10.0  # a connect or an answer that takes longer is an error

RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: no TIME_WAIT uses up the client's ports


def bulk(server: str, seconds: float) -> dict[str, float]:
    """One stream for `seconds`, until the sink has told how much it got."""
    with socket.create_connection((server, DISCARD_PORT), TCP_SECONDS) as stream:
        chunk = bytes(CHUNK)
        start = time.monotonic()
        while time.monotonic() - start < seconds:
            stream.sendall(chunk)
        stream.shutdown(socket.SHUT_WR)
        answer = stream.recv(TOTAL.size, socket.MSG_WAITALL)
        return {"bytes": TOTAL.unpack(answer)[0], "seconds": time.monotonic() - start}


def small(server: str, seconds: float) -> dict[str, float]:
    batch = Batch(BATCH, PAYLOAD)
    batch.address([(server, DISCARD_PORT)] * BATCH)
    sent = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        start = time.monotonic()
        while (spent := time.monotonic() - start) < seconds:
            sent += batch.send(sender, BATCH)
    return {"packets": sent, "seconds": spent}


def new_flows(server: str, count: float) -> dict[str, float]:
    """What it takes to write addresses into a batch is not counted."""
    batch = Batch(BATCH, PAYLOAD)
    sent, spent = 0, 0.0
    with contextlib.ExitStack() as stack:
        senders: list[socket.socket] = []
        for number, ports in flows(int(count)):
            if number == len(senders):
                senders.append(stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
            batch.address([(server, port) for port in ports])
            start = time.monotonic()
            sent += batch.send(senders[number], len(ports))
            spent += time.monotonic() - start
    return {"packets": sent, "seconds": spent}


def flows(count: int) -> Iterator[tuple[int, range]]:
    """`count` pairs of a sender's number and a server's port, no pair twice: a sender, and up to BATCH ports for it."""
    for start in range(0, count, BATCH):
        sender, first = divmod(start, len(PORTS))
        yield sender, PORTS[first : first + min(BATCH, count - start)]


def connections(server: str, seconds: float) -> dict[str, float]:
    made = 0
    start = time.monotonic()
    while (spent := time.monotonic() - start) < seconds:
        with socket.socket() as connection:
            connection.settimeout(TCP_SECONDS)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            connection.connect((server, ACCEPT_PORT))
        made += 1
    return {"connections": made, "seconds": spent}


COMMANDS = {"bulk": bulk, "small": small, "new-flows": new_flows, "connections": connections}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("server")
    parser.add_argument("amount", type=float, help="seconds, or how many flows")
    options = parser.parse_args()
    done = COMMANDS[options.command](options.server, options.amount)
    print(json.dumps({**done, "cpu": time.process_time()}))


if __name__ == "__main__":
    main()
