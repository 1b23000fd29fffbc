# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The default timers: a pair that is short of time, or stands still for less than the tolerance, moves nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from pair import Pair
from test_ring import hold

from lab.benchmark.troubles import busy, frozen, hosts_of, paused
from lab.lab import Lab

StandStill = Callable[[Lab, str], AbstractContextManager[None]]
TOLERANCE = 1.0  # seconds for which a whole host may stand still: docs/detection.md
AFTERWARDS = 5.0  # seconds in which a move would begin
LONG_FREEZE = 5.0  # seconds; of user space alone


@pytest.fixture
def busy_for(pytestconfig: pytest.Config) -> float:
    """Seconds for which both cores are busy."""
    return 1800.0 if pytestconfig.getoption("--soak") else 30.0


@pytest.fixture
def freezes(pytestconfig: pytest.Config) -> int:
    """How often each host stands still."""
    return 30 if pytestconfig.getoption("--soak") else 1


@pytest.fixture
def share(pytestconfig: pytest.Config) -> float:
    """Of the time that a host may stand still. A busy machine lengthens a pause: half leaves room for that."""
    return 1.0 if pytestconfig.getoption("--soak") else 0.5


def test_busy_cores_move_nothing(pair: Pair, busy_for: float, pytestconfig: pytest.Config) -> None:
    nice = pytestconfig.getoption("--soak-nice")
    with pair.moves() as moves, busy(hosts_of(pair.lab), busy_for, nice):
        time.sleep(busy_for)
    pair.wait_sound()
    assert moves == []


@pytest.mark.parametrize("role", ["holder", "standby"])
@pytest.mark.parametrize(("stand_still", "length"), [(paused, TOLERANCE), (frozen, LONG_FREEZE)])
def test_a_host_that_stands_still_moves_nothing(
    pair: Pair, freezes: int, share: float, stand_still: StandStill, length: float, role: str
) -> None:
    for _ in range(freezes):
        with pair.moves() as moves:
            began = time.monotonic()
            with stand_still(pair.lab, pair.holder if role == "holder" else pair.standby):
                time.sleep(length * share)
            stood_still = time.monotonic() - began
            hold(AFTERWARDS, time.monotonic())
            pair.wait_sound()
        assert moves == [], f"it stood still for {stood_still:.1f} s"
