# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pure: what the client wrote down, read back and summed up. Times are seconds of the machine's monotonic clock.

The file holds one JSON object a line, with "t" (when it was written) and "kind":
    start, end         the client's run; end has "cpu" (seconds used)
    udp                probe "n", sent at "sent", answered at "t"; "seen": source address and port at the server
    lost               probe "n", sent at "sent", not answered within 2 s
    tcp                new connection begun at "start": "ok", "seen", or "error"
    flow               a long connection "flow": "event" is opening, open, alive (at most once a second; a bulk
                       download ten times, with its "bytes" so far), gap (since "from"), closed ("error"); "last" is
                       when its last data came
    stall              the client itself stood still until "t" for "seconds": then it sent nothing, so nothing was lost
    mark               "label", written by the test
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

MINIMUM_GAP = 0.03  # seconds: shorter gaps are single packets lost, not outages
FLOW_SILENCE = 1.5  # seconds without data after which a long flow counts as dead
FLOW_BEAT = 0.25  # seconds: a shorter outage fits between two messages of a long flow


@dataclass(frozen=True)
class Probe:
    """One UDP packet. `answered` is None when it was lost."""

    number: int
    sent: float
    answered: float | None
    seen: str | None = None


@dataclass(frozen=True)
class Connect:
    """One new TCP connection, with a request and an answer."""

    start: float
    end: float
    ok: bool
    seen: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class Outage:
    """From the first lost probe's sending to the next answer's arrival. `end` is None if no answer came any more."""

    start: float
    end: float | None
    lost: int

    @property
    def milliseconds(self) -> float | None:
        return None if self.end is None else (self.end - self.start) * 1000

    @property
    def is_felt(self) -> bool:
        """Whether it is too long to fit between two messages of a long flow."""
        return self.end is None or self.end - self.start >= FLOW_BEAT


@dataclass(frozen=True)
class Flow:
    """A long TCP connection, or the UDP probes' exchange, which is named "udp".

    `gaps`: silences of at least 0.25 s as (from, to). `error` says how it ended. The UDP exchange is alive only if the
    server saw one source address and port from first to last. `arrivals`: a bulk download's (moment, bytes so far).
    """

    name: str
    opened: float | None
    last_data: float | None
    gaps: tuple[tuple[float, float], ...]
    alive: bool
    error: str | None
    arrivals: tuple[tuple[float, int], ...] = ()

    @property
    def largest_gap(self) -> float:
        return max((end - start for start, end in self.gaps), default=0.0)

    def had_data_after(self, moment: float) -> bool:
        return self.last_data is not None and self.last_data > moment

    def summary(self) -> dict[str, Any]:
        figures = {**asdict(self), "largest_gap": self.largest_gap}
        arrivals = figures.pop("arrivals")
        return {**figures, "bytes": arrivals[-1][1]} if arrivals else figures


@dataclass(frozen=True)
class Record:
    """All that the client saw."""

    probes: tuple[Probe, ...]
    connects: tuple[Connect, ...]
    flows: tuple[Flow, ...]
    outages: tuple[Outage, ...]
    egress: tuple[tuple[float, str], ...]  # (first seen, address), a new entry at each change
    marks: tuple[tuple[float, str], ...]
    stalls: tuple[tuple[float, float], ...]  # (from, to)
    cpu_seconds: float | None = None

    @property
    def sent(self) -> int:
        return len(self.probes)

    @property
    def lost(self) -> int:
        return sum(1 for probe in self.probes if probe.answered is None)

    @property
    def connects_ok(self) -> int:
        return sum(1 for connect in self.connects if connect.ok)

    @property
    def connects_failed(self) -> int:
        return len(self.connects) - self.connects_ok

    def mark(self, label: str) -> float:
        """When the last mark of this label was set. KeyError if there is none."""
        return {name: moment for moment, name in self.marks}[label]

    def since(self, moment: float) -> list[Outage]:
        """The outages that were not over at `moment`."""
        return [outage for outage in self.outages if outage.end is None or outage.end >= moment]

    def survived(self, since: float | None = None) -> tuple[int, int]:
        """How many flows live, and how many there are. Only data after `since` shows life.

        By default that is the end of the last outage long enough to be felt by a flow.
        """
        if since is None:
            ends = [math.inf if outage.end is None else outage.end for outage in self.outages if outage.is_felt]
            since = max(ends, default=-math.inf)
        return sum(1 for flow in self.flows if flow.alive and flow.had_data_after(since)), len(self.flows)

    @property
    def longest_pause(self) -> float:
        """Seconds: the largest gap of the flows that are alive."""
        return max((flow.largest_gap for flow in self.flows if flow.alive), default=0.0)

    def egress_addresses(self) -> list[str]:
        """The addresses that servers saw, without repetition, in order of their first appearance."""
        return list(dict.fromkeys(address for _, address in self.egress))

    def summary(self) -> dict[str, Any]:
        """For JSON: figures without the single packets."""
        return {
            "sent": self.sent,
            "lost": self.lost,
            "outages": [{**asdict(outage), "ms": outage.milliseconds} for outage in self.outages],
            "egress": [{"t": moment, "address": address} for moment, address in self.egress],
            "connects_ok": self.connects_ok,
            "connects_failed": self.connects_failed,
            "flows": [flow.summary() for flow in self.flows],
            "survived": self.survived()[0],
            "marks": [{"t": moment, "label": label} for moment, label in self.marks],
            "stalls": [{"from": start, "to": end} for start, end in self.stalls],
            "cpu_seconds": self.cpu_seconds,
        }


