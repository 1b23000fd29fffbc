# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does another host hold the ENI and serve? It is asked on the ENI's address, by the primary link."""

from __future__ import annotations

import threading
import time

import host
import icmp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

PROBES, PROBE_INTERVAL = 4, 0.05
ANSWER_HOLDS = 1.0  # seconds for which what was heard, or not, is taken for true


def answers(mac: str, ip: str) -> bool:
    """Whether it answers; its silence takes PROBES * PROBE_INTERVAL seconds. No way to ask counts as silence."""
    try:
        source = host.read_primary(mac)
        return source is not None and icmp.answers(source, ip, PROBES, PROBE_INTERVAL)
    except OSError:
        return False


class EarlyAnswer:
    """Asks in the background from now on: silence takes its time, as do other things that a start waits for."""

    def __init__(self, ask: Callable[[], bool], now: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._now = now
        self._heard: bool | None = None  # None: nothing is known
        self._until = 0.0
        self._thread: threading.Thread | None = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        heard = self._ask()
        self._until = self._now() + ANSWER_HOLDS
        self._heard = heard

    def __call__(self) -> bool:
        """The first time what was asked early, unless that is long ago; then asks anew."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            if self._heard is not None and self._now() < self._until:
                return self._heard
        return self._ask()
