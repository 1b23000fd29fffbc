# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The phases of a takeover, read from the agent's own log line on the host that took the interface over."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from lab.report import Phase

PHASES = ("describe", "detach", "attach", "link", "configure")
FIELD = re.compile(r"(\w+)=(\"[^\"]*\"|\S*)")


@dataclass(frozen=True)
class StartRecord:
    """One successful start of the agent: when it began and ended (monotonic seconds), and its phases in seconds."""

    began: float
    ended: float
    phases: dict[str, float]
    forced: bool


def fields_of(line: str) -> dict[str, str]:
    """The key=value pairs of a log line."""
    return {key: value.strip('"') for key, value in FIELD.findall(line)}


def starts_in(journal: Iterable[str]) -> list[StartRecord]:
    """The agent's successful starts in `journalctl --output=json` lines."""
    records = []
    for line in journal:
        entry = json.loads(line)
        message = entry.get("MESSAGE")
        if not isinstance(message, str):
            continue
        facts = fields_of(message)
        if facts.get("action") != "start" or facts.get("rc") != "0" or "seconds" not in facts:
            continue
        ended = int(entry["__MONOTONIC_TIMESTAMP"]) / 1e6
        spans = {name: float(facts[name]) for name in PHASES if name in facts}
        began = ended - float(facts["seconds"])
        records.append(StartRecord(began, ended, spans, facts.get("forced") == "true"))
    return records


def phases_after(fault: float, start: StartRecord, first_answer: float) -> list[Phase]:
    """From the fault to the first packet answered, in seconds after the fault.

    What the agent did besides its named phases (process start, reading local state) is shown as `agent`.
    """
    phases = [Phase("detection", 0.0, start.began - fault)]
    moment = start.began - fault
    own = (start.ended - start.began) - sum(start.phases.values())
    if own > 0:
        phases.append(Phase("agent", moment, moment + own))
        moment += own
    for name in PHASES:
        if name in start.phases:
            phases.append(Phase(name, moment, moment + start.phases[name]))
            moment += start.phases[name]
    phases.append(Phase("first packet", moment, max(first_answer - fault, moment)))
    return phases
