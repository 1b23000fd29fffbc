# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The client's truth: what it writes down is what happened to its packets."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest
from vpc_picture import ELASTIC, FLOATING_INTERFACE, become_nat, with_pair

from lab.vpc import namespaces
from lab.vpc.bulk import BLOCK, content
from lab.vpc.client import BulkFlow, Log
from lab.vpc.fabric import Fabric
from lab.vpc.record import Probe, Record, outages, read, summarise
from lab.vpc.traffic import Traffic, TrafficError, TrafficSettings, patience

NAME = f"traffictest{os.getpid()}"


# --- the record -------------------------------------------------------------------------------------------------------


def probes(pattern: str) -> list[Probe]:
    """One probe each 10 ms, answered after 1 ms ("+") or lost ("-")."""
    return [
        Probe(number, number / 100, number / 100 + 0.001 if sign == "+" else None)
        for number, sign in enumerate(pattern)
    ]


def test_an_outage_lasts_from_the_first_lost_to_the_next_answer() -> None:
    (outage,) = outages(probes("++----++"))
    assert (outage.start, outage.lost) == (0.02, 4)
    assert outage.milliseconds == pytest.approx(41)


def test_short_gaps_are_no_outages() -> None:
    assert outages(probes("+-+--+"), minimum_gap=0.03) == []
    assert len(outages(probes("+-+--+"), minimum_gap=0.01)) == 2


def test_an_outage_may_have_no_end() -> None:
    (outage,) = outages(probes("++-"))
    assert (outage.end, outage.milliseconds) == (None, None)


def test_a_record_is_summed_up(tmp_path: Path) -> None:
    lines = [
        {"t": 1.0, "kind": "start"},
        {"t": 1.0, "kind": "flow", "flow": "echo-1", "event": "open"},
        {"t": 1.0, "kind": "flow", "flow": "download-1", "event": "open"},
        {"t": 1.01, "kind": "udp", "n": 1, "sent": 1.0, "seen": "198.51.100.7:4000"},
        {"t": 1.5, "kind": "mark", "label": "fault"},
        {"t": 3.6, "kind": "lost", "n": 2, "sent": 1.6},
        {"t": 3.7, "kind": "tcp", "start": 2.7, "ok": False, "error": "TimeoutError"},
        {"t": 4.0, "kind": "flow", "flow": "echo-1", "event": "gap", "from": 1.1, "last": 4.0},
        {"t": 4.02, "kind": "udp", "n": 3, "sent": 4.01, "seen": "198.51.100.8:4000"},
        {"t": 4.1, "kind": "tcp", "start": 4.09, "ok": True, "seen": "198.51.100.8:4001"},
        {"t": 4.1, "kind": "flow", "flow": "download-1", "event": "alive", "last": 1.2},
        {"t": 4.2, "kind": "stall", "seconds": 0.07},
        {"t": 4.3, "kind": "end", "cpu": 0.1},
    ]
    file = tmp_path / "record.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"t": 9, "ki')
    record = read(file)
    assert (record.sent, record.lost, record.connects_ok, record.connects_failed) == (3, 1, 1, 1)
    assert [(outage.start, outage.end) for outage in record.outages] == [(1.6, 4.02)]
    assert record.egress_addresses() == ["198.51.100.7", "198.51.100.8"]
    assert record.egress == ((1.01, "198.51.100.7"), (4.02, "198.51.100.8"))
    flows = {flow.name: flow for flow in record.flows}
    assert flows["echo-1"].alive
    assert flows["echo-1"].largest_gap == pytest.approx(2.9)
    assert not flows["download-1"].alive
    assert record.mark("fault") == 1.5
    assert record.stalls[0] == pytest.approx((4.13, 4.2))
    assert record.cpu_seconds == 0.1
    assert json.loads(json.dumps(record.summary()))["outages"][0]["lost"] == 1


def test_a_closed_flow_is_dead() -> None:
    lines = [
        {"t": 1.0, "kind": "flow", "flow": "echo-1", "event": "open"},
        {"t": 1.5, "kind": "flow", "flow": "echo-1", "event": "closed", "last": 1.4, "error": "reset"},
    ]
    (flow,) = summarise(lines).flows
    assert (flow.alive, flow.error) == (False, "reset")


def flow_events(name: str, *moments: float) -> list[dict[str, object]]:
    """A flow that was opened at the first moment and had data at each of them."""
    flow: dict[str, object] = {"kind": "flow", "flow": name}
    opened = [{**flow, "t": moments[0], "event": event} for event in ("opening", "open")]
    return [*opened, *({**flow, "t": moment, "event": "alive", "last": moment} for moment in moments)]


