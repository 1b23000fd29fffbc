# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernel networking by netlink: links, addresses, routes, rules; and the NAT rules of nftables, read only.

A whole look costs about a millisecond, where each `ip` or `iptables` would cost several and a process.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12
SOL_NETLINK = 270
NETLINK_GET_STRICT_CHK = 12

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_DUMP_INTR = 0x10
NLMSG_ERROR = 2
NLMSG_DONE = 3

RTM_NEWLINK, RTM_GETLINK = 16, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_GETROUTE = 24, 26
RTM_NEWRULE, RTM_GETRULE = 32, 34
RTMGRP_LINK = 1

IFF_UP = 0x1
IFF_LOWER_UP = 0x10000
IFLA_ADDRESS, IFLA_IFNAME = 1, 3
IFA_LOCAL = 2
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_TABLE = 1, 4, 5, 6, 7, 15
FRA_SRC, FRA_IIFNAME, FRA_PRIORITY, FRA_TABLE = 2, 3, 6, 15
# mark, tunnel id, suppressors, outgoing link, user, protocol, ports
FRA_OTHER_SELECTORS = frozenset({10, 12, 13, 14, 17, 20, 22, 23, 24})
RTN_UNICAST, RTN_BLACKHOLE = 1, 6
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK = 0, 253
RTPROT_STATIC = 4
RTNH_F_ONLINK = 4
FR_ACT_TO_TBL = 1
FIB_RULE_INVERT = 2
MAIN_TABLE = 254

NFT_RULES = 10 << 8  # subsystem nftables
NFT_MSG_GETRULE = NFT_RULES | 7
NFTA_RULE_EXPRESSIONS = 4
NFTA_EXPR_NAME, NFTA_EXPR_DATA = 1, 2
NFTA_NAT_TYPE = 1
NFT_NAT_SNAT = 0

ANSWER_TIMEOUT = 2.0
ATTEMPTS = 5  # a dump that the kernel marks as interrupted by a change is asked for again


class Link:
    """A network link: `carrier` is True when its lower layer is up."""

    def __init__(self, index: int, name: str, mac: str, up: bool, carrier: bool) -> None:
        self.index = index
        self.name = name
        self.mac = mac
        self.up = up
        self.carrier = carrier


class Address:
    def __init__(self, index: int, ip: str, prefix: int) -> None:
        self.index = index
        self.ip = ip
        self.prefix = prefix


class Route:
    """A route: kind is an RTN_ number, `destination` "0.0.0.0" with `prefix` 0 is the default."""

    def __init__(
        self,
        table: int,
        destination: str,
        prefix: int,
        kind: int = RTN_UNICAST,
        index: int | None = None,
        gateway: str | None = None,
        source: str | None = None,
        metric: int = 0,
    ) -> None:
        self.table = table
        self.destination = destination
        self.prefix = prefix
        self.kind = kind
        self.index = index
        self.gateway = gateway
        self.source = source
        self.metric = metric


class Rule:
    """A routing rule that leads to a table; `plain` is False when it has selectors that are not listed here."""

    def __init__(
        self, table: int, priority: int = 0, source: str | None = None, link: str | None = None, plain: bool = True
    ) -> None:
        self.table = table
        self.priority = priority
        self.source = source
        self.link = link
        self.plain = plain


