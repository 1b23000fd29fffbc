# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable

from lab.hosts.errors import HostTimeout


def wait_until(
    what: str, holds: Callable[[], bool], timeout: float, last_seen: Callable[[], str], interval: float = 0.02
) -> None:
    """Poll `holds` every `interval` seconds; raises HostTimeout after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not holds():
        if time.monotonic() > deadline:
            raise HostTimeout(f"{what}: not so after {timeout:g} s. Last seen: {last_seen()}")
        time.sleep(interval)
