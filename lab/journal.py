# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host's journal says. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One line of a journal; `moment` is in monotonic seconds."""

    moment: float
    source: str
    text: str


def entries(lines: Iterable[str]) -> list[Entry]:
    """The entries of `journalctl --output=json` that are text."""
    found = []
    for line in lines:
        entry = json.loads(line)
        text = entry.get("MESSAGE")
        if isinstance(text, str):
            moment = int(entry["__MONOTONIC_TIMESTAMP"]) / 1e6
            found.append(Entry(moment, entry.get("SYSLOG_IDENTIFIER", ""), text))
    return found