class Netlink:
    """A netlink socket. All calls raise OSError (with the kernel's errno), TimeoutError if the kernel is silent."""

    def __init__(self, protocol: int = NETLINK_ROUTE, groups: int = 0) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.settimeout(ANSWER_TIMEOUT)
        if protocol == NETLINK_ROUTE:
            self._socket.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)  # the kernel filters a dump by table
        self._socket.bind((0, groups))
        self._sequence = 0

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()

    # reading

    def links(self) -> list[Link]:
        found = []
        for body in self._dump(RTM_GETLINK, struct.pack("=BxHiII", 0, 0, 0, 0, 0)):
            _unused, index, flags = struct.unpack_from("=B3xiI", body)
            values = attributes(body, 16)
            mac = ":".join(f"{byte:02x}" for byte in values.get(IFLA_ADDRESS, b""))
            found.append(Link(index, _text(values[IFLA_IFNAME]), mac, bool(flags & IFF_UP), bool(flags & IFF_LOWER_UP)))
        return found

    def addresses(self) -> list[Address]:
        """All IPv4 addresses."""
        found = []
        for body in self._dump(RTM_GETADDR, struct.pack("=BBBBI", socket.AF_INET, 0, 0, 0, 0)):
            _unused, prefix, _unused, _unused, index = struct.unpack_from("=BBBBI", body)
            local = attributes(body, 8).get(IFA_LOCAL)
            if local:
                found.append(Address(index, socket.inet_ntoa(local), prefix))
        return found

    def routes(self, table: int) -> list[Route]:
        """The IPv4 routes of a table; none if there is no such table."""
        head = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
        try:
            bodies = self._dump(RTM_GETROUTE, head + _attribute(RTA_TABLE, struct.pack("=I", table)))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return []
            raise
        return [_route(body) for body in bodies if _route(body).table == table]

    def rules(self) -> list[Rule]:
        """The IPv4 rules that lead to a table."""
        found = []
        for body in self._dump(RTM_GETRULE, struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)):
            _unused, dst, src, tos, table, _unused, _unused, action, flags = struct.unpack_from("=BBBBBBBBI", body)
            values = attributes(body, 12)
            if action == FR_ACT_TO_TBL:
                plain = dst == 0 and src in (0, 32) and tos == 0 and not flags & FIB_RULE_INVERT
                plain = plain and not any(_selects(kind, value) for kind, value in values.items())
                found.append(
                    Rule(
                        _number(values.get(FRA_TABLE), table),
                        _number(values.get(FRA_PRIORITY), 0),
                        socket.inet_ntoa(values[FRA_SRC]) if FRA_SRC in values else None,
                        _text(values[FRA_IIFNAME]) if FRA_IIFNAME in values else None,
                        plain,
                    )
                )
        return found

    def wait_for_event(self, seconds: float) -> None:
        """Return on the next message of the groups that this socket listens to, or after a time."""
        self._socket.settimeout(max(seconds, 0.001))
        try:
            self._socket.recv(65536)
        except socket.timeout:  # TimeoutError from Python 3.10 on
            pass
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # messages were lost, so something happened
                raise

    # writing

    def set_link(self, index: int, up: bool) -> None:
        self._request(RTM_NEWLINK, struct.pack("=BxHiII", 0, 0, index, IFF_UP if up else 0, IFF_UP))

    def add_address(self, address: Address) -> None:
        self._request(RTM_NEWADDR, _address_body(address), NLM_F_CREATE | NLM_F_REPLACE)

    def delete_address(self, address: Address) -> None:
        self._request(RTM_DELADDR, _address_body(address))

    def replace_route(self, route: Route) -> None:
        scope = RT_SCOPE_LINK if route.gateway is None and route.kind == RTN_UNICAST else RT_SCOPE_UNIVERSE
        flags = RTNH_F_ONLINK if route.gateway else 0
        body = struct.pack("=BBBBBBBBI", socket.AF_INET, route.prefix, 0, 0, 0, RTPROT_STATIC, scope, route.kind, flags)
        body += _attribute(RTA_TABLE, struct.pack("=I", route.table))
        body += _attribute(RTA_PRIORITY, struct.pack("=I", route.metric))
        if route.prefix:
            body += _attribute(RTA_DST, socket.inet_aton(route.destination))
        if route.index is not None:
            body += _attribute(RTA_OIF, struct.pack("=i", route.index))
        if route.gateway:
            body += _attribute(RTA_GATEWAY, socket.inet_aton(route.gateway))
        if route.source:
            body += _attribute(RTA_PREFSRC, socket.inet_aton(route.source))
        self._request(RTM_NEWROUTE, body, NLM_F_CREATE | NLM_F_REPLACE)

    def add_rule(self, rule: Rule) -> None:
        """Add a rule unless the same is there."""
        prefix = 32 if rule.source else 0
        body = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, prefix, 0, 0, 0, 0, FR_ACT_TO_TBL, 0)
        body += _attribute(FRA_TABLE, struct.pack("=I", rule.table))
        body += _attribute(FRA_PRIORITY, struct.pack("=I", rule.priority))
        if rule.source:
            body += _attribute(FRA_SRC, socket.inet_aton(rule.source))
        if rule.link:
            body += _attribute(FRA_IIFNAME, rule.link.encode() + b"\0")
        with contextlib.suppress(FileExistsError):
            self._request(RTM_NEWRULE, body, NLM_F_CREATE | NLM_F_EXCL)

    # the protocol

    def _request(self, kind: int, body: bytes, flags: int = 0) -> None:
        sequence = self._send(kind, body, NLM_F_REQUEST | NLM_F_ACK | flags)
        for message, _unused, answer in self._answers(sequence):
            if message == NLMSG_ERROR:
                _raise_if_error(answer)
                return

    def _dump(self, kind: int, body: bytes) -> list[bytes]:
        for _unused in range(ATTEMPTS):
            sequence = self._send(kind, body, NLM_F_REQUEST | NLM_F_DUMP)
            found, interrupted = [], False
            for message, flags, answer in self._answers(sequence):
                interrupted = interrupted or bool(flags & NLM_F_DUMP_INTR)
                if message == NLMSG_DONE:
                    _raise_if_error(answer)
                    break
                if message == NLMSG_ERROR:
                    _raise_if_error(answer)
                else:
                    found.append(answer)
            if not interrupted:
                return found
        raise OSError(errno.EINTR, f"the kernel's tables changed during each of {ATTEMPTS} readings")

    def _send(self, kind: int, body: bytes, flags: int) -> int:
        self._sequence += 1
        self._socket.send(struct.pack("=IHHII", 16 + len(body), kind, flags, self._sequence, 0) + body)
        return self._sequence

    def _answers(self, sequence: int) -> Iterator[tuple[int, int, bytes]]:
        give_up = time.monotonic() + ANSWER_TIMEOUT
        while time.monotonic() < give_up:
            data = self._socket.recv(1 << 17)
            offset = 0
            while offset + 16 <= len(data):
                length, kind, flags, number, _unused = struct.unpack_from("=IHHII", data, offset)
                if number == sequence:
                    yield kind, flags, data[offset + 16 : offset + length]
                offset += max(16, (length + 3) & ~3)
        raise TimeoutError(f"no end of the kernel's netlink answer within {ANSWER_TIMEOUT} s")


