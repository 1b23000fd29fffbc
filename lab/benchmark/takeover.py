# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The takeover beside the peers: outage, flows that survive, cost of standing by.

Every contender has a lab of its own, with the same delays and the same client. They take turns: in each round every
contender meets every fault once. Figures are saved after each run; --resume goes on from there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from lab.benchmark import runs
from lab.benchmark.contenders.clusterlabs import ClusterLabs, ClusterLabsSap
from lab.benchmark.contenders.contender import FREEZE_SECONDS, Contender
from lab.benchmark.contenders.fcknat import FckNat
from lab.benchmark.contenders.floor import Floor
from lab.benchmark.contenders.keepalived import Keepalived
from lab.benchmark.contenders.ours import Ours
from lab.benchmark.figures import delays_of, save
from lab.benchmark.picture import takeover_svg
from lab.benchmark.runs import FAULTS, POWER_CUT, SWITCHOVER, Run
from lab.benchmark.worker import Task, Worker, WorkerError, say
from lab.lab import QUICK_DELAYS, LabError, LabSettings

OURS, CLUSTERLABS, KEEPALIVED, FLOOR = "ours", "clusterlabs", "keepalived", "floor"
CONTENDERS: dict[str, type[Contender]] = {
    OURS: Ours,
    CLUSTERLABS: ClusterLabs,
    "clusterlabs-sap": ClusterLabsSap,
    KEEPALIVED: Keepalived,
    "fck-nat": FckNat,
    FLOOR: Floor,
}
PEERS = [name for name in CONTENDERS if name not in (OURS, FLOOR)]
QUICK_CONTENDERS = (OURS, KEEPALIVED)
QUICK_FAULTS = (SWITCHOVER, POWER_CUT)  # what takes long to put right comes last: nothing follows it
QUICK_STEADY = 5.0  # seconds
BUILD_LIMIT = 900.0  # seconds
BUILDERS = 2  # contenders that are built at the same time
RUN_LIMIT = 600.0
RESTORE_LIMIT = 300.0
GIVE_UP_AFTER = 3  # failures of a contender in a row


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="for CI: one run, two contenders, short delays")
    parser.add_argument(
        "--contenders", type=_names(CONTENDERS), metavar="A,B", help=f"of {', '.join(CONTENDERS)}; default: all"
    )
    parser.add_argument("--faults", type=_names(FAULTS), metavar="A,B", help=f"of {', '.join(FAULTS)}; default: all")
    parser.add_argument("--resume", action="store_true", help="go on with the record in --out up to --runs")
    parser.add_argument(
        "--steady", type=float, default=120.0, metavar="SECONDS", help="window of the steady state; default: 120"
    )
    parser.add_argument("--minutes", type=float, default=600.0, help="begin no new run after so long; default: 600")


def _names(known: Iterable[str]) -> Callable[[str], tuple[str, ...]]:
    """For argparse: names with commas between them, each a known one."""

    def names(text: str) -> tuple[str, ...]:
        found = tuple(name.strip() for name in text.split(","))
        for name in found:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return found

    return names


