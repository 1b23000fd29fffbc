# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters that judge addresses and networks."""

from __future__ import annotations

import pytest
from ansible_collections.evernat.aws.plugins.filter.address_problem import address_problem
from ansible_collections.evernat.aws.plugins.filter.cidr_problem import cidr_problem


@pytest.mark.parametrize("text", ["10.0.2.0/24", "0.0.0.0/0", "192.0.2.50/32"])
def test_a_network_has_no_problem(text: str) -> None:
    assert cidr_problem(text) == ""


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("10.0.2.0", "no prefix length"),
        ("10.0.2.1/24", "the network is 10.0.2.0/24"),
        ("10.0.2.0/33", "no CIDR"),
        ("fd00::/8", "no CIDR"),
        ("here/there", "no CIDR"),
        (None, "no prefix length"),
    ],
)
def test_what_is_no_network_is_told_in_one_sentence(text: object, part: str) -> None:
    problem = cidr_problem(text)
    assert part in problem
    assert str(text) in problem


@pytest.mark.parametrize("address", ["10.0.1.4", "10.0.1.100", "10.0.1.254"])
def test_an_address_that_the_subnet_can_give_has_no_problem(address: str) -> None:
    assert address_problem(address, "10.0.1.0/24") == ""


@pytest.mark.parametrize(
    ("address", "part"),
    [
        ("10.0.2.4", "outside the subnet 10.0.1.0/24"),
        ("10.0.1.0", "reserved"),
        ("10.0.1.3", "reserved"),
        ("10.0.1.255", "reserved"),
        ("10.0.1", "no IPv4 address"),
    ],
)
def test_an_address_that_it_cannot_give_is_told_in_one_sentence(address: str, part: str) -> None:
    assert part in address_problem(address, "10.0.1.0/24")


def test_without_a_subnet_only_the_form_is_judged() -> None:
    assert address_problem("10.0.1.0") == ""
    assert address_problem("ten") != ""


@pytest.mark.parametrize(
    ("text", "within", "apart_from", "problem"),
    [
        ("10.0.2.0/24", "10.0.0.0/16", ["10.0.1.0/24"], ""),
        ("10.0.0.0/16", "10.0.0.0/16", [], ""),
        ("10.0.0.0/15", "10.0.0.0/16", [], "10.0.0.0/15 is outside of 10.0.0.0/16: give a part of 10.0.0.0/16."),
        ("10.1.0.0/24", "10.0.0.0/16", [], "10.1.0.0/24 is outside of 10.0.0.0/16: give a part of 10.0.0.0/16."),
        ("10.0.1.0/25", "", ["10.0.1.0/24"], "10.0.1.0/25 overlaps 10.0.1.0/24: give a CIDR of its own to each."),
        ("10.0.1.0", "10.0.0.0/16", [], "10.0.1.0 is no CIDR: it has no prefix length, as in 10.0.2.0/24."),
    ],
)
def test_a_cidr_has_its_place(text: str, within: str, apart_from: list[str], problem: str) -> None:
    assert cidr_problem(text, within, apart_from) == problem
