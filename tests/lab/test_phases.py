# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The phases of a takeover and of a planned move, from journal lines as the hosts write them."""

from __future__ import annotations

import json

import pytest

from lab.report import Phase
from lab.takeover import phases_after, phases_of_switchover, starts_in, stops_in

MEMBERS = "[QUORUM] Members[1]: 2"
START = "Requesting local execution of start operation for eni on nat-b"
STOP = "Requesting local execution of stop operation for eni on nat-a"
STOP_WATCH = "Requesting local execution of stop operation for watch on nat-a"
DETACH = 'event=decision at={at} step=detach state="eni-1 is attached to i-a" attachment_id=eni-attach-1 force=False'
SPANS = "describe=0.110 detach=2.700 attach=0.210 link=2.400 configure=0.010"
STARTED = f"action=start rc=0 eni=eni-1 instance=i-b previous=i-a forced=true {SPANS} seconds=5.600"


def journal(*lines: tuple[float, str]) -> list[str]:
    return [json.dumps({"__MONOTONIC_TIMESTAMP": str(round(at * 1e6)), "MESSAGE": text}) for at, text in lines]


POWER_CUT = journal(
    (90.0, "[QUORUM] Members[2]: 1 2"),
    (102.2, MEMBERS),
    (102.3, START),
    (102.51, f"action=start {DETACH.format(at='0.110')}"),
    (105.3, 'action=start event=decision at=2.900 step=attach state="eni-1 is available" device_index=1'),
    (107.9, STARTED),
)


def spans(phases: list[Phase]) -> dict[str, float]:
    return {phase.name: round(phase.end - phase.start, 3) for phase in phases}


def test_a_takeover_is_told_phase_by_phase_without_a_gap() -> None:
    (start,) = starts_in(POWER_CUT)
    phases = phases_after(100.0, start, 107.93)
    assert spans(phases) == {
        "detection": 2.2,
        "transition": 0.1,
        "agent": 0.1,
        "describe": 0.11,
        "guard": 0.07,
        "detach": 2.7,
        "attach": 0.21,
        "link": 2.4,
        "configure": 0.01,
        "first packet": 0.03,
    }
    assert phases[0].start == 0
    assert all(before.end == after.start for before, after in zip(phases, phases[1:], strict=False))
    assert start.forced


def test_without_the_clusters_lines_detection_lasts_until_the_agent_began() -> None:
    (start,) = starts_in(journal((107.9, STARTED)))
    assert start.membership is None
    assert spans(phases_after(100.0, start, 107.93))["detection"] == 2.3


def test_a_membership_of_before_the_fault_is_not_its_detection() -> None:
    (start,) = starts_in(journal((90.0, MEMBERS), (102.4, START), (107.9, STARTED)))
    assert spans(phases_after(100.0, start, 107.93))["detection"] == 2.4


def test_each_start_has_its_own_moments() -> None:
    again = journal((202.3, START), (207.9, STARTED))
    first, second = starts_in([*POWER_CUT, *again])
    assert (first.requested, second.requested) == (102.3, 202.3)
    assert second.moving is None


def test_starts_that_failed_and_lines_of_others_are_left_out() -> None:
    failed = journal((1.0, "action=start rc=1 reason=x seconds=1.0"), (2.0, "action=stop rc=0 eni=eni-1 seconds=0.2"))
    bytes_message = json.dumps({"__MONOTONIC_TIMESTAMP": "1", "MESSAGE": [104, 105]})
    assert starts_in([*failed, bytes_message]) == []


def test_a_planned_move_is_told_from_its_asking() -> None:
    (stop,) = stops_in(
        journal(
            (50.05, STOP),
            (50.06, STOP_WATCH),
            (50.27, f"action=stop {DETACH.format(at='0.110')}"),
            (52.82, "action=stop rc=0 eni=eni-1 seconds=2.7"),
        )
    )
    (start,) = starts_in(journal((53.4, START), (56.3, STARTED)))
    phases = phases_of_switchover(50.0, stop, start, 52.8, 56.33)
    assert spans(phases) == {
        "transition": 0.05,
        "stop": 0.22,
        "detach": 2.53,
        "hand-over": 0.88,
        "attach": 0.21,
        "link": 2.4,
        "configure": 0.01,
        "first packet": 0.03,
    }


@pytest.mark.parametrize("line", [(60.0, "action=stop rc=0 eni=eni-1 seconds=0.3"), (60.0, STOP)])
def test_a_stop_that_pacemaker_did_not_ask_for_or_that_did_not_end_is_none(line: tuple[float, str]) -> None:
    assert stops_in(journal(line)) == []
