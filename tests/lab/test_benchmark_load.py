# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the benchmarks' loads are made of and measured with: over loopback, and from texts."""

from __future__ import annotations

import socket
import threading

import pytest

from lab.benchmark import counters, process
from lab.benchmark.datagrams import SOCKADDR_IN, Batch
from lab.benchmark.generator import BATCH, PORTS, flows
from lab.benchmark.sink import TOTAL, discard

NFT_JSON = """{"nftables": [{"metainfo": {"version": "1.0.6"}},
{"counter": {"family": "ip", "name": "in", "table": "bench_counters", "handle": 1, "packets": 7, "bytes": 700}},
{"counter": {"family": "ip", "name": "out", "table": "bench_counters", "handle": 2, "packets": 0, "bytes": 0}}]}"""
STAT = "41 (a) b (c) S 1 41 41 0 -1 4194560 531 0 0 0 250 150 0 0 20 0 1 0 900 5000000 300"
STATUS = "Name:\ta\nVmPeak:\t  9000 kB\nVmHWM:\t    3000 kB\nVmRSS:\t    2048 kB\nThreads:\t1\n"


@pytest.fixture
def receivers() -> list[socket.socket]:
    sockets = []
    for _ in range(2):
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(5)
        sockets.append(receiver)
    return sockets


def test_each_datagram_of_a_batch_goes_to_its_own_peer(receivers: list[socket.socket]) -> None:
    batch = Batch(5, 18)
    first, second = (receiver.getsockname() for receiver in receivers)
    batch.address([first, second, first, first, second])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        assert batch.send(sender, 5) == 5
    assert [len(receivers[0].recv(100)) for _ in range(3)] == [18, 18, 18]
    assert [len(receivers[1].recv(100)) for _ in range(2)] == [18, 18]


def test_a_batch_that_was_received_can_be_sent_back(receivers: list[socket.socket]) -> None:
    here, there = receivers
    there.sendto(b"one", here.getsockname())
    there.sendto(b"two", here.getsockname())
    batch = Batch(8, 3)
    assert batch.receive(here) == 2
    family, port, address = SOCKADDR_IN.unpack(batch.peers(2)[1])
    assert (family, port, address) == (
        socket.AF_INET,
        there.getsockname()[1].to_bytes(2, "big"),
        socket.inet_aton("127.0.0.1"),
    )
    batch.send(here, 2)
    assert [there.recv(100), there.recv(100)] == [b"one", b"two"]
    assert batch.receive(here) == 0


def test_no_two_flows_are_the_same() -> None:
    count = 2 * len(PORTS) + BATCH + 1
    found = [(sender, port) for sender, ports in flows(count) for port in ports]
    assert len(found) == len(set(found)) == count
    assert {sender for sender, _ in found} == {0, 1, 2}


def test_the_sink_tells_how_much_it_got() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=discard, args=(listener,), daemon=True).start()
        with socket.create_connection(listener.getsockname(), 5) as stream:
            stream.sendall(bytes(3_000_000))
            stream.shutdown(socket.SHUT_WR)
            assert TOTAL.unpack(stream.recv(TOTAL.size, socket.MSG_WAITALL)) == (3_000_000,)


def test_counters_are_read_by_name() -> None:
    found = counters.parse(NFT_JSON)
    assert found == {"in": counters.Count(7, 700), "out": counters.Count(0, 0)}
    assert found["in"].since(counters.Count(2, 200)) == counters.Count(5, 500)


def test_what_is_counted_goes_on_unless_it_is_to_be_dropped() -> None:
    assert "udp dport 9 counter name arrived\n" in counters.ruleset({"arrived": "udp dport 9"})
    assert "udp dport 9 counter name arrived drop\n" in counters.ruleset({"arrived": "udp dport 9"}, drop=True)


def test_the_use_of_a_process_whose_name_has_brackets() -> None:
    assert process.parse(STAT, STATUS) == process.Usage(400 / process.TICKS, 2048 * 1024, 3000 * 1024)
