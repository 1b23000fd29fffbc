# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pure: what a host's journal says of the membership: how often Corosync doubted it, and when a loss was acted upon."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lab.journal import Entry

TOKEN_LOST = "A processor failed, forming new configuration"
MEMBERSHIP = "A new membership ("
LEFT = "Members left:"
LINK_DOWN = re.compile(r"link: host: \d+ link: \d+ is down")
NOT_SCHEDULED = re.compile(r"not scheduled .*?for ([0-9.]+) ms")
START = "Initiating start operation eni_start_0"


@dataclass(frozen=True)
class Doubts:
    """What Corosync reported while both hosts lived: each is a false alarm of its own severity, mildest first."""

    links_down: int = 0
    tokens_lost: int = 0
    members_left: int = 0
    longest_stall_ms: float = 0.0  # Corosync's own measure of how long it was not scheduled

    def __add__(self, other: Doubts) -> Doubts:
        return Doubts(
            self.links_down + other.links_down,
            self.tokens_lost + other.tokens_lost,
            self.members_left + other.members_left,
            max(self.longest_stall_ms, other.longest_stall_ms),
        )


@dataclass(frozen=True)
class Detection:
    """From the loss of a host, in seconds after it, to what the survivor did; None for what its journal lacks."""

    token: float | None  # Corosync has waited for the token in vain
    membership: float | None  # the new membership is formed
    start: float | None  # Pacemaker starts the interface here


def doubts(journal: Iterable[Entry], since: float, until: float) -> Doubts:
    """What Corosync reported between two monotonic moments."""
    found = Doubts()
    for entry in journal:
        if entry.source != "corosync" or not since <= entry.moment <= until:
            continue
        stall = NOT_SCHEDULED.search(entry.text)
        found += Doubts(
            links_down=1 if LINK_DOWN.search(entry.text) else 0,
            tokens_lost=1 if TOKEN_LOST in entry.text else 0,
            members_left=1 if MEMBERSHIP in entry.text and LEFT in entry.text else 0,
            longest_stall_ms=float(stall[1]) if stall else 0.0,
        )
    return found


def detection(journal: Sequence[Entry], fault: float) -> Detection:
    """How a survivor's journal tells the loss of the other host at the moment `fault`."""
    after = [entry for entry in journal if entry.moment >= fault]

    def first(source: str, *words: str) -> float | None:
        for entry in after:
            if entry.source == source and all(word in entry.text for word in words):
                return entry.moment - fault
        return None

    return Detection(
        first("corosync", TOKEN_LOST), first("corosync", MEMBERSHIP, LEFT), first("pacemaker-controld", START)
    )
