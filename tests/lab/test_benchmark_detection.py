# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What journals tell of the membership, and the tables made of it. No lab is needed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lab.benchmark import grid, releases
from lab.benchmark.grid import Setting, configured
from lab.benchmark.membership import Detection, Doubts, detection, doubts
from lab.journal import Entry, entries

# Journals of Debian 13's Corosync 3.1.9 and Pacemaker 3.0.0, the moments in seconds.
POWER_CUT = [
    (216.96, "corosync", " [KNET  ] link: host: 1 link: 0 is down"),
    (217.40, "corosync", " [TOTEM ] Token has not been received in 750 ms"),
    (
        217.65,
        "corosync",
        " [TOTEM ] A processor failed, forming new configuration: token timed out (1000ms), waiting 500ms.",
    ),
    (218.15, "corosync", " [TOTEM ] A new membership (2.d) was formed. Members left: 1"),
    (218.16, "pacemaker-controld", " notice: Node nat-a state is now lost"),
    (218.24, "pacemaker-controld", " notice: Initiating start operation eni_start_0 locally on nat-b"),
]
FREEZE = [
    (
        10.0,
        "corosync",
        " [MAIN  ] Corosync main process was not scheduled (@1763) for 1204.6211 ms (threshold is 800.0000 ms).",
    ),
    (
        10.1,
        "corosync",
        " [TOTEM ] A processor failed, forming new configuration: token timed out (1000ms), waiting 500ms.",
    ),
    (10.2, "corosync", " [TOTEM ] A new membership (1.15) was formed. Members"),
]


def journal(lines: list[tuple[float, str, str]]) -> list[Entry]:
    return [Entry(*line) for line in lines]


def test_entries_are_read_from_json_and_what_is_no_text_is_left_out() -> None:
    def line(message: Any) -> str:
        return json.dumps({"MESSAGE": message, "SYSLOG_IDENTIFIER": "corosync", "__MONOTONIC_TIMESTAMP": "2500000"})

    assert entries([line("hello"), line([104, 105]), line(None)]) == [Entry(2.5, "corosync", "hello")]


def test_a_power_cut_is_told_from_the_fault_on() -> None:
    found = detection(journal(POWER_CUT), fault=216.65)
    assert found == Detection(pytest.approx(1.0), pytest.approx(1.5), pytest.approx(1.59))


def test_what_was_before_the_fault_is_not_its_detection() -> None:
    assert detection(journal(POWER_CUT), fault=218.2) == Detection(None, None, pytest.approx(0.04))


def test_a_freeze_that_ends_in_time_loses_the_token_and_nobody() -> None:
    assert doubts(journal(FREEZE), 9.0, 11.0) == Doubts(tokens_lost=1, longest_stall_ms=1204.6211)


def test_doubts_count_within_their_time_only() -> None:
    assert doubts(journal(POWER_CUT), 216.0, 219.0) == Doubts(links_down=1, tokens_lost=1, members_left=1)
    assert doubts(journal(POWER_CUT), 217.0, 218.0) == Doubts(tokens_lost=1)
    assert doubts(journal(POWER_CUT), 0.0, 1.0) == Doubts()


CONF = """\
totem {
    version: 2
    token: 1000
    consensus: 500
    interface {
        linknumber: 0
        knet_ping_interval: 200
    }
}

nodelist {
}
"""


def test_a_setting_replaces_all_timers_and_nothing_else() -> None:
    bare = configured(CONF, Setting(3000, 3600))
    assert [line.strip() for line in bare.splitlines() if line.strip()] == [
        "totem {", "token: 3000", "consensus: 3600", "version: 2", "}", "nodelist {", "}",
    ]  # fmt: skip
    again = configured(bare, Setting(500, 300, (200, 1000)))
    assert again.count("token:") == again.count("consensus:") == again.count("linknumber: 0") == 1
    assert "knet_ping_timeout: 1000" in again
    assert configured(again, Setting(3000, 3600)) == bare


def row(**found: Any) -> dict[str, Any]:
    return {"trouble": "idle", "times": 2, "moves": 0, "tokens_lost": 0, "members_left": 0, "links_down": 0, **found}


def test_the_table_shows_moves_where_there_were_any() -> None:
    cut = {"token": 1.0, "membership": 1.5, "start": 1.6}
    calm = {"setting": "1000/500", "troubles": [row(links_down=4)], "cuts": [cut, {**cut, "start": 2.6}]}
    shaky = {"setting": "200/240", "troubles": [row(tokens_lost=3, members_left=1, moves=1)], "cuts": []}
    table = grid.table([calm, shaky]).splitlines()
    assert "| loss to membership, n = 2 | 1.50 s | - |" in table
    assert "| loss to start, n = 2 | 2.10 s | - |" in table
    assert grid.table([]) == "nothing was measured"
    assert "| idle, n = 2 | 0 / 0 / 4 | 3 / 1 / 0, **1 moved** |" in table


def test_a_second_that_was_waited_is_counted_by_release_and_by_who_led() -> None:
    cut = {"release": "bookworm", "membership": 1.5, "survivor_was_dc": True}
    samples = [{**cut, "start": 1.6}, {**cut, "start": 2.6, "survivor_was_dc": False}]
    rows = {(row["release"], row["survivor_was_dc"]): row for row in releases.summarise(samples)}
    assert rows["bookworm", None]["waited"] == rows["bookworm", False]["waited"] == 1
    assert rows["bookworm", True]["waited"] == 0
    assert rows["trixie", None]["start_s"] == {"n": 0}
    assert "| bookworm | no | 1 | 1.50 s | 2.60 s (2.60) | 1 |" in releases.table(list(rows.values()))
