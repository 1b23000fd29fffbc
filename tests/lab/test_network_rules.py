# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a picture of the VPC to routes and rulesets: pure, so without root."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from vpc_picture import FLOATING_INTERFACE, HOST_A, HOST_B, NETWORK

from lab.vpc import rules
from lab.vpc.faults import Cut, Isolation, Links, faults_ruleset
from lab.vpc.network import Ingress, Network, Route, RouteTable, SecurityGroup

ALL = frozenset({HOST_A.id, HOST_B.id, FLOATING_INTERFACE.id})
PRIVATE = str(rules.table_number("rtb-private"))
PUBLIC = str(rules.table_number("rtb-public"))
DEVICE = rules.device_name(FLOATING_INTERFACE.id)
LINKS = Links({"a": ("ea1", "ea9"), "b": ("eb1",), "c": ()}, ("eclient",), ("192.0.2.100",))


def chain(ruleset: str, name: str) -> list[str]:
    """The lines of one chain, but for its head."""
    body = re.search(rf"^  chain {re.escape(name)} {{\n(.*?)^  }}", ruleset, re.MULTILINE | re.DOTALL)
    assert body is not None
    lines = body[1].splitlines()
    return [line.strip() for line in lines if "type filter hook" not in line]


@pytest.mark.parametrize("interface_id", ["eni-0123456789abcdef0", "eni-1", "eni-client"])
def test_device_names_fit_the_kernel(interface_id: str) -> None:
    assert len(rules.device_name(interface_id)) <= 15
    assert rules.device_name(interface_id).startswith("e")


def test_device_names_and_tables_tell_ids_apart() -> None:
    assert len({rules.device_name(f"eni-{number:017x}") for number in range(1000)}) == 1000
    numbers = {rules.table_number(f"rtb-{number:017x}") for number in range(1000)}
    assert len(numbers) == 1000
    assert min(numbers) > 255  # the kernel's own tables


# --- routes -----------------------------------------------------------------------------------------------------------


def test_a_live_interface_is_reached_by_its_device() -> None:
    routes = rules.routing(NETWORK, ALL)
    assert routes["route", "main", "10.0.1.100/32"] == f"10.0.1.100/32 dev {DEVICE}"
    assert routes["route", "main", "10.0.1.0/24"] == "blackhole 10.0.1.0/24"
    assert routes["route", PRIVATE, "0.0.0.0/0"] == f"0.0.0.0/0 via 10.0.1.100 dev {DEVICE} onlink"
    assert routes["route", PUBLIC, "0.0.0.0/0"] == "0.0.0.0/0 dev internet"
    assert routes["rule", DEVICE, PUBLIC] == "pref 200"
    assert routes["address", "10.0.1.1/32"] == "dev lo"


def test_an_interface_without_a_link_swallows_its_packets() -> None:
    routes = rules.routing(NETWORK, ALL - {FLOATING_INTERFACE.id})
    assert routes["route", "main", "10.0.1.100/32"] == "10.0.1.100/32 dev void"
    assert routes["route", PRIVATE, "0.0.0.0/0"] == "blackhole 0.0.0.0/0"


@pytest.mark.parametrize("route", [Route("0.0.0.0/0", "blackhole"), Route("0.0.0.0/0", "interface", "eni-unknown")])
def test_a_route_to_nothing_is_a_blackhole(route: Route) -> None:
    network = replace(NETWORK, route_tables=(RouteTable("rtb-private", (route,)),))
    assert rules.routing(network, ALL)["route", PRIVATE, "0.0.0.0/0"] == "blackhole 0.0.0.0/0"


def test_the_local_route_is_for_all_tables_at_once() -> None:
    assert ("route", PUBLIC, "10.0.0.0/16") not in rules.routing(NETWORK, ALL)
    assert rules.PREFERENCE_LOCAL < rules.PREFERENCE_TABLES < rules.PREFERENCE_END


def test_a_second_address_goes_through_the_first() -> None:
    two = replace(FLOATING_INTERFACE, private_ips=("10.0.1.100", "10.0.1.101"))
    routes = rules.routing(NETWORK.with_interface(two), ALL)
    assert routes["route", "main", "10.0.1.101/32"] == f"10.0.1.101/32 via 10.0.1.100 dev {DEVICE} onlink"


def test_the_batch_touches_only_what_changes() -> None:
    before = rules.routing(NETWORK, ALL)
    after = rules.routing(NETWORK, ALL - {FLOATING_INTERFACE.id})
    assert rules.routing_batch(before, before) == []
    assert rules.routing_batch(before, after) == [
        "route replace 10.0.1.100/32 dev void table main",
        f"route replace blackhole 0.0.0.0/0 table {PRIVATE}",
    ]


def test_the_batch_adds_before_it_removes() -> None:
    before = rules.routing(NETWORK, ALL)
    moved = tuple(replace(subnet, route_table_id="rtb-private") for subnet in NETWORK.subnets)
    batch = rules.routing_batch(before, rules.routing(replace(NETWORK, subnets=moved), ALL))
    assert batch[0].startswith("rule add")
    assert batch[-1] == f"rule del iif {DEVICE} lookup {PUBLIC} pref 200"
    assert len(batch) == 6


def test_an_empty_network_takes_everything_away() -> None:
    routes = rules.routing(NETWORK, ALL)
    batch = rules.routing_batch(routes, rules.routing(Network(), frozenset()))
    assert len(batch) == len(routes)
    assert "address del 10.0.1.1/32 dev lo" in batch
    assert f"route del 0.0.0.0/0 table {PRIVATE}" in batch


