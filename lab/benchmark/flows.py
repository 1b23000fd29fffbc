# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many flows of a real client at once, each answered, and kept from expiring as long as the process lives.

python -m lab.benchmark.flows serve ADDRESS...
    echoes, and prints a line when it is ready; for each line on its standard input it prints how many peers it has seen
    on UDP: a flow that a NAT gives another port to is a new one
python -m lab.benchmark.flows hold UDP TCP ADDRESS...
    opens so many flows, and prints a line when each was answered, and again some seconds later; for each line on its
    standard input it asks all of them again, and prints how many answered

Lines are JSON objects. Both end when their standard input is closed.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import resource
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence

from lab.benchmark.datagrams import Batch

UDP_PORTS = range(20000, 20064)
TCP_PORT = 20100
PAYLOAD = 18
ROOM = 512  # datagrams taken or answered in one call
AT_ONCE = 6  # groups that are asked before their answers are read: the kernel's queue takes a thousand datagrams
AGAIN_SECONDS = 0.3  # what is not answered by then is asked again
ASK_SECONDS = 20.0  # for all to answer, and a second for each SLOWEST of them
SLOWEST = 1000
OLD_ENOUGH = 3.0  # seconds: a UDP flow that is answered then, too, is kept by the kernel for minutes; else for 30 s
REFRESH = 60.0  # seconds, half of the kernel's timeout for UDP flows


class Server:
    def __init__(self, addresses: Sequence[str]) -> None:
        self._poll = select.epoll()
        self._batch = Batch(ROOM, PAYLOAD)
        self._peers: dict[int, set[bytes]] = {}
        self._datagrams: dict[int, socket.socket] = {}
        self._listeners: dict[int, socket.socket] = {}
        self._streams: dict[int, socket.socket] = {}
        for address in addresses:
            for port in UDP_PORTS:
                receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                receiver.bind((address, port))
                self._add(receiver, self._datagrams)
                self._peers[receiver.fileno()] = set()
            self._add(socket.create_server((address, TCP_PORT), backlog=4096), self._listeners)

    def serve(self) -> None:
        self._poll.register(sys.stdin.fileno(), select.EPOLLIN)
        say(ready=True)
        while True:
            for number, _ in self._poll.poll():
                if number in self._datagrams:
                    self._answer(number)
                elif number in self._streams:
                    self._echo(number)
                elif number in self._listeners:
                    self._add(self._listeners[number].accept()[0], self._streams)
                elif not sys.stdin.readline():
                    return
                else:
                    say(peers=sum(map(len, self._peers.values())))

    def _add(self, new: socket.socket, to: dict[int, socket.socket]) -> None:
        to[new.fileno()] = new
        self._poll.register(new.fileno(), select.EPOLLIN)

    def _answer(self, number: int) -> None:
        count = self._batch.receive(self._datagrams[number])
        self._peers[number].update(self._batch.peers(count))
        self._batch.send(self._datagrams[number], count)

    def _echo(self, number: int) -> None:
        stream, data = self._streams[number], b""
        with contextlib.suppress(ConnectionError):
            data = stream.recv(64)
        if data:
            stream.sendall(data)
        else:
            self._poll.unregister(number)
            self._streams.pop(number).close()


class Sender:
    """One source port, and the flows from it."""

    def __init__(self, peers: Sequence[tuple[str, int]]) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("", 0))
        self.batch = Batch(len(peers), PAYLOAD)
        self.batch.address(peers)
        self.answered: set[bytes] = set()
        self.asked = 0.0  # when last (monotonic); never yet

    def ask(self) -> None:
        self.asked = time.monotonic()
        self.batch.send(self.socket, self.batch.count)

    def is_answered(self) -> bool:
        return len(self.answered) == self.batch.count


