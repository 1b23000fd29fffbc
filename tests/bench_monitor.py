#!/usr/bin/env python3
# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a monitor of a healthy ENI costs, beside `python3 -c pass`: wall time and memory, median of 50 (as root).

The agent serves in a network namespace against the emulated EC2. Measured are whole processes, from the starter on.
Ends with 1 if a monitor takes more than 60 ms of CPU time (which other work does not lengthen) or 20 MiB.
"""

from __future__ import annotations

import os
import sys
import time

COUNT = 50
CPU_MS_MAX, RSS_MIB_MAX = 60.0, 20.0
PYTHON = "/usr/bin/python3"  # the one that the agent's starters use


def measure(argv: list[str], expected: int) -> list[list[float]]:
    """Wall time, CPU time (ms) and largest resident size (MiB) of each of COUNT runs.

    Runs in a process that imports next to nothing: what its child's size starts from is its own.
    """
    runs = []
    for _ in range(COUNT):
        began = time.perf_counter()
        process = os.posix_spawn(argv[0], argv, os.environ)
        _, status, usage = os.wait4(process, 0)
        wall = time.perf_counter() - began
        if os.waitstatus_to_exitcode(status) != expected:
            raise SystemExit(f"{' '.join(argv)} ended with {os.waitstatus_to_exitcode(status)}, not {expected}")
        runs.append([wall * 1000, (usage.ru_utime + usage.ru_stime) * 1000, usage.ru_maxrss / 1024])
    return runs


def bench() -> dict[str, dict[str, float]]:
    """Medians for a monitor on the holder, a probe on the other host, and Python alone."""
    import json
    import statistics
    from pathlib import Path

    here = Path(__file__).resolve()
    sys.path[:0] = [str(here.parent / "agent"), str(here.parents[1])]
    import agent_world

    with agent_world.world() as world:
        started = world.agent("a", "start")
        if started.returncode:
            raise SystemExit(f"the agent did not start: {started.stderr}")
        cases = {
            "python3 -c pass": ("a", [PYTHON, "-c", "pass"], 0),
            "monitor (healthy)": ("a", [str(world.agents / "eni"), "monitor"], 0),
            "probe (not here)": ("b", [str(world.agents / "eni"), "monitor"], 7),
        }
        results = {}
        for name, (host, argv, expected) in cases.items():
            inner = [PYTHON, "-I", "-S", __file__, "--measure", str(expected), *argv]
            runs = json.loads(world.in_host(host, *inner, env=world.environ(), timeout=120).stdout)
            medians = map(statistics.median, zip(*runs))
            results[name] = dict(zip(("wall_ms", "cpu_ms", "rss_mib"), medians))
        return results


def main() -> int:
    if sys.argv[1:2] == ["--measure"]:
        print(measure(sys.argv[3:], int(sys.argv[2])))
        return 0
    results = bench()
    print(f"{'median of ' + str(COUNT):24}{'wall ms':>10}{'CPU ms':>10}{'RSS MiB':>10}")
    for name, cost in results.items():
        print(f"{name:24}{cost['wall_ms']:10.1f}{cost['cpu_ms']:10.1f}{cost['rss_mib']:10.1f}")
    monitor = results["monitor (healthy)"]
    return int(monitor["cpu_ms"] > CPU_MS_MAX or monitor["rss_mib"] > RSS_MIB_MAX)


if __name__ == "__main__":
    sys.exit(main())
