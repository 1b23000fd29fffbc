# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults on purpose: which calls they hit, and how often."""

from __future__ import annotations

import itertools
import random
import threading
from dataclasses import asdict, dataclass
from typing import Any

KINDS = (
    "throttle",  # 503 RequestLimitExceeded, without effect
    "unavailable",  # 503 Unavailable, without effect
    "internal",  # 500 InternalError, without effect
    "error",  # 400 with `code`, without effect
    "hang",  # no effect and no answer for `seconds`, then the connection closes
    "latency",  # `seconds` later than usual
    "drop-before",  # the connection closes, without effect
    "drop-after",  # the connection closes, the call has taken effect
    "garbage",  # an answer that is no XML; the call has taken effect
)
IMDS = "IMDS"  # the action of metadata requests; a fault without an action hits API calls only


@dataclass(frozen=True)
class Fault:
    """One rule. `host` is an instance id or "operator"; `count` is how many calls it hits (None: all)."""

    kind: str
    action: str | None = None
    host: str | None = None
    count: int | None = None
    probability: float = 1.0
    seconds: float = 0.0  # of hang (0: until the client goes) and latency
    code: str = "InternalFailure"  # of error

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"fault kind is {self.kind!r}, not one of {', '.join(KINDS)}")
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability is {self.probability!r}, not between 0 and 1")

    def concerns(self, action: str, host: str) -> bool:
        if self.action is None:
            return action != IMDS and self.host in (None, host)
        return self.action == action and self.host in (None, host)


class Faults:
    """The rules in force, in the order they were added. Each call is hit by each rule at most once."""

    def __init__(self, seed: int | None = None) -> None:
        self._lock = threading.Lock()
        self._rules: dict[int, Fault] = {}
        self._left: dict[int, int] = {}
        self._ids = itertools.count(1)
        self._random = random.Random(seed)

    def add(self, fault: Fault) -> int:
        """Put a rule in force and return its id."""
        with self._lock:
            number = next(self._ids)
            self._rules[number] = fault
            if fault.count is not None:
                self._left[number] = fault.count
            return number

    def remove(self, number: int) -> None:
        with self._lock:
            self._rules.pop(number, None)
            self._left.pop(number, None)

    def clear(self) -> None:
        with self._lock:
            self._rules.clear()
            self._left.clear()

    def listed(self) -> list[dict[str, Any]]:
        """The rules in force, with how many calls each still hits."""
        with self._lock:
            return [
                {"id": number, **asdict(fault), "left": self._left.get(number)} for number, fault in self._rules.items()
            ]

    def hitting(self, action: str, host: str) -> list[Fault]:
        """The faults that this call suffers; their counts go down."""
        with self._lock:
            return [fault for number, fault in list(self._rules.items()) if self._hits(number, fault, action, host)]

    def _hits(self, number: int, fault: Fault, action: str, host: str) -> bool:
        if not fault.concerns(action, host) or self._left.get(number) == 0:
            return False
        if fault.probability < 1 and self._random.random() >= fault.probability:
            return False
        if number in self._left:
            self._left[number] -= 1
        return True
