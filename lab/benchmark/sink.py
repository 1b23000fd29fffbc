# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the TCP load ends: a discard port that tells at the end how much it got, and a port that accepts and closes.

python -m lab.benchmark.sink ADDRESS prints `ready`, and serves until its standard input is closed.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import struct
import sys
import threading

DISCARD_PORT, ACCEPT_PORT = 9, 13
TOTAL = struct.Struct("!Q")  # what the discard port says when the peer has ended its side: bytes
BACKLOG = 4096
CHUNK = 1 << 20


def discard(listener: socket.socket) -> None:
    buffer = bytearray(CHUNK)
    while True:
        stream, _ = listener.accept()
        with stream, contextlib.suppress(ConnectionError):
            total = 0
            while got := stream.recv_into(buffer):
                total += got
            stream.sendall(TOTAL.pack(total))


def accept(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    address = parser.parse_args().address
    for port, work in ((DISCARD_PORT, discard), (ACCEPT_PORT, accept)):
        listener = socket.create_server((address, port), backlog=BACKLOG)
        threading.Thread(target=work, args=(listener,), daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
