# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of the VPC share: a small network, NAT hosts faked by plain namespaces, sockets inside namespaces."""

from __future__ import annotations

import fcntl
import socket
import struct
import subprocess
import threading
from array import array
from collections.abc import Callable
from contextlib import suppress

from lab import netns
from lab.vpc import namespaces
from lab.vpc.fabric import Fabric
from lab.vpc.network import Ingress, Interface, Network, Route, RouteTable, SecurityGroup, Subnet

VPC = "10.0.0.0/16"
CLIENT = "10.0.2.10"
FLOATING = "10.0.1.100"
ELASTIC = "198.51.100.7"
# An answer takes well under a millisecond here. Silence is believed sooner than a missing answer, which fails a test.
ANSWER_SECONDS = 2.0
SILENCE_SECONDS = 0.2
IP_RECVERR = 11  # Linux: every ICMP error becomes an OSError; Python has no name for it

HOST_A = Interface(
    "eni-0aaaaaaaaaaaaaaa1",
    "02:00:0a:00:01:0b",
    "subnet-public",
    ("10.0.1.11",),
    (("10.0.1.11", "203.0.113.11"),),
    source_dest_check=False,
    security_group_ids=("sg-nat",),
)
HOST_B = Interface(
    "eni-0aaaaaaaaaaaaaaa2",
    "02:00:0a:00:01:0c",
    "subnet-public",
    ("10.0.1.12",),
    (("10.0.1.12", "203.0.113.12"),),
    source_dest_check=False,
    security_group_ids=("sg-nat",),
)
FLOATING_INTERFACE = Interface(
    "eni-0aaaaaaaaaaaaaaa9",
    "02:00:0a:00:01:64",
    "subnet-public",
    (FLOATING,),
    ((FLOATING, ELASTIC),),
    source_dest_check=False,
    security_group_ids=("sg-nat",),
)
# Nothing is let in from the internet but ping and ssh: what comes back to the pair comes back to what it asked.
NAT_GROUP = SecurityGroup(
    "sg-nat",
    (
        Ingress("all", cidrs=(VPC,)),
        Ingress("icmp", 8, -1, ("0.0.0.0/0",)),
        Ingress("tcp", 22, 22, ("192.0.2.50/32",)),
    ),
)
NETWORK = Network(
    cidrs=(VPC,),
    subnets=(
        Subnet("subnet-public", "10.0.1.0/24", "rtb-public"),
        Subnet("subnet-private", "10.0.2.0/24", "rtb-private"),
    ),
    route_tables=(
        RouteTable("rtb-public", (Route(VPC, "local"), Route("0.0.0.0/0", "internet"))),
        RouteTable("rtb-private", (Route(VPC, "local"), Route("0.0.0.0/0", "interface", FLOATING_INTERFACE.id))),
    ),
    security_groups=(NAT_GROUP,),
    interfaces=(HOST_A, HOST_B, FLOATING_INTERFACE),
)


def with_pair(fabric: Fabric) -> None:
    """Two hosts with their primary interfaces, the floating one on host a, a client whose route leads to it."""
    fabric.apply(NETWORK)
    for key, interface in (("a", HOST_A), ("b", HOST_B)):
        fabric.add_host(key)
        fabric.plug(interface, key, "ens5", configure=True)
    fabric.plug(FLOATING_INTERFACE, "a", "ens6")
    fabric.add_client("subnet-private", CLIENT)
    become_nat(fabric.namespace("a"))


def become_nat(namespace: str, link: str = "ens6") -> None:
    """What a NAT host does when the floating interface arrives: address, routes of its own, forwarding, SNAT."""
    namespaces.sysctl(namespace, {"ipv4/ip_forward": 1})
    with suppress(namespaces.NamespaceError):  # rules outlive the link
        namespaces.ip(
            namespace, [f"rule add iif {link} lookup 7 pref 10", f"rule add from {FLOATING} lookup 7 pref 11"]
        )
    namespaces.ip(
        namespace,
        [
            f"link set {link} up",
            f"address replace {FLOATING}/32 dev {link}",
            f"route replace 10.0.1.1 dev {link} table 7",
            f"route replace default via 10.0.1.1 dev {link} table 7",
        ],
    )
    rule = f'oifname "{link}" ip saddr 10.0.2.0/24 ip daddr != {VPC} snat to {FLOATING}'
    chain = f"chain post {{\ntype nat hook postrouting priority srcnat;\n{rule}\n}}"
    namespaces.nft(namespace, f"table ip nat\ndelete table ip nat\ntable ip nat {{\n{chain}\n}}\n")