def has_snat_to(ip: str) -> bool:
    """Whether an IPv4 rule of nftables (also one made by iptables-nft) does SNAT to this address."""
    packed = socket.inet_aton(ip)
    with Netlink(NETLINK_NETFILTER) as netfilter:
        bodies = netfilter._dump(NFT_MSG_GETRULE, struct.pack("=BBH", socket.AF_INET, 0, 0))
    return any(_is_snat(attributes(body, 4).get(NFTA_RULE_EXPRESSIONS, b""), packed) for body in bodies)


def _is_snat(expressions: bytes, address: bytes) -> bool:
    """nft loads the address as an immediate, then comes `nat`; iptables-nft has a target SNAT that holds the range."""
    if address not in expressions:
        return False
    loaded = False
    for _unused, element in attribute_list(expressions, 0):
        values = attributes(element, 0)
        name, data = _text(values.get(NFTA_EXPR_NAME, b"")), values.get(NFTA_EXPR_DATA, b"")
        if name == "immediate":
            loaded = loaded or address in data
        elif name == "nat" and loaded:
            return int.from_bytes(attributes(data, 0).get(NFTA_NAT_TYPE, b""), "big") == NFT_NAT_SNAT
        elif name == "target" and b"SNAT\0" in data and address in data:
            return True
    return False


def attributes(data: bytes, offset: int) -> dict[int, bytes]:
    return dict(attribute_list(data, offset))


def attribute_list(data: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            return
        yield kind & 0x3FFF, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def _address_body(address: Address) -> bytes:
    head = struct.pack("=BBBBI", socket.AF_INET, address.prefix, 0, RT_SCOPE_UNIVERSE, address.index)
    return head + _attribute(IFA_LOCAL, socket.inet_aton(address.ip))


def _route(body: bytes) -> Route:
    _unused, prefix, _unused, _unused, table, _unused, _unused, kind, _unused = struct.unpack_from("=BBBBBBBBI", body)
    values = attributes(body, 12)
    return Route(
        _number(values.get(RTA_TABLE), table),
        socket.inet_ntoa(values[RTA_DST]) if RTA_DST in values else "0.0.0.0",
        prefix,
        kind,
        _number(values[RTA_OIF], 0) if RTA_OIF in values else None,
        socket.inet_ntoa(values[RTA_GATEWAY]) if RTA_GATEWAY in values else None,
        socket.inet_ntoa(values[RTA_PREFSRC]) if RTA_PREFSRC in values else None,
        _number(values.get(RTA_PRIORITY), 0),
    )


def _number(value: bytes | None, default: int) -> int:
    return default if value is None else int(struct.unpack("=I", value)[0])


def _selects(kind: int, value: bytes) -> bool:
    """Whether an attribute narrows a rule; the kernel reports "suppress nothing" as -1 in each rule."""
    return kind in FRA_OTHER_SELECTORS and value != b"\xff" * 4


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


def _raise_if_error(body: bytes) -> None:
    code = -struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0
    if code:
        raise OSError(code, os.strerror(code))
