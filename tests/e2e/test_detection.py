# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The default timers: a pair that is short of time, or stands still for less than the tolerance, moves nothing."""

from __future__ import annotations

import time

import pytest
from pair import Pair

from lab.benchmark.troubles import busy, frozen, hosts_of, paused

TOLERANCE = 1.0  # seconds for which a whole host may stand still: docs/detection.md
LONG_FREEZE = 5.0  # seconds; of user space alone, which may stand still for any time


@pytest.fixture
def busy_for(pytestconfig: pytest.Config) -> float:
    """Seconds for which both cores are busy."""
    return 1800.0 if pytestconfig.getoption("--soak") else 30.0


@pytest.fixture
def freezes(pytestconfig: pytest.Config) -> int:
    """How often each host stands still."""
    return 30 if pytestconfig.getoption("--soak") else 1


def role_of(pair: Pair, role: str) -> str:
    return pair.holder if role == "holder" else pair.standby


def test_busy_cores_move_nothing(pair: Pair, busy_for: float, pytestconfig: pytest.Config) -> None:
    nice = pytestconfig.getoption("--soak-nice")
    with pair.moves() as moves, busy(hosts_of(pair.lab), busy_for, nice):
        time.sleep(busy_for)
    pair.wait_sound()
    assert moves == []


@pytest.mark.parametrize("role", ["holder", "standby"])
def test_a_host_that_stands_still_for_less_than_the_tolerance_moves_nothing(
    pair: Pair, freezes: int, role: str
) -> None:
    for _ in range(freezes):
        with pair.moves() as moves:
            with paused(pair.lab, role_of(pair, role)):
                time.sleep(TOLERANCE)
            pair.wait_sound()
        assert moves == []


@pytest.mark.parametrize("role", ["holder", "standby"])
def test_user_space_that_stands_still_moves_nothing(pair: Pair, freezes: int, role: str) -> None:
    for _ in range(freezes):
        with pair.moves() as moves:
            with frozen(pair.lab, role_of(pair, role)):
                time.sleep(LONG_FREEZE)
            pair.wait_sound()
        assert moves == []
