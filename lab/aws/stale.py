# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads that lag behind: for each Describe that was ever made, what its answer was at every moment.

EC2 is eventually consistent. A question asked for the first time has no history here, and is answered truly.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from lab.aws.world import World

MOST_QUESTIONS = 64
KEPT = 120.0  # seconds of history

Key = tuple[str, tuple[tuple[str, str], ...]]


class Memory:
    """The answers to known questions over time. It does nothing while `stale_reads` is 0."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._guard = threading.Lock()
        self._questions: OrderedDict[Key, tuple[Callable[[], Any], list[tuple[float, Any]]]] = OrderedDict()

    def key(self, service: str, parameters: Mapping[str, str]) -> Key | None:
        """What identifies a question, None while reads are not stale."""
        if self._world.settings.stale_reads <= 0:
            return None
        return service, tuple(sorted(parameters.items()))

    def clear(self) -> None:
        with self._guard:
            self._questions.clear()

    def read(self, key: Key, ask: Callable[[], Any]) -> Any:
        """The answer of `stale_reads` seconds ago, as far as it is known."""
        answer = ask()
        now = time.monotonic()
        moment = now - self._world.settings.stale_reads
        with self._guard:
            _, history = self._questions.setdefault(key, (ask, []))
            self._questions.move_to_end(key)
            while len(self._questions) > MOST_QUESTIONS:
                self._questions.popitem(last=False)
            known = [old for told, old in history if told <= moment]
            first = history[0][1] if history else answer
            history.append((now, answer))
            del history[: sum(1 for told, _ in history if told < now - KEPT)]
        return known[-1] if known else first

    def remember(self) -> None:
        """A write is about to happen: note how things are, for every known question."""
        if self._world.settings.stale_reads <= 0:
            return
        with self._guard:
            questions = [(ask, history) for ask, history in self._questions.values()]
        for ask, history in questions:
            answer = ask()
            with self._guard:
                history.append((time.monotonic(), answer))
