# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The interface's security group lets TCP and UDP in, so that AWS tracks none: the hosts' own rules are the filter."""

from __future__ import annotations

import re
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pair import Pair

from lab import netns
from lab.account import FLOATING_ADDRESS
from lab.vpc import icmp
from lab.vpc.fabric import SERVER_ADDRESSES
from lab.vpc.server import ECHO_PORT

STRANGER = SERVER_ADDRESSES[1]
PORTS = (22, 2224, 3780, 5405, 40000)  # ssh, Pacemaker's remote, the replication, the ring, where a connection could be
SILENCE_SECONDS = 0.3
ANSWER_SECONDS = 5.0
ETH_P_IP = 0x0800
IP_MTU, IP_RECVERR = 14, 11  # Linux; Python has no names for them


@contextmanager
def packets_from(namespace: str, source: str) -> Iterator[list[bytes]]:
    """Collects the IP packets of one source that came into a namespace while the block ran."""

    def make() -> socket.socket:
        return socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP))

    with netns.enter(namespace, make) as ear:
        caught: list[bytes] = []
        yield caught
        while select.select([ear], [], [], SILENCE_SECONDS)[0]:
            packet = ear.recv(65535)
            if packet[12:16] == socket.inet_aton(source):
                caught.append(packet)


def is_silent(namespace: str, kind: socket.SocketKind, address: str, port: int) -> bool:
    """Whether one packet from the stranger, unasked, draws nothing, not even an ICMP error."""

    def make() -> socket.socket:
        return socket.socket(socket.AF_INET, kind)

    with netns.enter(namespace, make) as door:
        door.bind((STRANGER, 0))
        door.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        door.settimeout(SILENCE_SECONDS)
        try:
            door.connect((address, port))
            door.send(b"?")
            door.recv(1)
        except TimeoutError:
            return True
        except OSError:
            return False
    return False


def dropped(pair: Pair) -> int:
    """Packets to the interface's address that the holder's own rules have dropped."""
    listing = pair.run(pair.holder, "iptables", "--table=filter", "-nvxL", "INPUT")
    (count,) = re.findall(rf"^ *(\d+) +\d+ +DROP .*{re.escape(FLOATING_ADDRESS)} *$", listing, re.MULTILINE)
    return int(count)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
def test_what_comes_unasked_reaches_neither_hosts_nor_clients(pair: Pair, kind: socket.SocketKind) -> None:
    lab = pair.lab
    before = dropped(pair)
    with packets_from(lab.fabric.namespace("client"), STRANGER) as caught:
        for port in PORTS:
            assert is_silent(lab.fabric.internet_netns, kind, lab.elastic_ip(), port)
    assert caught == []
    assert dropped(pair) - before >= len(PORTS), "not all came as far as the host"


def test_path_mtu_discovery_reaches_the_client(pair: Pair) -> None:
    """AWS relates an ICMP error to no flow that it does not track, so there is a rule for it."""
    lab = pair.lab

    def make() -> socket.socket:
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    with pair.traffic(), netns.enter(lab.fabric.namespace("client"), make) as client:
        client.settimeout(ANSWER_SECONDS)
        client.connect((SERVER_ADDRESSES[0], ECHO_PORT))
        client.send(b"?")
        port = int(client.recv(100).rpartition(b":")[2])  # as the server saw it
        assert client.getsockopt(socket.IPPROTO_IP, IP_MTU) == 1500
        flow = icmp.Packet((FLOATING_ADDRESS, port), (SERVER_ADDRESSES[0], ECHO_PORT), socket.IPPROTO_UDP)
        icmp.send(
            lab.fabric.internet_netns, lab.elastic_ip(), icmp.unreachable(icmp.FRAGMENTATION_NEEDED, flow, mtu=1280)
        )
        deadline = time.monotonic() + ANSWER_SECONDS
        while client.getsockopt(socket.IPPROTO_IP, IP_MTU) != 1280:
            assert time.monotonic() < deadline, f"no word of the smaller MTU in {ANSWER_SECONDS} s"
            time.sleep(0.02)