def a_takeover(*flows: list[dict[str, object]], after: str = "198.51.100.7:4000") -> Record:
    """Probes that were answered until 1.0 and from 3.0 to 5.0, seen as `after` then."""
    lines: list[dict[str, object]] = [
        {"t": 0.0, "kind": "start"},
        {"t": 1.0, "kind": "udp", "n": 1, "sent": 1.0, "seen": "198.51.100.7:4000"},
        {"t": 3.0, "kind": "lost", "n": 2, "sent": 1.01},
        {"t": 3.0, "kind": "udp", "n": 3, "sent": 3.0, "seen": after},
        {"t": 5.0, "kind": "udp", "n": 4, "sent": 5.0, "seen": after},
    ]
    return summarise([*lines, *(event for events in flows for event in events)])


def test_a_flow_survives_if_data_came_after_the_takeover() -> None:
    record = a_takeover(flow_events("echo-1", 0.5, 4.5), flow_events("echo-2", 0.5, 0.9))
    assert record.survived() == (2, 3)  # echo-1 and the UDP exchange
    assert record.survived(since=4.8) == (1, 3)
    assert record.summary()["survived"] == 2
    assert record.longest_pause == pytest.approx(1.99)


def test_data_before_the_takeover_is_no_survival_however_late_the_record_ends() -> None:
    lines: list[dict[str, object]] = [
        {"t": 1.0, "kind": "udp", "n": 1, "sent": 1.0, "seen": "198.51.100.7:4000"},
        {"t": 2.0, "kind": "lost", "n": 2, "sent": 1.01},
        *flow_events("echo-1", 0.5, 0.99),
        {"t": 1.4, "kind": "udp", "n": 3, "sent": 1.39, "seen": "198.51.100.7:4000"},
        {"t": 1.5, "kind": "end", "cpu": 0.1},
    ]
    record = summarise(lines)
    assert {flow.name: flow.alive for flow in record.flows} == {"echo-1": True, "udp": True}
    assert record.survived() == (0, 2)  # the record ends too early to tell


def test_nothing_survives_an_outage_without_an_end() -> None:
    lines = [
        {"t": 1.0, "kind": "udp", "n": 1, "sent": 1.0, "seen": "198.51.100.7:4000"},
        *flow_events("echo-1", 0.5, 1.4),
        {"t": 1.5, "kind": "lost", "n": 2, "sent": 1.01},
    ]
    assert summarise(lines).survived() == (0, 2)


def test_a_flow_that_was_never_opened_is_counted_and_dead() -> None:
    opening: dict[str, object] = {"t": 0.1, "kind": "flow", "flow": "echo-1", "event": "opening"}
    record = a_takeover([opening])
    assert record.survived() == (1, 2)


def test_a_udp_exchange_dies_with_its_port() -> None:
    record = a_takeover(after="198.51.100.7:4001")
    (flow,) = record.flows
    assert (flow.alive, flow.error) == (False, "seen as 198.51.100.7:4000, then as 198.51.100.7:4001")
    assert record.survived() == (0, 1)


def test_patience_covers_the_doubling_of_tcp() -> None:
    assert patience(20.0) > 20.0


@pytest.mark.parametrize("offset", [0, 1, BLOCK - 1, BLOCK, 5 * BLOCK + 3])
@pytest.mark.parametrize("length", [0, 1, BLOCK, 3 * BLOCK + 5])
def test_the_content_of_a_download_follows_from_the_offset(offset: int, length: int) -> None:
    assert content(offset, length) == content(0, offset + length)[offset:]


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(content(2 * BLOCK, BLOCK), id="a block is missing"),
        pytest.param(content(0, BLOCK), id="a block comes twice"),
        pytest.param(content(BLOCK, BLOCK - 1) + b"!", id="a byte is wrong"),
    ],
)
def test_wrong_bytes_end_a_download(tmp_path: Path, second: bytes) -> None:
    log = Log(tmp_path / "record.jsonl")
    flow = BulkFlow("bulk", log)
    transport = Mock(spec=asyncio.Transport)
    flow.connection_made(transport)
    flow.data_received(content(0, BLOCK))
    flow.data_received(second)
    log.flush()
    transport.abort.assert_called_once_with()
    (told,) = read(tmp_path / "record.jsonl").flows
    assert (told.alive, told.error) == (False, f"ValueError: wrong data from byte {BLOCK} on")


# --- real packets -----------------------------------------------------------------------------------------------------


@pytest.fixture
def fabric() -> Iterator[Fabric]:
    with Fabric(NAME) as made:
        with_pair(made)
        yield made


def seconds_from_now(seconds: float) -> float:
    return time.monotonic() + seconds


@pytest.mark.root
def test_calm_traffic_loses_nothing_and_costs_little(fabric: Fabric, tmp_path: Path) -> None:
    traffic = Traffic(fabric, tmp_path / "record.jsonl")
    traffic.start(seconds_from_now(10))
    traffic.wait_until_established(seconds_from_now(10))
    record = traffic.stop()
    assert (record.lost, record.outages, record.connects_failed) == (0, (), 0)
    assert record.connects_ok >= 20
    assert record.egress_addresses() == [ELASTIC]
    assert record.survived() == (22, 22)
    seconds = record.probes[-1].sent - record.probes[0].sent
    stalled = sum(end - start for start, end in record.stalls)
    bulk = next(flow for flow in record.flows if flow.name == "bulk")
    assert bulk.arrivals[-1][1] > 0.5 * seconds * 20e6 / 8
    assert record.sent == pytest.approx(seconds * 100, rel=0.05, abs=stalled * 100)
    assert record.cpu_seconds is not None
    assert record.cpu_seconds / seconds < 0.1
    assert namespaces.processes([fabric.namespace("client"), fabric.internet_netns]) == []


