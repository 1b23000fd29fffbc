# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ring breaks while the holder serves, without fencing: nothing moves, and no packet is lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pair import Pair

from lab.cluster import wait_for


@contextmanager
def undisturbed(pair: Pair) -> Iterator[None]:
    """Whatever happens inside, and until the pair is sound again: no move, no packet lost, no connection either."""
    with pair.moves() as moves, pair.traffic() as traffic:
        yield
        pair.wait_sound()
        record = traffic.stop()
    assert moves == []
    assert (record.lost, record.connects_failed) == (0, 0), f"{record.lost} of {record.sent} packets were lost"
    survived, total = record.survived()
    assert survived == total == 22


def sleep_until_alone(pair: Pair, instance_id: str) -> None:
    """Wait until a host's Pacemaker has lost the other: otherwise the fault was none."""
    wait_for(
        f"{instance_id} sees itself alone",
        lambda: len(pair.state(instance_id).online) == 1,
        30,
        lambda: str(pair.state(instance_id)),
    )


def hold(seconds: float, since: float, check: Callable[[], None] = lambda: None) -> None:
    """Let the fault last."""
    while (left := since + seconds - time.monotonic()) > 0:
        check()
        time.sleep(min(left, 1.0))


def test_ring_cut_both_ways(pair: Pair) -> None:
    with undisturbed(pair):
        cut = time.monotonic()
        pair.lab.cut_ring()
        sleep_until_alone(pair, pair.standby)
        hold(35, cut)
        pair.lab.fabric.heal()


def test_ring_cut_one_way(pair: Pair) -> None:
    with undisturbed(pair):
        cut = time.monotonic()
        pair.lab.cut_ring(one_way=True)
        sleep_until_alone(pair, pair.standby)
        hold(20, cut)
        pair.lab.fabric.heal()


def test_holder_frozen_and_thawed(pair: Pair) -> None:
    holder, standby = pair.holder, pair.standby
    with undisturbed(pair):
        frozen = time.monotonic()
        pair.lab.freeze(holder)
        sleep_until_alone(pair, standby)
        hold(12, frozen)
        pair.lab.thaw(holder)


def test_corosync_killed_on_the_holder(pair: Pair) -> None:
    """Its unit brings it back by itself."""
    holder = pair.holder
    with undisturbed(pair):
        old = pair.lab.hosts[holder].daemon_pid("corosync")
        os.kill(old, signal.SIGKILL)
        wait_for(
            "corosync runs again on the holder",
            lambda: pair.lab.hosts[holder].daemon_pid("corosync") != old,
            60,
            lambda: "no new process",
        )


def test_watcher_killed_is_restarted(pair: Pair) -> None:
    standby = pair.standby
    pids = pair.watcher_pids(standby)
    assert pids
    with undisturbed(pair):
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        wait_for(
            "Pacemaker has seen it", lambda: bool(pair.state(standby).failures), 30, lambda: str(pair.state(standby))
        )
        wait_for(
            "a new watcher runs",
            lambda: bool(set(pair.watcher_pids(standby)) - set(pids)),
            30,
            lambda: str(pair.watcher_pids(standby)),
        )
        pair.restore()
