# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the demo says of connections: pure, so without root."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lab.demo import Takeover, connections, download_dots, faults_of
from lab.operator import PlaybookRun
from lab.takeover import StartRecord
from lab.vpc.record import Flow, Record, summarise

ELASTIC = "198.51.100.7"


def a_record(port_after: int) -> Record:
    """An outage from 1.0 to 3.0, and what the server saw as the client's port after it."""
    return summarise(
        [
            {"t": 0.9, "kind": "udp", "n": 1, "sent": 0.9, "seen": f"{ELASTIC}:4000"},
            {"t": 3.0, "kind": "lost", "n": 2, "sent": 1.0},
            {"t": 3.0, "kind": "udp", "n": 3, "sent": 2.99, "seen": f"{ELASTIC}:{port_after}"},
            {"t": 3.1, "kind": "udp", "n": 4, "sent": 3.09, "seen": f"{ELASTIC}:{port_after}"},
        ]
    )


def a_takeover(record: Record) -> Takeover:
    return Takeover(0.95, "i-a", "i-b", 1, StartRecord(2.0, 2.9, {}, False), record)


@pytest.mark.parametrize(("port_after", "faults"), [(4000, []), (4001, ["1 of 1 connections died"])])
def test_a_connection_that_died_fails_the_demo(port_after: int, faults: list[str]) -> None:
    second = PlaybookRun(0, "", Path("site.log"), 1.0)
    assert faults_of([a_takeover(a_record(port_after))], ELASTIC, second) == faults


def test_connections_are_told_in_one_line() -> None:
    assert connections(a_record(4000)) == "1 of 1 survived, longest pause 2.0 s"
    assert connections(a_record(4001)) == "0 of 1 survived, longest pause 0.0 s"


def test_the_picture_lasts_until_every_connection_goes_on() -> None:
    flow = Flow("bulk", 0.1, 5.0, ((1.0, 4.95),), True, None)
    record = a_record(4000)
    assert a_takeover(record).recovered == pytest.approx(3.0 - 0.95)
    assert a_takeover(replace(record, flows=(*record.flows, flow))).recovered == pytest.approx(4.95 - 0.95)


def test_the_pause_of_a_download_is_drawn() -> None:
    arrivals = ((10.0, 100), (10.1, 200), (10.6, 300))
    dots = download_dots(Flow("bulk", 9.9, 10.6, (), True, None, arrivals), fault=10.0)
    assert [moment for moment, good in sorted(dots) if good] == pytest.approx([0.0, 0.1, 0.6])
    assert [moment for moment, good in sorted(dots) if not good] == pytest.approx([0.2, 0.3, 0.4])