@pytest.mark.root
def test_a_move_is_measured(fabric: Fabric, tmp_path: Path) -> None:
    traffic = Traffic(fabric, tmp_path / "record.jsonl")
    traffic.start(seconds_from_now(10))
    traffic.wait_until_flowing(seconds_from_now(5), since=traffic.mark("before"))
    cut = traffic.mark("cut")
    fabric.power_cut("a")
    with pytest.raises(TrafficError, match="no 5 answered probes in a row until"):
        traffic.wait_until_flowing(seconds_from_now(0.5), since=cut)
    fabric.unplug(FLOATING_INTERFACE.id)
    fabric.plug(FLOATING_INTERFACE, "b", "ens6")
    become_nat(fabric.namespace("b"))
    restored = traffic.mark("restored")
    flowing = traffic.wait_until_flowing(seconds_from_now(5), since=cut)
    record = traffic.stop()
    (outage,) = record.since(cut)
    assert outage.end is not None
    # The client's figures are those of the hands that cut and restored, within a few probes.
    assert cut - 0.05 < outage.start < cut + 0.05
    assert outage.end == flowing < restored + 0.1
    assert outage.lost == pytest.approx((outage.end - outage.start) * 100, rel=0.2)
    assert record.egress_addresses() == [ELASTIC]
    assert any(not connect.ok and connect.start > cut - 1 for connect in record.connects)


@pytest.mark.root
def test_long_connections_live_through_a_short_break(fabric: Fabric, tmp_path: Path) -> None:
    settings = TrafficSettings(echo_flows=2, download_flows=2)
    traffic = Traffic(fabric, tmp_path / "record.jsonl", settings=settings)
    traffic.start(seconds_from_now(10))
    traffic.wait_until_open(seconds_from_now(5))
    fabric.isolate("a", from_={"internet"})
    with pytest.raises(TrafficError):
        traffic.wait_until_flowing(seconds_from_now(0.4), since=traffic.mark("break"))
    fabric.heal()
    healed = traffic.mark("healed")
    traffic.wait_for_flows(seconds_from_now(patience(0.4)), since=healed)
    record = traffic.stop()
    assert record.survived() == (6, 6)
    assert all(0.3 < flow.largest_gap < 3 for flow in record.flows)
    assert [round(outage.milliseconds or 0, -2) for outage in record.outages] in ([400.0], [500.0])


@pytest.mark.root
def test_a_dead_connection_is_told(fabric: Fabric, tmp_path: Path) -> None:
    traffic = Traffic(fabric, tmp_path / "record.jsonl")
    traffic.start(seconds_from_now(10))
    traffic.wait_until_open(seconds_from_now(5))
    # Another host without the tables of the first: what the server pushes finds no way back to the client.
    fabric.unplug(FLOATING_INTERFACE.id)
    fabric.plug(FLOATING_INTERFACE, "b", "ens6")
    become_nat(fabric.namespace("b"))
    moved = traffic.mark("moved")
    traffic.wait_until_flowing(seconds_from_now(5), since=moved, probes=200)
    record = traffic.stop()
    alive = {flow.name: flow.alive for flow in record.flows}
    assert not alive["bulk"]
    assert not any(alive[f"download-{number}"] for number in range(1, 11))


@pytest.mark.root
def test_the_client_ends_when_its_parent_is_gone(fabric: Fabric, tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:  # the parent of servers and client, which is killed
        try:
            Traffic(fabric, tmp_path / "record.jsonl").start(seconds_from_now(10))
            time.sleep(60)
        finally:
            os._exit(1)
    spaces = [fabric.namespace("client"), fabric.internet_netns]
    deadline = seconds_from_now(10)
    while len(namespaces.processes(spaces)) < 2:
        assert time.monotonic() < deadline, "the client did not start within 10 s"
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while namespaces.processes(spaces):
        assert time.monotonic() < deadline, "the client went on without its parent"
        time.sleep(0.02)


@pytest.mark.root
def test_the_client_ends_by_itself(fabric: Fabric, tmp_path: Path) -> None:
    traffic = Traffic(fabric, tmp_path / "record.jsonl", settings=TrafficSettings(maximum=0.5))
    traffic.start(seconds_from_now(10))
    with pytest.raises(TrafficError, match="ended with 0"):
        traffic.wait_until_flowing(seconds_from_now(5), since=time.monotonic() + 3)
    assert traffic.stop().lost == 0
