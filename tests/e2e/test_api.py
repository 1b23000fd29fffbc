# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The EC2 API is down, throttled, hanging, or denies: the holder keeps serving, and a stop tells the truth."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pair import Pair

from lab.aws.faults import Fault
from lab.cluster import node_name, wait_for

TROUBLES = ("down", "throttled", "hanging", "denying")
MONITORS = 200
CHECK = "for i in $(seq {n}); do crm_resource --resource eni --force-check >/dev/null 2>&1; echo $?; done"


@contextmanager
def trouble(pair: Pair, kind: str) -> Iterator[None]:
    """The API is of no use to both hosts. The operator's calls go through."""
    lab = pair.lab
    for instance_id in lab.pair():
        if kind == "down":
            lab.fabric.isolate(instance_id, from_={"api"})
        elif kind == "throttled":
            lab.aws.faults.add(Fault("throttle", host=instance_id))
        elif kind == "hanging":
            lab.aws.faults.add(Fault("hang", host=instance_id, seconds=60))
        else:
            lab.aws.faults.add(Fault("error", host=instance_id, code="UnauthorizedOperation"))
    try:
        yield
    finally:
        lab.heal()


@pytest.mark.parametrize("kind", TROUBLES)
def test_the_holder_keeps_serving(pair: Pair, kind: str, broken_for: float) -> None:
    holder = pair.holder
    with pair.moves() as moves, pair.traffic() as traffic, trouble(pair, kind):
        began = time.monotonic()
        codes = pair.run(holder, "sh", "-c", CHECK.format(n=MONITORS), timeout=300).split()
        while time.monotonic() < began + broken_for:
            assert pair.holder == holder
            time.sleep(1)
        record = traffic.stop()
    assert len(codes) == MONITORS
    assert set(codes) <= {"0", "190"}
    assert moves == []
    assert record.lost == 0, f"{record.lost} of {record.sent} packets were lost"


@pytest.mark.parametrize("kind", TROUBLES)
def test_stop_ends_well_and_leaves_nothing_up(pair: Pair, kind: str) -> None:
    holder = pair.holder
    name = node_name(pair.lab.hosts[holder])
    link = pair.link_of_eni(holder)
    assert link is not None
    with trouble(pair, kind):
        pair.run(holder, "crm_standby", "--node", name, "--update", "on")
        wait_for("the stop has ended", lambda: pair.last_stop(holder) is not None, 90, lambda: str(pair.state(holder)))
        assert pair.last_stop(holder) == 0
        left = pair.link_of_eni(holder)
        if left is not None:  # the detach may be impossible now: then the link is there, but dead
            assert "UP" not in left["flags"]
            assert [address for address in left["addr_info"] if address["family"] == "inet"] == []
    pair.run(holder, "crm_standby", "--node", name, "--delete")
    pair.restore()
    pair.wait_sound(180)


def test_no_call_in_steady_state(pair: Pair, steady_for: float) -> None:
    """Nothing documents a slow check yet, so no host may call EC2 at all."""
    mark = pair.lab.aws.calls.mark()
    with pair.traffic() as traffic:
        time.sleep(steady_for)
        record = traffic.stop()
    calls = [call for call in pair.lab.aws.calls.since(mark) if call.host != "operator"]
    assert [(call.host, call.action) for call in calls] == []
    assert record.lost == 0, json.dumps(record.summary()["outages"])
