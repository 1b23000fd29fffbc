# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pure: the runs of the takeover benchmark, summed up, and what a record of them lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lab.benchmark.figures import summary

POWER_CUT, FREEZE, SWITCHOVER = "power cut", "freeze", "switchover"
FAULTS = (POWER_CUT, FREEZE, SWITCHOVER)


@dataclass(frozen=True)
class Run:
    """One fault of one contender. Times are milliseconds; `error` says why there are none.

    `outages` are (from, to) after the fault; `outage_ms` is their sum, and what was given instead of measured is not
    in it. `moved`: whether another host serves afterwards.
    """

    contender: str
    fault: str
    number: int
    date: str
    outage_ms: int | None = None
    outages: tuple[tuple[int, int], ...] = ()
    probes_lost: int = 0
    flows_survived: int = 0
    flows: int = 0
    moved: bool = False
    error: str | None = None


def read(entries: Sequence[Mapping[str, Any]]) -> list[Run]:
    """Runs out of a JSON file. TypeError if they are none."""
    return [Run(**{**entry, "outages": tuple(map(tuple, entry["outages"]))}) for entry in entries]


def of(runs: Sequence[Run], contender: str, fault: str) -> list[Run]:
    return [run for run in runs if (run.contender, run.fault) == (contender, fault)]


def sums(runs: Sequence[Run], contenders: Sequence[str], faults: Sequence[str]) -> dict[str, dict[str, Any]]:
    """By contender, by fault: outage (median, p95, n), flows that survived, failed runs."""
    return {name: {fault: _sum(of(runs, name, fault)) for fault in faults} for name in contenders}


def _sum(runs: Sequence[Run]) -> dict[str, Any]:
    good = [run for run in runs if run.outage_ms is not None]
    return {
        "outage_ms": summary([run.outage_ms for run in good if run.outage_ms is not None]),
        "flows_survived": sum(run.flows_survived for run in good),
        "flows": sum(run.flows for run in good),
        "runs_with_all_flows": sum(1 for run in good if run.flows and run.flows_survived == run.flows),
        "moved": sum(1 for run in good if run.moved),
        "failed": len(runs) - len(good),
    }


def above(summed: Mapping[str, Mapping[str, Any]], name: str, peers: Sequence[str]) -> list[str]:
    """Where a contender's median or p95 is above a peer's: a sentence each."""
    found = []
    for fault, own in summed.get(name, {}).items():
        for peer in peers:
            theirs = summed.get(peer, {}).get(fault, {}).get("outage_ms", {})
            for figure in ("median", "p95"):
                if figure in theirs and own["outage_ms"].get(figure, 0) > theirs[figure]:
                    values = f"{own['outage_ms'][figure]} ms, {peer} {theirs[figure]} ms"
                    found.append(f"{fault}: the {figure} of {name} is above that of {peer}: {name} {values}")
    return found


def next_number(runs: Sequence[Run], contender: str, fault: str) -> int:
    """The number of the run that comes next: those in the file count."""
    return max((run.number for run in of(runs, contender, fault)), default=0) + 1


def gaps(record: Mapping[str, Any], contenders: Sequence[str], faults: Sequence[str], wanted: int) -> list[str]:
    """What a record lacks to be complete: a sentence each."""
    found = [f"the record does not say its {key}" for key in ("date", "versions", "delays_s") if not record.get(key)]
    runs = read(record.get("runs", []))
    for name in contenders:
        if not record.get("contenders", {}).get(name, {}).get("steady"):
            found.append(f"{name}: no cost of the steady state")
        for fault in faults:
            here = of(runs, name, fault)
            measured = [run for run in here if run.outage_ms is not None]
            if len(measured) < wanted:
                why = "; ".join(sorted({run.error for run in here if run.error}))
                found.append(f"{name}, {fault}: {len(measured)} of {wanted} runs" + (f" ({why})" if why else ""))
            if any(not run.flows for run in measured):
                found.append(f"{name}, {fault}: a run without flows")
    return found


def unequal_timings(record: Mapping[str, Any], one: str, other: str) -> list[str]:
    """A sentence if two contenders that are to have the same token and consensus have not."""
    contenders = record["contenders"]
    if one not in contenders or other not in contenders:
        return []
    first, second = contenders[one]["settings"], contenders[other]["settings"]
    return [] if first == second else [f"{one} runs with {first}, {other} with {second}: they are to be the same"]


def lost_flows(runs: Sequence[Run], contender: str) -> list[str]:
    """The runs of a contender in which a flow died: a sentence each."""
    return [
        f"{contender}, {run.fault} {run.number}: {run.flows_survived} of {run.flows} flows survived"
        for run in runs
        if run.contender == contender and run.outage_ms is not None and run.flows_survived < run.flows
    ]
