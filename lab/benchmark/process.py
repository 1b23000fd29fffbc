# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a process has used, read from /proc."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

TICKS = os.sysconf("SC_CLK_TCK")  # a second


class Usage(NamedTuple):
    """CPU time since the process began in seconds, memory in use and the most that was ever in use in bytes."""

    cpu: float
    memory: int
    peak: int


def usage(pid: int) -> Usage:
    """Of a process of the machine. Raises OSError if there is none."""
    folder = Path("/proc", str(pid))
    return parse((folder / "stat").read_text(), (folder / "status").read_text())


def parse(stat: str, status: str) -> Usage:
    """From the texts of /proc/PID/stat and /proc/PID/status."""
    fields = stat.rpartition(")")[2].split()  # the name in brackets may hold anything
    user, system = int(fields[11]), int(fields[12])
    sizes = dict(line.split(":", 1) for line in status.splitlines() if line.startswith("Vm"))
    return Usage((user + system) / TICKS, _bytes(sizes["VmRSS"]), _bytes(sizes["VmHWM"]))


def _bytes(size: str) -> int:
    number, unit = size.split()
    if unit != "kB":
        raise ValueError(f"a size of /proc is in kB, not in {unit!r}")
    return int(number) * 1024