# --- the ruleset ------------------------------------------------------------------------------------------------------


def test_public_addresses_are_mapped_both_ways() -> None:
    ruleset = rules.vpc_ruleset(NETWORK)
    assert "10.0.1.100 : 198.51.100.7" in ruleset
    assert "198.51.100.7 : 10.0.1.100" in ruleset


@pytest.mark.parametrize(
    ("rule", "untracked"),
    [
        (Ingress("all", cidrs=("0.0.0.0/0",)), ["tcp", "udp"]),
        (Ingress("tcp", 0, 65535, ("0.0.0.0/0",)), ["tcp"]),
        (Ingress("udp", -1, -1, ("10.0.0.0/8", "0.0.0.0/0")), ["udp"]),
        (Ingress("tcp", 1, 65535, ("0.0.0.0/0",)), []),
        (Ingress("tcp", 443, 443, ("0.0.0.0/0",)), []),
        (Ingress("all", cidrs=("10.0.0.0/8",)), []),
        (Ingress("all", group_ids=("sg-nat",)), []),
        (Ingress("icmp", -1, -1, ("0.0.0.0/0",)), []),
    ],
)
def test_flows_are_untracked_only_if_all_is_open(rule: Ingress, untracked: list[str]) -> None:
    network = replace(NETWORK, security_groups=(SecurityGroup("sg-nat", (rule,)),))
    assert rules.untracked_protocols(FLOATING_INTERFACE, network) == untracked


def test_only_checked_interfaces_are_checked() -> None:
    assert "checked { type ifname; }" in rules.vpc_ruleset(NETWORK)
    checked = NETWORK.with_interface(replace(FLOATING_INTERFACE, source_dest_check=True))
    assert f'checked {{ type ifname; elements = {{ "{DEVICE}" }}; }}' in rules.vpc_ruleset(checked)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Ingress("all", cidrs=("10.0.0.0/8",)), ["ip saddr 10.0.0.0/8 meta l4proto 0-255 accept"]),
        (Ingress("tcp", 22, 22, ("0.0.0.0/0",)), ["tcp dport 22-22 accept"]),
        (Ingress("tcp", -1, -1, ("0.0.0.0/0",)), ["tcp dport 0-65535 accept"]),
        (Ingress("udp", 1, 9, ("10.1.0.0/16", "10.2.0.0/16")),
         ["ip saddr 10.1.0.0/16 udp dport 1-9 accept", "ip saddr 10.2.0.0/16 udp dport 1-9 accept"]),
        (Ingress("icmp", -1, -1, ("0.0.0.0/0",)), ["meta l4proto icmp accept"]),
        (Ingress("icmp", 8, -1, ("0.0.0.0/0",)), ["icmp type 8 accept"]),
        (Ingress("icmp", 3, 4, ("0.0.0.0/0",)), ["icmp type 3 icmp code 4 accept"]),
        (Ingress("50", -1, -1, ("0.0.0.0/0",)), ["meta l4proto 50 accept"]),
        (Ingress("all", group_ids=("sg-nat",)),
         ["ip saddr { 10.0.1.100, 10.0.1.11, 10.0.1.12 } meta l4proto 0-255 accept"]),
        (Ingress("all", group_ids=("sg-empty",)), []),
        (Ingress("all"), []),
    ],
)  # fmt: skip
def test_ingress_rules(rule: Ingress, expected: list[str]) -> None:
    network = replace(NETWORK, security_groups=(SecurityGroup("sg-nat", (rule,)),))
    assert chain(rules.vpc_ruleset(network), "group_sg-nat") == expected


def test_an_unknown_group_admits_nobody() -> None:
    network = NETWORK.with_interface(replace(FLOATING_INTERFACE, security_group_ids=("sg-gone",)))
    assert chain(rules.vpc_ruleset(network), f"to_{DEVICE}") == []
    assert chain(rules.vpc_ruleset(NETWORK), f"to_{DEVICE}") == ["jump group_sg-nat"]


# --- faults -----------------------------------------------------------------------------------------------------------


def test_no_fault_drops_nothing() -> None:
    assert "drop" not in faults_ruleset([], LINKS)


def test_a_cut_is_between_the_primary_devices() -> None:
    lines = chain(faults_ruleset([Cut("a", "b", (5405,))], LINKS), "crossing")
    assert lines == ['iifname { "ea1" } oifname { "eb1" } udp dport { 5405 } drop']
    assert chain(faults_ruleset([Cut("a", "c")], LINKS), "crossing") == []
    assert chain(faults_ruleset([Cut("a", "gone")], LINKS), "crossing") == []


def test_some_packets_in_ten_thousand() -> None:
    lines = chain(faults_ruleset([Cut("b", "a", percent=2.5)], LINKS), "crossing")
    assert lines == ['iifname { "eb1" } oifname { "ea1" } numgen random mod 10000 < 250 drop']


def test_an_isolation_holds_for_all_links_of_the_host() -> None:
    ruleset = faults_ruleset([Isolation("a", frozenset({"ring", "imds"}))], LINKS)
    assert chain(ruleset, "crossing") == [
        'iifname { "ea1", "ea9" } oifname { "eb1" } drop',
        'iifname { "eb1" } oifname { "ea1", "ea9" } drop',
    ]
    assert chain(ruleset, "to_router") == ['iifname { "ea1", "ea9" } ip daddr 169.254.169.254 drop']
    assert chain(faults_ruleset([Isolation("c", frozenset({"ring"}))], LINKS), "crossing") == []