class Takeover:
    """One run of the benchmark. `record` is what is written; `runs` are its single runs."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.began = time.monotonic()
        self.delays = delays_of(options)
        self.contenders: tuple[str, ...] = options.contenders or tuple(CONTENDERS)
        self.faults: tuple[str, ...] = options.faults or FAULTS
        self.wanted: int = options.runs
        self.runs: list[Run] = []
        self.told: dict[str, Any] = {}
        self._failures: dict[str, int] = dict.fromkeys(self.contenders, 0)
        self._workers: dict[str, Worker] = {}
        self._needs: dict[str, str] = dict.fromkeys(self.contenders, "")  # before its next run: restore, or rebuild
        if options.resume:
            self._load()

    def run(self) -> dict[str, Any]:
        with self._all_workers():
            self._build()
            self._measure_steady_states()
            for name, fault in self.plan():
                self._run_once(name, fault)
                self.save()
        return self.record()

    # --- the record -----------------------------------------------------------------------------------------------

    def record(self) -> dict[str, Any]:
        resumed = {each.fault for each in self.runs}
        faults = [fault for fault in FAULTS if fault in resumed or fault in self.faults]
        summed = runs.sums(self.runs, [*self.told], faults)
        return {
            "n": self.wanted,
            "faults": faults,
            "freeze_s": FREEZE_SECONDS,
            "injected_ms": self.delays.injected_ms,
            "contenders": self.told,
            "summary": summed,
            "ours_above": runs.above(summed, OURS, PEERS),
            "runs": [asdict(each) for each in self.runs],
        }

    def save(self) -> None:
        """After each run, so that a long benchmark can be cut."""
        save(self.options.out, "takeover", self.options.release, self.delays, self.record())
        self.options.out.with_suffix(".svg").write_text(takeover_svg(json.loads(self.options.out.read_text())))

    def _load(self) -> None:
        """What an earlier run measured, if it was at the same delays."""
        if not self.options.out.exists():
            return
        found = json.loads(self.options.out.read_text())
        if found["delays_s"] != asdict(self.delays):
            raise LabError(f"{self.options.out} was measured at other delays ({found['delays_s']}): resume with those")
        self.runs, self.told = runs.read(found["runs"]), found["contenders"]

    # --- what is done ---------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _all_workers(self) -> Iterator[None]:
        with ExitStack() as stack:
            for name in self.contenders:
                settings = LabSettings(f"bench{name.replace('-', '')}", self.options.release, self.delays)
                worker = Worker(Task(name, CONTENDERS[name], settings, self.began))
                stack.callback(worker.end)
                self._workers[name] = worker
            yield

    def _build(self) -> None:
        """Build every contender, some at a time."""
        waiting, building = list(self.contenders), list[str]()
        while waiting or building:
            while waiting and len(building) < BUILDERS:
                building.append(waiting.pop(0))
                self._say(building[-1], "is being built")
                self._workers[building[-1]].ask("build")
            self._built(building.pop(0))

    def _built(self, name: str) -> None:
        kind = CONTENDERS[name]
        try:
            settings = self._workers[name].answer(BUILD_LIMIT)
        except WorkerError as error:
            self._failures[name] = GIVE_UP_AFTER
            self._say(name, f"could not be built: {error}")
            return
        self._say(name, "is built")
        self.told[name] = {
            **self.told.get(name, {}),
            "title": kind.title,
            "how": sys.modules[kind.__module__].__doc__,
            "settings": settings,
            "given": {fault: {"seconds": seconds, "source": source} for fault, (seconds, source) in kind.given.items()},
        }

    def _measure_steady_states(self) -> None:
        window = self.options.steady
        for name in self.contenders:
            if self._is_out(name) or "steady" in self.told.get(name, {}):
                continue
            try:
                self.told[name]["steady"] = self._workers[name].call(window + 60, "steady", window)
                self._say(name, f"standing by costs {self.told[name]['steady']}")
            except WorkerError as error:
                self._say(name, f"the steady state could not be measured: {error}")

    def plan(self) -> Iterator[tuple[str, str]]:
        """Contender and fault of each run that is wanting, round by round, until the time is over."""
        for number in range(1, self.wanted + 1):
            for fault in self.faults:
                for name in self.contenders:
                    if time.monotonic() - self.began > self.options.minutes * 60:
                        self._say("bench", f"{self.options.minutes:g} minutes are over: --resume goes on")
                        return
                    if not self._is_out(name) and runs.next_number(self.runs, name, fault) <= number:
                        yield name, fault

    def _is_out(self, name: str) -> bool:
        return self._failures[name] >= GIVE_UP_AFTER

    def _run_once(self, name: str, fault: str) -> None:
        """One run; whatever goes wrong is its result."""
        number, date = runs.next_number(self.runs, name, fault), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        worker = self._workers[name]
        try:
            self._make_ready(name)
            run = Run(name, fault, number, date, **worker.call(RUN_LIMIT, "measure", fault))
            self._needs[name], self._failures[name] = "restore", 0
        except WorkerError as error:
            run = Run(name, fault, number, date, error=str(error))
            self._needs[name] = "rebuild"  # nobody knows what state the pair is in
            self._failures[name] += 1
        self.runs.append(run)
        self._say(name, f"{fault} {number}: {told(run)}")

    def _make_ready(self, name: str) -> None:
        """Put right what the last run did to a contender. Raises WorkerError."""
        worker = self._workers[name]
        if self._needs[name] == "restore":
            worker.call(RESTORE_LIMIT, "restore")
        elif self._needs[name] == "rebuild":
            self._say(name, "is being built anew")
            worker.restart()
            worker.call(BUILD_LIMIT, "build")

    def _say(self, who: str, words: str) -> None:
        say(self.began, who, words)


def told(run: Run) -> str:
    """A run in a line."""
    if run.outage_ms is None:
        return f"FAILED: {run.error}"
    return f"{run.outage_ms} ms, {run.flows_survived} of {run.flows} flows survived" + (
        "" if run.moved else ", no move"
    )


def table(record: dict[str, Any]) -> str:
    """The summary as aligned text."""
    lines = [f"injected delays of a move: {record['injected_ms']} ms"]
    for fault in record["faults"]:
        lines.append(f"{fault:<22} {'median':>8} {'p95':>8} {'n':>4} {'failed':>7} {'flows survived':>16}")
        for name, sums in record["summary"].items():
            here = sums[fault]
            outage = here["outage_ms"]
            lines.append(
                f"  {name:<20} {outage.get('median', '-'):>8} {outage.get('p95', '-'):>8} {outage['n']:>4} "
                f"{here['failed']:>7} {here['flows_survived']:>9} of {here['flows']:<4}"
            )
    return "\n".join(lines)


def be_quick(options: argparse.Namespace) -> None:
    """What --quick stands for; contenders and faults may be named beside it."""
    vars(options).update(asdict(QUICK_DELAYS), runs=1, steady=QUICK_STEADY)
    options.contenders = options.contenders or QUICK_CONTENDERS
    options.faults = options.faults or QUICK_FAULTS


def run(options: argparse.Namespace) -> dict[str, Any]:
    if options.quick:
        be_quick(options)
    benchmark = Takeover(options)
    record = benchmark.run()
    benchmark.save()
    print("\n" + table(record))
    print("\n".join(record["ours_above"]))
    saved = json.loads(options.out.read_text())
    failures = runs.gaps(saved, benchmark.contenders, benchmark.faults, benchmark.wanted)
    failures += runs.unequal_timings(saved, OURS, CLUSTERLABS) + runs.lost_flows(benchmark.runs, OURS)
    return {**record, "failures": failures}
