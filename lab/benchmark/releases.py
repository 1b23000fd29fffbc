# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Power cuts on Debian 12 and on Debian 13, in turns: how long each takes from the loss to the start of the interface.

Each release has a lab in a process of its own: a process holds one emulated AWS at a time.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from typing import Any

from lab.benchmark.figures import summary
from lab.benchmark.pair import Pair
from lab.hosts import image
from lab.lab import Delays, Lab, LabSettings, purge
from lab.operator import BUNDLE, install_collection

RELEASES = ("bookworm", "trixie")
WAITED = 0.8  # seconds from the membership to the start: Pacemaker's controller has slept its second
BUILD_LIMIT, CUT_LIMIT = 900.0, 300.0  # seconds

_pair: Pair | None = None  # of this process


def compare(
    runs: int, delays: Delays, variables: list[str], samples: list[dict[str, Any]], save: Callable[[], None]
) -> None:
    """Cut the holder's power until `samples` holds `runs` of each release; `save` is called after each one."""
    names = {release: f"cuts{release}" for release in RELEASES}
    spawn = multiprocessing.get_context("spawn")
    for release in RELEASES:  # not in a worker: its pipes would be open in the image's builder, too
        image.ensure(release)
    workers = {release: ProcessPoolExecutor(1, mp_context=spawn) for release in RELEASES}
    pids = [worker.submit(os.getpid).result() for worker in workers.values()]
    try:
        for release, worker in workers.items():
            worker.submit(_build, LabSettings(names[release], release, delays), variables).result(BUILD_LIMIT)
        for number in range(runs):
            for release, worker in workers.items():
                have = [sample for sample in samples if sample["release"] == release]
                if len(have) > number:
                    continue
                # Half of the time the survivor leads the cluster, half of the time the host that is lost.
                sample = worker.submit(_cut, number % 2 == 0).result(CUT_LIMIT)
                samples.append({"release": release, **sample})
                save()
                print(f"{release} {number + 1}/{runs}: {sample}", flush=True)
    finally:
        for pid in pids:  # whatever it is at: what is left of its lab is removed here
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for worker in workers.values():
            worker.shutdown()
        for name in names.values():
            purge(name)


def summarise(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Pure: figures for each release, and for who led the cluster. Times are seconds."""
    rows = []
    for release in RELEASES:
        for leads in (None, True, False):
            mine = [item for item in samples if item["release"] == release and leads in (None, item["survivor_was_dc"])]
            waits = [item["start"] - item["membership"] for item in mine]
            rows.append(
                {
                    "release": release,
                    "survivor_was_dc": leads,
                    "membership_s": summary([item["membership"] for item in mine]),
                    "start_s": summary([item["start"] for item in mine]),
                    "membership_to_start_s": summary(waits),
                    "waited": sum(wait > WAITED for wait in waits),
                }
            )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Pure: Markdown."""
    lines = [
        "| release | survivor was DC | n | to the membership, median | to the start, median (p95) | a second waited |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row["start_s"]["n"]:
            who = {None: "either", True: "yes", False: "no"}[row["survivor_was_dc"]]
            start, membership = row["start_s"], row["membership_s"]
            lines.append(
                f"| {row['release']} | {who} | {start['n']} | {membership['median']:.2f} s "
                f"| {start['median']:.2f} s ({start['p95']:.2f}) | {row['waited']} |"
            )
    return "\n".join(lines)


# -- in the worker


def _build(settings: LabSettings, variables: list[str]) -> None:
    global _pair
    lab = Lab(settings)
    lab.up()
    _pair = Pair(lab)
    install_collection(lab.operator.collections, BUNDLE)
    extra = [word for variable in variables for word in ("-e", variable)]
    lab.operator.playbook("evernat.aws.site", "-e", f"@{lab.pair_file}", *extra)


def _cut(survivor_leads: bool) -> dict[str, Any]:
    assert _pair is not None
    _pair.restore()
    if (_pair.leader() == _pair.standby) is not survivor_leads:
        _pair.move()
        _pair.restore()
    leads = _pair.leader() == _pair.standby
    detection = _pair.power_cut()
    _pair.restore()
    return {**asdict(detection), "survivor_was_dc": leads, "load": round(os.getloadavg()[0], 1)}