def read(path: Path, minimum_gap: float = MINIMUM_GAP) -> Record:
    """Sum up a record file. A last line that was cut off by a kill is left out."""
    lines = path.read_text().splitlines(keepends=True)
    return summarise([json.loads(line) for line in lines if line.endswith("\n")], minimum_gap)


def summarise(events: Iterable[dict[str, Any]], minimum_gap: float = MINIMUM_GAP) -> Record:
    """`minimum_gap`: seconds; what is shorter is no outage (its lost packets are counted all the same)."""
    events = list(events)
    probes = sorted(map(_probe, _of(events, "udp", "lost")), key=lambda probe: probe.number)
    connects = sorted(map(_connect, _of(events, "tcp")), key=lambda connect: connect.start)
    ends = _of(events, "end")
    last = max((event["t"] for event in events if event["kind"] != "mark"), default=0.0)
    pauses = outages(probes, minimum_gap)
    names = dict.fromkeys(event["flow"] for event in _of(events, "flow"))
    flows = [_flow(name, [event for event in _of(events, "flow") if event["flow"] == name], last) for name in names]
    return Record(
        probes=tuple(probes),
        connects=tuple(connects),
        flows=(*flows, *_exchange(probes, pauses, last)),
        outages=tuple(pauses),
        egress=tuple(_egress(probes, connects)),
        marks=tuple((event["t"], event["label"]) for event in _of(events, "mark")),
        stalls=tuple((event["t"] - event["seconds"], event["t"]) for event in _of(events, "stall")),
        cpu_seconds=ends[-1]["cpu"] if ends else None,
    )


def outages(probes: Iterable[Probe], minimum_gap: float = MINIMUM_GAP) -> list[Outage]:
    """Runs of lost probes that lasted at least `minimum_gap` seconds. Probes are in the order of their sending."""
    found: list[Outage] = []
    start, lost = 0.0, 0
    for probe in probes:
        if probe.answered is None:
            start, lost = (start, lost + 1) if lost else (probe.sent, 1)
        elif lost:
            if probe.answered - start >= minimum_gap:
                found.append(Outage(start, probe.answered, lost))
            lost = 0
    if lost:
        found.append(Outage(start, None, lost))
    return found


def _of(events: Iterable[dict[str, Any]], *kinds: str) -> list[dict[str, Any]]:
    return [event for event in events if event["kind"] in kinds]


def _probe(event: dict[str, Any]) -> Probe:
    answered = event["t"] if event["kind"] == "udp" else None
    return Probe(event["n"], event["sent"], answered, event.get("seen"))


def _connect(event: dict[str, Any]) -> Connect:
    return Connect(event["start"], event["t"], event["ok"], event.get("seen"), event.get("error"))


def _flow(name: str, events: list[dict[str, Any]], last: float) -> Flow:
    opened = next((event["t"] for event in events if event["event"] == "open"), None)
    closed = next((event for event in events if event["event"] == "closed"), None)
    data = [event["last"] for event in events if event.get("last") is not None]
    last_data = max(data, default=opened)
    gaps = tuple((event["from"], event["t"]) for event in events if event["event"] == "gap")
    alive = opened is not None and closed is None and last_data is not None and last - last_data < FLOW_SILENCE
    arrivals = tuple((event["t"], event["bytes"]) for event in events if "bytes" in event)
    return Flow(name, opened, last_data, gaps, alive, closed["error"] if closed else None, arrivals)


def _exchange(probes: list[Probe], pauses: list[Outage], last: float) -> list[Flow]:
    """The UDP probes as a flow: they leave one socket, so a NAT that keeps its state gives them one port for ever."""
    if not probes:
        return []
    answers = [(probe.answered, probe.seen) for probe in probes if probe.answered is not None]
    seen = list(dict.fromkeys(source for _, source in answers))
    last_data = max((moment for moment, _ in answers), default=None)
    gaps = tuple((pause.start, pause.end) for pause in pauses if pause.end is not None and pause.is_felt)
    alive = len(seen) == 1 and last_data is not None and last - last_data < FLOW_SILENCE
    error = f"seen as {', then as '.join(map(str, seen))}" if len(seen) > 1 else None
    return [Flow("udp", probes[0].sent, last_data, gaps, alive, error)]


def _egress(probes: Iterable[Probe], connects: Iterable[Connect]) -> list[tuple[float, str]]:
    sightings = [(probe.answered, probe.seen) for probe in probes if probe.answered is not None and probe.seen]
    sightings += [(connect.end, connect.seen) for connect in connects if connect.seen]
    changes: list[tuple[float, str]] = []
    for moment, seen in sorted(sightings):
        address = seen.rpartition(":")[0]
        if not changes or changes[-1][1] != address:
            changes.append((moment, address))
    return changes
