# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What counts as running, stopped and broken on a host."""

from __future__ import annotations

from typing import Any

import host
import netlink
import pytest
from host import View, Wanted
from netlink import Address, Link, Route, Rule

MAC = "02:00:00:00:00:01"
SYSCTLS = {
    "ip_forward": "1",
    "conf/ens6/forwarding": "1",
    "conf/all/rp_filter": "2",
    "conf/ens6/rp_filter": "2",
}


@pytest.fixture
def wanted(settings: dict[str, Any]) -> Wanted:
    return Wanted(settings)


def view(**changes: Any) -> View:
    """A host where the ENI is in service, with changes."""
    parts: dict[str, Any] = {
        "link": Link(3, "ens6", MAC, up=True, carrier=True),
        "addresses": [Address(3, "10.0.1.100", 32)],
        "routes": [
            Route(100, "0.0.0.0", 0, index=3, gateway="10.0.1.1"),
            Route(100, "0.0.0.0", 0, netlink.RTN_BLACKHOLE, metric=9999),
        ],
        "rules": [Rule(100, 100, source="10.0.1.100"), Rule(100, 100, link="ens6"), Rule(254, 32766)],
        "sysctls": SYSCTLS,
        "snat": True,
    }
    return View(**{**parts, **changes})


def test_a_host_in_service_has_no_faults(wanted: Wanted) -> None:
    assert host.faults(view(), wanted) == []
    assert host.warnings(view(), wanted) == []
    assert not host.is_stopped(view(), wanted)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"link": Link(3, "ens6", MAC, up=False, carrier=False)}, "link ens6 is down"),
        ({"link": Link(3, "ens6", MAC, up=True, carrier=False)}, "link ens6 has no carrier"),
        ({"addresses": []}, "address 10.0.1.100 is not on ens6"),
        ({"addresses": [Address(3, "10.0.1.101", 32)]}, "address 10.0.1.100 is not on ens6"),
        ({"routes": []}, "table 100 has no default route by 10.0.1.1 on ens6"),
        ({"routes": [Route(100, "0.0.0.0", 0, index=2, gateway="10.0.1.1")]}, "has no default route"),
        ({"rules": [Rule(100, 100, source="10.0.1.100")]}, "routing rule iif ens6 lookup 100 is missing"),
        ({"rules": [Rule(100, 100, link="ens6")]}, "routing rule from 10.0.1.100 lookup 100 is missing"),
        ({"rules": [Rule(100, 100, source="10.0.1.100"), Rule(100, 100, link="ens6", plain=False)]}, "iif ens6"),
        ({"sysctls": {**SYSCTLS, "ip_forward": "0"}}, "net.ipv4.ip_forward is 0"),
        ({"sysctls": {**SYSCTLS, "conf/ens6/forwarding": "0"}}, "net.ipv4.conf/ens6/forwarding is 0"),
        (
            {"sysctls": {**SYSCTLS, "conf/ens6/rp_filter": "0", "conf/all/rp_filter": "1"}},
            "rp_filter is strict on ens6",
        ),
        ({"snat": False}, "no SNAT rule to 10.0.1.100"),
    ],
)
def test_each_thing_that_is_missing_is_a_fault(wanted: Wanted, changes: dict[str, Any], reason: str) -> None:
    found = host.faults(view(**changes), wanted)
    assert len(found) == 1
    assert reason in found[0]


@pytest.mark.parametrize(
    ("changes", "stopped"),
    [
        ({"link": None, "addresses": []}, True),
        ({"link": Link(3, "ens6", MAC, up=False, carrier=False), "addresses": []}, True),
        ({"link": Link(3, "ens6", MAC, up=False, carrier=False)}, False),
        ({"addresses": []}, False),
    ],
)
def test_stopped_means_no_link_or_down_without_address(wanted: Wanted, changes: dict[str, Any], stopped: bool) -> None:
    assert host.is_stopped(view(**changes), wanted) is stopped


def test_a_missing_blackhole_is_a_warning(wanted: Wanted) -> None:
    assert "no blackhole default" in host.warnings(view(routes=[]), wanted)[0]


def test_the_gateway_is_the_subnets_first_address(settings: dict[str, Any]) -> None:
    assert Wanted(settings).gateway == "10.0.1.1"
    assert Wanted({**settings, "gateway": "10.0.1.254"}).gateway == "10.0.1.254"
    assert host.first_address(("10.0.255.128", 25)) == "10.0.255.129"


def test_the_lowest_of_several_links_with_the_mac_is_taken() -> None:
    links = [Link(9, "br0", MAC, True, True), Link(3, "ens6", MAC, True, True), Link(1, "lo", "", True, True)]
    found = host.find_link(MAC, links)
    assert found is not None
    assert found.name == "ens6"
    assert host.find_link("02:00:00:00:00:02", links) is None


def test_the_primary_is_the_best_default_route_without_the_eni() -> None:
    links = [
        Link(2, "ens5", "02:aa", True, True),
        Link(3, "ens6", MAC, True, True),
        Link(4, "ens7", "02:bb", True, True),
    ]
    addresses = [Address(3, "10.0.1.100", 32), Address(2, "10.0.1.11", 24), Address(4, "10.0.9.9", 24)]
    routes = [
        Route(254, "0.0.0.0", 0, index=3),
        Route(254, "0.0.0.0", 0, index=4, metric=200),
        Route(254, "0.0.0.0", 0, index=2, metric=100),
        Route(254, "10.0.1.0", 24, index=2),
    ]
    found = host.primary(links, addresses, routes, MAC)
    assert found is not None
    assert (found.link, found.ip) == ("ens5", "10.0.1.11")
    assert host.primary(links, addresses, routes[:1], MAC) is None


def test_an_unreadable_kernel_is_no_evidence(wanted: Wanted, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: object) -> list[Link]:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(netlink.Netlink, "links", broken)
    for read in (host.look, host.configure, host.tear_down):
        with pytest.raises(host.HostError, match="Cannot allocate memory"):
            read(wanted)


class Vanishing:
    """A kernel whose link goes when it is touched, as when another host detaches the ENI at that moment."""

    def __init__(self, code: int) -> None:
        self.code = code

    def __enter__(self) -> Vanishing:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def links(self) -> list[Link]:
        return [Link(3, "ens6", MAC, up=True, carrier=True)]

    def addresses(self) -> list[Address]:
        return [Address(3, "10.0.1.100", 32)]

    def set_link(self, index: int, up: bool) -> None:
        raise OSError(self.code, "set_link")

    def delete_address(self, address: Address) -> None:
        raise OSError(self.code, "delete_address")


def test_a_link_that_goes_while_it_is_taken_down_is_no_failed_stop(
    wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "Netlink", lambda: Vanishing(netlink.errno.ENODEV))
    assert host.tear_down(wanted)


def test_a_link_that_cannot_be_taken_down_is_a_failed_stop(wanted: Wanted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "Netlink", lambda: Vanishing(netlink.errno.EPERM))
    with pytest.raises(host.HostError, match="could not be taken down"):
        host.tear_down(wanted)