# --- sockets inside namespaces ----------------------------------------------------------------------------------------


def udp(namespace: str, address: str = "", port: int = 0) -> socket.socket:
    """A UDP socket of the namespace; it stays there whoever uses it."""

    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((address, port))
        return made

    return netns.enter(namespace, make)


def ask(
    namespace: str, address: str, port: int = 7, source: str = "", ttl: int = 64, seconds: float = ANSWER_SECONDS
) -> str | None:
    """Send one UDP packet and return the source that the peer saw, or None for silence. An ICMP error is an OSError."""
    with udp(namespace, source) as asker:
        asker.settimeout(seconds)
        asker.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        asker.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        asker.connect((address, port))
        asker.send(b"?")
        try:
            return asker.recv(100).decode().partition("?")[2].rpartition(":")[0]
        except TimeoutError:
            return None


def is_silent(
    namespace: str, address: str, port: int = 7, source: str = "", ttl: int = 64, seconds: float = SILENCE_SECONDS
) -> bool:
    """Whether one UDP packet draws nothing, not even an ICMP error."""
    return ask(namespace, address, port, source, ttl, seconds) is None


def receives(receiver: socket.socket) -> bool:
    """Whether something arrives at a socket."""
    receiver.settimeout(SILENCE_SECONDS)
    try:
        return bool(receiver.recv(100))
    except TimeoutError:
        return False


def connects(namespace: str, address: str, port: int, seconds: float = ANSWER_SECONDS) -> bool:
    """Whether a TCP connection is made in time. Refused is made: somebody answered."""

    def make() -> socket.socket:
        return socket.socket()

    with netns.enter(namespace, make) as asker:
        asker.settimeout(seconds)
        try:
            asker.connect((address, port))
        except TimeoutError:
            return False
        except ConnectionRefusedError:
            return True
        return True


def is_closed(namespace: str, address: str, port: int) -> bool:
    """Whether nobody answers to a TCP connection."""
    return not connects(namespace, address, port, SILENCE_SECONDS)


class Echo:
    """A UDP echo server in a namespace that tells each peer its address, like the internet's."""

    def __init__(self, namespace: str, address: str, port: int = 7) -> None:
        self._socket = udp(namespace, address, port)
        self._socket.settimeout(0.05)
        self.peers: list[str] = []  # whose packets arrived, answered or not
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Echo:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while not self._ended.is_set():
            with suppress(TimeoutError):
                data, peer = self._socket.recvfrom(100)
                self.peers.append(peer[0])
                self._socket.sendto(data + f"{peer[0]}:{peer[1]}".encode(), peer)


def serve_once(namespace: str, address: str, port: int, work: Callable[[socket.socket], None]) -> threading.Thread:
    """Accept one TCP connection in the background and hand it to `work`."""

    def make() -> socket.socket:
        return socket.create_server((address, port))

    listener = netns.enter(namespace, make)
    listener.settimeout(5)

    def serve() -> None:
        with listener, listener.accept()[0] as peer:
            work(peer)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def checksums_in_software(namespace: str, link: str) -> None:
    """Make the sender compute whole checksums: only then does a receiver behind veth check them."""
    siocethtool, ethtool_stxcsum = 0x8946, 0x17

    def switch() -> None:
        value = array("I", [ethtool_stxcsum, 0])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            fcntl.ioctl(any_socket, siocethtool, struct.pack("16sP", link.encode(), value.buffer_info()[0]))

    netns.enter(namespace, switch)


def output(namespace: str, *argv: str) -> str:
    """What a command in the namespace printed, whatever its exit status."""
    command = ["ip", "netns", "exec", namespace, *argv]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout
