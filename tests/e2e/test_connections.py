# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Established connections live through each takeover: 20 long TCP connections, a download, a UDP exchange."""

from __future__ import annotations

import time

import pytest
from pair import Pair

from lab.takeover import fields_of
from lab.vpc.record import Record
from lab.vpc.traffic import Traffic, TrafficError, patience

LIMIT = 60.0  # seconds; generous: figures are the benchmark's business
ALL = (22, 22)


def wait_until_replicated(pair: Pair, traffic: Traffic) -> None:
    traffic.wait_until_established(time.monotonic() + LIMIT)
    pair.wait_replicated()


def wait_until_recovered(traffic: Traffic, since: float) -> float:
    """Wait until probes are answered again and every long connection had data; returns when the first answer came."""
    flowing = traffic.wait_until_flowing(time.monotonic() + LIMIT, since=since)
    traffic.wait_for_flows(time.monotonic() + patience(flowing - since), since=flowing)
    return flowing


def fates(record: Record) -> str:
    return ", ".join(f"{flow.name}: {flow.error or 'no data'}" for flow in record.flows if not flow.alive)


def facts_of_start(pair: Pair, since: float) -> dict[str, str]:
    """What the holder's agent says of its last start, which was after `since` (monotonic)."""
    seconds = time.monotonic() - since
    journal = pair.run(pair.holder, "journalctl", "--boot", "--output=cat", f"--since=-{seconds:.0f}s")
    started = [fields_of(line) for line in journal.splitlines() if "action=start" in line and "commit=" in line]
    assert started, f"no start in the journal of {pair.holder}"
    return started[-1]


def test_a_power_cut_costs_no_connection(pair: Pair) -> None:
    before = pair.holder
    with pair.moves() as moves, pair.traffic() as traffic:
        wait_until_replicated(pair, traffic)
        fault = pair.lab.power_cut(before)
        flowing = wait_until_recovered(traffic, fault)
        record = traffic.stop()
    assert moves == [pair.lab.peer(before)]
    assert record.survived(since=flowing) == ALL, fates(record)
    start = facts_of_start(pair, fault)
    assert int(start["flows"]) >= record.survived()[0]
    assert start["whole"] == "true"


def test_a_planned_switchover_there_and_back_costs_no_connection(pair: Pair) -> None:
    first = pair.holder
    second = pair.lab.peer(first)
    with pair.moves() as moves, pair.traffic() as traffic:
        wait_until_replicated(pair, traffic)
        flowing = 0.0
        for to in (second, first):
            asked = pair.lab.switch_over(to, time.monotonic() + LIMIT)
            flowing = wait_until_recovered(traffic, asked)
        record = traffic.stop()
    assert moves == [second, first]
    assert record.survived(since=flowing) == ALL, fates(record)
    assert "cli-" not in pair.run(first, "cibadmin", "--query", "--scope=constraints")


def test_without_a_replica_the_move_is_made_and_the_record_says_what_died(pair: Pair) -> None:
    """What happens to each takeover of those who do not replicate."""
    before = pair.holder
    for instance_id in pair.lab.pair():
        pair.run(instance_id, "systemctl", "stop", "conntrackd")
    try:
        with pair.moves() as moves, pair.traffic() as traffic:
            asked = pair.lab.switch_over(pair.lab.peer(before), time.monotonic() + LIMIT)
            flowing = traffic.wait_until_flowing(time.monotonic() + LIMIT, since=asked)
            with pytest.raises(TrafficError, match=r"no data on .*bulk"):
                traffic.wait_for_flows(time.monotonic() + patience(0), since=flowing)
            record = traffic.stop()
    finally:
        for instance_id in pair.lab.pair():
            pair.run(instance_id, "systemctl", "start", "conntrackd")
    assert moves == [pair.lab.peer(before)]
    dead = {flow.name for flow in record.flows if not flow.alive}
    assert dead >= {"bulk", *(f"download-{number}" for number in range(1, 11))}
    assert record.connects[-1].ok, "new connections work all the same"
