# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the samples of `lab/bench throughput` to ratios."""

from __future__ import annotations

import re

import pytest

from lab.benchmark import datapath
from lab.benchmark.throughput import COMPARISONS, LOADS, compare, name_of, rate, rates, ratio_text, rotated


def sample(number: int, load: str, variant: str, value: float) -> dict[str, object]:
    return {"round": number, "load": load, "variant": variant, "rate": value, "seconds": 2.0, "cpu": 1.0}


def test_ratios_are_taken_within_a_round() -> None:
    samples = [
        sample(0, "bulk", "forwarding", 10.0),
        sample(0, "bulk", "nat", 9.0),
        sample(1, "bulk", "nat", 4.0),  # a machine that was half as fast in this round
        sample(1, "bulk", "forwarding", 5.0),
        sample(2, "bulk", "nat", 7.0),  # without its partner: no ratio
    ]
    (row,) = compare(samples)
    assert name_of(row) == "bulk: nat / forwarding"
    assert (row["n"], row["median"], row["least"], row["most"]) == (2, pytest.approx(0.85), 0.8, 0.9)
    assert ratio_text(row) == "0.85 (0.80 to 0.90, n=2, wanted 0.85), 0.85 by CPU"


def test_a_comparison_that_promises_nothing_wants_nothing() -> None:
    row = compare([sample(0, "small", "tracking", 9.0), sample(0, "small", "forwarding", 10.0)])[0]
    assert ratio_text(row) == "0.90 (0.90 to 0.90, n=1), 0.90 by CPU"


def test_a_load_that_had_to_wait_for_its_cpu_is_put_right() -> None:
    nat, bare = sample(0, "small", "nat", 45.0), sample(0, "small", "forwarding", 100.0)
    (row,) = compare([{**nat, "cpu": 1.0}, {**bare, "cpu": 2.0}])
    assert (row["median"], row["by_cpu"]["median"]) == (0.45, pytest.approx(0.9))


def test_rates_have_their_unit() -> None:
    found = rates([sample(0, "small", "nat", 80.0), sample(1, "small", "nat", 90.0), sample(0, "bulk", "nat", 9.0)])
    assert [(row["load"], row["unit"], row["median"], row["n"]) for row in found] == [
        ("bulk", "Gbit/s", 9.0, 1),
        ("small", "packets/s", 85.0, 2),
    ]


@pytest.mark.parametrize(
    ("load", "done", "arrived", "expected"),
    [
        ("bulk", {"bytes": 2.5e9, "seconds": 2.0}, 0, 10.0),
        ("connections", {"connections": 500, "seconds": 2.0}, 0, 250.0),
        ("small", {"packets": 1000, "seconds": 2.0}, 900, 450.0),  # what was lost on the way does not count
        ("new-flows", {"packets": 1000, "seconds": 4.0}, 1000, 250.0),
    ],
)
def test_rate(load: str, done: dict[str, float], arrived: int, expected: float) -> None:
    assert rate(load, done, arrived) == expected


def test_every_comparison_is_of_what_is_measured() -> None:
    assert {item.load for item in COMPARISONS} == set(LOADS)
    assert {item.variant for item in COMPARISONS} | {item.base for item in COMPARISONS} == set(datapath.VARIANTS)


def test_each_variant_comes_first_in_turn() -> None:
    assert [rotated(datapath.VARIANTS, number)[0] for number in range(5)] == [*datapath.VARIANTS, "forwarding"]
    assert sorted(rotated(datapath.VARIANTS, 2)) == sorted(datapath.VARIANTS)


def test_only_bare_tracking_asks_for_tracking() -> None:
    assert "ct state" in datapath.bare_ruleset("tracking")
    assert datapath.bare_ruleset("forwarding") == "flush ruleset\n"


def test_the_routers_work_is_the_same_for_all_but_the_address() -> None:
    ours, bare = (
        datapath.router_ruleset("ex", "10.0.1.100", ["192.0.2.10"], back) for back in ("10.0.1.100", "10.0.2.10")
    )
    assert re.findall(r"ip daddr set (\S+)", ours) == ["10.0.1.100"]
    assert re.findall(r"ip daddr set (\S+)", bare) == ["10.0.2.10"]
    assert ours.replace("daddr set 10.0.1.100", "daddr set 10.0.2.10") == bare