class Flows:
    """The client's side. UDP flows in groups of one source port each, TCP connections one by one."""

    def __init__(self, udp: int, tcp: int, addresses: Sequence[str]) -> None:
        peers = [(address, port) for port in UDP_PORTS for address in addresses]
        self._senders = [Sender(peers[: min(len(peers), udp - first)]) for first in range(0, udp, len(peers))]
        self._streams = [
            socket.create_connection((address, TCP_PORT), ASK_SECONDS)
            for _, address in zip(range(tcp), itertools.cycle(addresses), strict=False)
        ]
        self._room = Batch(ROOM, PAYLOAD)

    def open(self) -> dict[str, int]:
        """Have every flow answered once, and again when it is old enough. How many of them were."""
        young: deque[tuple[float, list[Sender]]] = deque()
        grown = 0
        for first in range(0, len(self._senders), AT_ONCE):
            group = self._senders[first : first + AT_ONCE]
            self._ask(group)
            self.refresh(older_than=REFRESH)
            young.append((time.monotonic(), group))
            while young and time.monotonic() - young[0][0] >= OLD_ENOUGH:
                grown += self._ask(young.popleft()[1])
        for since, group in young:
            time.sleep(max(0.0, since + OLD_ENOUGH - time.monotonic()))
            grown += self._ask(group)
        return {"udp": grown, "tcp": self._ask_streams()}

    def ask_all(self) -> dict[str, int]:
        """How many of the flows answer."""
        return {"udp": self._ask(self._senders), "tcp": self._ask_streams()}

    def _ask(self, senders: Sequence[Sender]) -> int:
        """Ask some of the flows, and those that do not answer again, as long as there is time. How many answered."""
        for sender in senders:
            self._forget_answers(sender)
        flows = sum(sender.batch.count for sender in senders)
        deadline = time.monotonic() + ASK_SECONDS + flows / SLOWEST
        waiting = list(senders)
        while waiting and time.monotonic() < deadline:
            for first in range(0, len(waiting), AT_ONCE):
                group = waiting[first : first + AT_ONCE]
                for sender in group:
                    sender.ask()
                self._take_answers(group, min(deadline, time.monotonic() + AGAIN_SECONDS))
            waiting = [sender for sender in waiting if not sender.is_answered()]
        return sum(len(sender.answered) for sender in senders)

    def refresh(self, older_than: float = 0.0) -> None:
        """Ask those that were asked the longest ago, as many as keep all alive at one call a second; nobody waits.

        Only those whose last time was so many seconds ago.
        """
        latest = time.monotonic() - older_than
        due = sorted((each for each in self._senders if 0 < each.asked <= latest), key=lambda each: each.asked)
        for sender in due[: math.ceil(len(self._senders) / REFRESH)]:
            self._forget_answers(sender)
            with contextlib.suppress(OSError):  # the way may be gone just now
                sender.ask()

    def _forget_answers(self, sender: Sender) -> None:
        """Those that came to earlier questions, too: what nobody waited for still lies in the socket."""
        while self._room.receive(sender.socket):
            pass
        sender.answered.clear()

    def _take_answers(self, senders: Sequence[Sender], deadline: float) -> None:
        poll = select.epoll()
        with poll:
            open_ = {sender.socket.fileno(): sender for sender in senders}
            for number in open_:
                poll.register(number, select.EPOLLIN)
            while open_ and (left := deadline - time.monotonic()) > 0:
                for number, _ in poll.poll(left):
                    sender = open_[number]
                    count = self._room.receive(sender.socket)
                    sender.answered.update(self._room.peers(count))
                    if sender.is_answered():
                        poll.unregister(number)
                        del open_[number]

    def _ask_streams(self) -> int:
        """How many TCP connections echo; one that fails stays failed."""
        asked = []
        for stream in self._streams:
            with contextlib.suppress(OSError):
                stream.sendall(b"?")
                asked.append(stream)
        deadline = time.monotonic() + ASK_SECONDS
        answered = 0
        for stream in asked:
            stream.settimeout(max(0.001, deadline - time.monotonic()))
            with contextlib.suppress(OSError):
                answered += len(stream.recv(64)) > 0
        return answered


def hold(udp: int, tcp: int, addresses: Sequence[str]) -> None:
    start = time.monotonic()
    flows = Flows(udp, tcp, addresses)
    say(**flows.open(), opened=round(time.monotonic() - start, 3))
    while True:
        due = time.monotonic() + 1.0
        flows.refresh()
        while (left := due - time.monotonic()) > 0:
            readable, _, _ = select.select([sys.stdin], [], [], left)
            if readable and not sys.stdin.readline():
                return
            if readable:
                say(**flows.ask_all())


def say(**values: object) -> None:
    print(json.dumps(values), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    serving, holding = commands.add_parser("serve"), commands.add_parser("hold")
    holding.add_argument("udp", type=int)
    holding.add_argument("tcp", type=int)
    for each in (serving, holding):
        each.add_argument("addresses", nargs="+")
    options = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if options.command == "serve":
        Server(options.addresses).serve()
    else:
        hold(options.udp, options.tcp, options.addresses)


if __name__ == "__main__":
    main()
