# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The phases of a move of the interface, read from the journals of the hosts that lost it and took it. Pure.

Corosync tells when the lost host was out of the membership, Pacemaker when it had an action carried out, the agent's
lines when it asked EC2 for what. Moments are monotonic seconds: the hosts and the client share one machine's clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from lab.journal import entries
from lab.report import Phase

PHASES = ("describe", "detach", "attach", "link", "connections", "configure")
FIELD = re.compile(r"(\w+)=(\"[^\"]*\"|\S*)")
MEMBERSHIP = re.compile(r"\[QUORUM\] Members\[\d+\]")
REQUESTED = re.compile(r"Requesting local execution of (start|stop) operation for eni ")


@dataclass(frozen=True)
class StartRecord:
    """One successful start of the agent: when it began and ended (monotonic seconds), and its phases in seconds.

    membership: the last change of Corosync's membership before it. requested: when Pacemaker had the agent started.
    moving: when the agent turned to EC2. None where the journal does not tell.
    """

    began: float
    ended: float
    phases: dict[str, float]
    forced: bool
    membership: float | None = None
    requested: float | None = None
    moving: float | None = None

    @property
    def attaching(self) -> float:
        """When EC2 was asked to attach."""
        return self.ended - sum(self.phases.get(name, 0.0) for name in PHASES[PHASES.index("attach") :])

    @property
    def detaching(self) -> float:
        """When EC2 was asked to detach, or the detach by another was first seen; `attaching` if there was none."""
        return self.attaching - self.phases.get("detach", 0.0)


@dataclass(frozen=True)
class StopRecord:
    """One stop of the agent: when Pacemaker had it started, asked EC2 to detach (None: it did not), and ended."""

    requested: float
    detaching: float | None
    ended: float


def fields_of(line: str) -> dict[str, str]:
    """The key=value pairs of a log line."""
    return {key: value.strip('"') for key, value in FIELD.findall(line)}


def starts_in(journal: Iterable[str]) -> list[StartRecord]:
    """The agent's successful starts in `journalctl --output=json` lines."""
    records = []
    membership = requested = moving = None
    for entry in entries(journal):
        moment, message = entry.moment, entry.text
        facts = fields_of(message)
        if MEMBERSHIP.search(message):
            membership = moment
        elif REQUESTED.search(message):
            requested, moving = moment, None
        elif facts.get("action") == "start" and facts.get("event") == "decision" and "at" in facts and moving is None:
            moving = moment - float(facts["at"])
        elif facts.get("action") == "start" and facts.get("rc") == "0" and "seconds" in facts:
            spans = {name: float(facts[name]) for name in PHASES if name in facts}
            began, forced = moment - float(facts["seconds"]), facts.get("forced") == "true"
            records.append(StartRecord(began, moment, spans, forced, membership, requested, moving))
            requested = moving = None
    return records


def stops_in(journal: Iterable[str]) -> list[StopRecord]:
    """The agent's stops, as Pacemaker asked for them, in `journalctl --output=json` lines."""
    records = []
    requested = detaching = None
    for entry in entries(journal):
        moment, message = entry.moment, entry.text
        facts = fields_of(message)
        if REQUESTED.search(message):
            requested, detaching = moment, None
        elif facts.get("action") == "stop" and facts.get("step") == "detach":
            detaching = moment
        elif facts.get("action") == "stop" and facts.get("rc") == "0" and requested is not None:
            records.append(StopRecord(requested, detaching, moment))
            requested = detaching = None
    return records


def phases_after(fault: float, start: StartRecord, first_answer: float) -> list[Phase]:
    """A takeover from the fault to the first packet answered, in seconds after the fault.

    detection: until the lost host is out of the membership. transition: until Pacemaker has the agent started. agent:
    its processes, until it turns to EC2. guard: what the question to the silent holder took beyond the describe.
    """
    membership = start.membership if start.membership is not None and start.membership > fault else None
    moving = start.moving if start.moving is not None else start.began
    requested = start.requested or start.began
    marks = [("detection", membership or requested), ("transition", requested), ("agent", moving)]
    marks += [("describe", moving + start.phases.get("describe", 0.0)), ("guard", start.detaching)]
    return _phases(fault, [*marks, ("detach", start.attaching), *_arrival(start), ("first packet", first_answer)])


def phases_of_switchover(
    asked: float, stop: StopRecord, start: StartRecord, first_lost: float, first_answer: float
) -> list[Phase]:
    """A planned move from its asking to the first packet answered, in seconds after the asking.

    transition: until Pacemaker has the holder's agent started. stop: until EC2 is asked to detach. detach: until the
    client's first lost packet, the link having left. hand-over: until the new holder asks to attach it.
    """
    marks = [("transition", stop.requested), ("stop", stop.detaching or first_lost), ("detach", first_lost)]
    return _phases(asked, [*marks, ("hand-over", start.attaching), *_arrival(start), ("first packet", first_answer)])


def _arrival(start: StartRecord) -> list[tuple[str, float]]:
    """The ends of the phases from attach on."""
    ends, moment = [], start.attaching
    for name in PHASES[PHASES.index("attach") :]:
        if name in start.phases:
            moment += start.phases[name]
            ends.append((name, moment))
    return ends


def _phases(zero: float, ends: list[tuple[str, float]]) -> list[Phase]:
    """Phases that follow each other, each from the end of the one before; one that ended before that took no time."""
    phases, moment = [], 0.0
    for name, end in ends:
        phases.append(Phase(name, moment, max(end - zero, moment)))
        moment = phases[-1].end
    return phases
