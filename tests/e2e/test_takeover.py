# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The active host is lost, or gives up: the interface moves once, and the client's packets flow again."""

from __future__ import annotations

import time

import pytest
from pair import Pair

from lab.cluster import node_name

LIMIT = 60.0  # seconds; generous: figures are the benchmark's business


def test_power_cut_moves_it_once_and_the_address_stays(pair: Pair) -> None:
    before, elastic_ip = pair.holder, pair.lab.elastic_ip()
    with pair.moves() as moves, pair.traffic() as traffic:
        fault = pair.lab.power_cut(before)
        traffic.wait_until_flowing(time.monotonic() + LIMIT, since=fault)
        record = traffic.stop()
    assert moves == [pair.lab.peer(before)]
    assert record.egress_addresses() == [elastic_ip]
    assert len(record.since(fault)) == 1


def test_a_host_that_comes_back_does_not_take_it_back(pair: Pair) -> None:
    before = pair.holder
    with pair.traffic() as traffic:
        fault = pair.lab.power_cut(before)
        flowing = traffic.wait_until_flowing(time.monotonic() + LIMIT, since=fault)
        with pair.moves() as moves:
            pair.lab.power_on(before)
            pair.wait_sound()
        record = traffic.stop()
    assert moves == []
    assert pair.holder != before
    assert [outage for outage in record.outages if outage.start > flowing] == []


def test_a_detach_that_hangs_is_forced_once(pair: Pair) -> None:
    """Nobody has published what a polite detach from a host without power does: the lab can do both."""
    before = pair.holder
    pair.lab.aws.settings.dead_detach = "stuck"
    mark = pair.lab.aws.calls.mark()
    try:
        with pair.traffic() as traffic:
            fault = pair.lab.power_cut(before)
            traffic.wait_until_flowing(time.monotonic() + LIMIT, since=fault)
    finally:
        pair.lab.aws.settings.dead_detach = "completes"
    detaches = [call for call in pair.lab.aws.calls.since(mark) if call.action == "DetachNetworkInterface"]
    assert [call.params.get("Force", "false") for call in detaches] == ["false", "true"]
    assert detaches[1].monotonic - detaches[0].monotonic >= 5.0


@pytest.mark.parametrize("way", ["standby", "stop"])
def test_planned_move(pair: Pair, way: str) -> None:
    """A host that goes by plan gives the interface up itself, politely."""
    before = pair.holder
    name = node_name(pair.lab.hosts[before])
    with pair.moves() as moves, pair.traffic() as traffic:
        now = time.monotonic()
        if way == "standby":
            pair.run(before, "crm_standby", "--node", name, "--update", "on")
        else:
            pair.run(before, "systemctl", "stop", "pacemaker", timeout=120)
        moved_to = pair.lab.peer(before)
        pair.wait_holder(moved_to, timeout=LIMIT)
        traffic.wait_until_flowing(time.monotonic() + LIMIT, since=now)
        record = traffic.stop()
    if way == "standby":
        pair.run(before, "crm_standby", "--node", name, "--delete")
    else:
        pair.run(before, "systemctl", "start", "pacemaker", timeout=120)
    assert moves == [moved_to]
    assert len(record.outages) == 1


def test_a_holder_cut_off_from_everything_loses_it_once(pair: Pair) -> None:
    """Nobody can ask it. When it is back it finds the interface gone, and leaves it where it is."""
    before = pair.holder
    with pair.moves() as moves, pair.traffic() as traffic:
        cut = time.monotonic()
        pair.lab.fabric.isolate(before)
        flowing = traffic.wait_until_flowing(cut + LIMIT, since=cut + 1)
        while time.monotonic() < cut + 20:
            time.sleep(0.5)
        pair.lab.fabric.heal()
        pair.wait_sound()
        record = traffic.stop()
    assert moves == [pair.lab.peer(before)]
    assert [outage for outage in record.outages if outage.start > flowing] == []
