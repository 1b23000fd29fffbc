# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Scale: a power cut with many flows in the table: outage, commit, what conntrackd takes, what the replica costs.

One pair. Each run opens its flows, waits until the standby has them all, cuts the holder's power, asks each flow
whether it lives, and lets the lost host rejoin while they do. Sizes take turns.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.account import CLIENT_ADDRESS
from lab.benchmark import counters
from lab.benchmark.contenders.contender import measure
from lab.benchmark.contenders.ours import Ours
from lab.benchmark.crowd import Crowd
from lab.benchmark.figures import delays_of, summary
from lab.benchmark.process import Usage, usage
from lab.benchmark.runs import POWER_CUT
from lab.hosts.errors import HostError
from lab.hosts.host import Host
from lab.hosts.wait import wait_until
from lab.journal import entries
from lab.lab import OUT, Lab, LabError, LabSettings
from lab.report import table
from lab.takeover import fields_of
from lab.vpc.traffic import TrafficError

SIZES = (1_000, 10_000, 100_000, 300_000)
HEADROOM = 2_000  # entries of the kernel's table that are not the crowd's
SYNC_PORT = 3780
STEADY_SECONDS = 10.0  # how long the steady state is watched
REPLICA_LIMIT = 300.0  # seconds until the standby must have every flow
QUIET_LIMIT = 60.0  # seconds until conntrackd must answer after its restart
MIB = 1 << 20


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(api=0.02, detach=0.5, attach=0.5, link=0.2, runs=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), metavar="FLOWS")


def run(options: argparse.Namespace) -> dict[str, Any]:
    began = time.monotonic()

    def say(words: str) -> None:
        print(f"[{time.monotonic() - began:5.0f} s] {words}", flush=True)

    delays = delays_of(options)
    samples: list[dict[str, Any]] = []
    failures: list[str] = []
    with Lab(LabSettings("scale", options.release, delays)) as lab:
        ours = Ours(lab, say)
        say("building the pair")
        ours.build()
        limit = capacity(lab.hosts[lab.holder()])
        for number in range(options.runs):
            for asked in options.sizes:
                size = min(asked, limit)
                say(f"run {number + 1}: {size} flows" + (f" ({asked} do not fit)" if size < asked else ""))
                try:
                    samples.append({"asked": asked, "flows": size, **Trial(ours, say).measure(size)})
                except (HostError, LabError, TrafficError) as error:  # the next run begins on a sound pair
                    failures.append(f"run {number + 1}, {size} flows: {error}")
                    say(failures[-1])
                    ours.restore()
    rows = summarise(samples)
    print("\n" + table([(f"{row['flows']} flows", text_of(row)) for row in rows]))
    return {
        "capacity": {"flows": limit, "held_by": "net.netfilter.nf_conntrack_max of the machine, less some headroom"},
        "sizes": rows,
        "samples": samples,
        "failures": [*failures, *(fault for sample in samples for fault in faults_of(sample))],
    }


# -- what the samples say

SUMMED = (
    "outage_ms",
    "commit_s",
    "fill_s",
    "replicated_s",
    "sync_bytes_per_flow",
    "steady_sync_kbit_s",
    "holder_memory_mib",
    "standby_memory_mib",
    "holder_fill_cpu_s",
    "standby_fill_cpu_s",
    "holder_steady_cpu_percent",
    "standby_steady_cpu_percent",
    "in_kernel",
    "answered",
    "renumbered",
    "rejoin_s",
)


def summarise(samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of each size the median, p95 and n of each figure, and how far the outage is above that of the smallest size."""
    rows = []
    for size in sorted({sample["flows"] for sample in samples}):
        mine = [sample for sample in samples if sample["flows"] == size]
        figures = {name: summary([each[name] for each in mine if each[name] is not None]) for name in SUMMED}
        rows.append({"flows": size, "asked": mine[0]["asked"], **figures})
    for row in rows:
        row["outage_above_smallest_ms"] = row["outage_ms"]["median"] - rows[0]["outage_ms"]["median"]
    return rows


def text_of(row: Mapping[str, Any]) -> str:
    def median(name: str, form: str) -> str:
        return format(row[name]["median"], form) if row[name]["n"] else "?"

    return (
        f"outage {median('outage_ms', '.0f')} ms ({row['outage_above_smallest_ms']:+.0f}), "
        f"commit {median('commit_s', '.3f')} s, answered {median('answered', '.0f')}, "
        f"in the kernel {median('in_kernel', '.0f')}, conntrackd {median('holder_memory_mib', '.0f')} and "
        f"{median('standby_memory_mib', '.0f')} MiB, rejoin {median('rejoin_s', '.1f')} s, n={row['outage_ms']['n']}"
    )


def faults_of(sample: Mapping[str, Any]) -> list[str]:
    """Why a sample is not as it should be."""
    found = []
    if sample["answered"] < sample["flows"]:
        found.append(f"{sample['flows'] - sample['answered']} of {sample['flows']} flows did not live on")
    if sample["long_flows_survived"] < sample["long_flows"]:
        dead = sample["long_flows"] - sample["long_flows_survived"]
        found.append(f"{dead} of {sample['long_flows']} long flows died with {sample['flows']} flows in the table")
    if sample["renumbered"]:
        found.append(f"{sample['renumbered']} of {sample['flows']} flows got another port")
    return found


def replica_size(statistics: str) -> int:
    """How many flows conntrackd has of the other host, from `conntrackd -s`. LabError if it does not tell."""
    _, found, external = statistics.partition("cache external:")
    for line in external.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "current active connections" and value.split():
            return int(value.split()[0])
    raise LabError(f"conntrackd tells no size of its external cache: {statistics[:300] if found else statistics!r}")


def started_with(journal: Iterable[str], since: float) -> dict[str, str]:
    """The fields of the agent's first successful start after a monotonic moment; empty if there is none."""
    for entry in entries(journal):
        facts = fields_of(entry.text)
        if entry.moment > since and facts.get("action") == "start" and facts.get("rc") == "0" and "seconds" in facts:
            return facts
    return {}


def commit_told(journal: Iterable[str], since: float) -> list[str]:
    """What conntrackd logged about commits after a monotonic moment: how many entries the kernel took, and refused."""
    told = [entry.text.rpartition("] ")[2] for entry in entries(journal) if entry.moment > since]
    return [message for message in told if "commit" in message.lower() and "action=" not in message]


def shown(message: str) -> int:
    """How many entries `conntrack -L` says that it has shown."""
    words = message.split()
    return int(words[words.index("flow") - 1])


# -- taking them


def capacity(host: Host) -> int:
    """How many flows of clients fit into a host's table: its limit is the machine's, and no namespace can raise it."""
    limit = host.run(["sysctl", "--values", "net.netfilter.nf_conntrack_max"], check=True).stdout
    return int(limit) - HEADROOM


class Trial:
    """One run on a sound pair; afterwards the pair is sound again, and its tables are empty."""

    def __init__(self, ours: Ours, say: Callable[[str], None]) -> None:
        self._ours, self._say = ours, say
        self._lab = ours.lab
        self._holder = self._lab.hosts[self._lab.holder()]
        self._standby = self._lab.hosts[self._lab.peer(self._lab.holder())]

    def measure(self, flows: int) -> dict[str, Any]:
        """All figures of a run; see SUMMED."""
        self._forget([self._holder, self._standby])
        counters.install(self._lab.fabric.vpc_netns, {"sync": f"udp dport {SYNC_PORT}"})
        with Crowd(self._lab, flows) as crowd:
            filled = self._fill(crowd, flows)
            steady = self._steady()
            peers = crowd.peers()
            cut = self._cut(OUT / "bench-traffic-scale.jsonl")
            answered, renumbered = crowd.answered(), crowd.peers() - peers
            self._say(f"{answered} flows answer, the outage was {cut['outage_ms']} ms")
            rejoin = self._rejoin(flows)
        self._forget([self._standby, self._holder])
        return {**filled, **steady, **cut, "answered": answered, "renumbered": renumbered, "rejoin_s": rejoin}

    def _fill(self, crowd: Crowd, flows: int) -> dict[str, Any]:
        """Open the flows; until the standby has them all."""
        start, before, sync = time.monotonic(), self._usages(), self._sync()
        told = crowd.open()
        opened = time.monotonic()
        if told["udp"] + told["tcp"] != flows:
            raise LabError(f"of {flows} flows only {told['udp']} (UDP) and {told['tcp']} (TCP) were answered")
        self._wait_for_replica(self._standby, flows)
        replicated, after = time.monotonic(), self._usages()
        sent = self._sync().since(sync)
        holder, standby = after
        return {
            "fill_s": round(told["opened"], 2),
            "replicated_s": round(replicated - opened, 2),
            "filled_s": round(replicated - start, 2),
            "sync_bytes_per_flow": round(sent.bytes / flows, 1),
            "sync_packets": sent.packets,
            "holder_memory_mib": round(holder.memory / MIB, 1),
            "standby_memory_mib": round(standby.memory / MIB, 1),
            "holder_fill_cpu_s": round(holder.cpu - before[0].cpu, 2),
            "standby_fill_cpu_s": round(standby.cpu - before[1].cpu, 2),
        }

    def _steady(self) -> dict[str, Any]:
        """The flows live, and none comes or goes."""
        start, before, sync = time.monotonic(), self._usages(), self._sync()
        time.sleep(STEADY_SECONDS)  # the window is what is measured
        seconds = time.monotonic() - start
        percent = [round(100 * (now.cpu - then.cpu) / seconds, 1) for then, now in zip(before, self._usages())]
        return {
            "steady_sync_kbit_s": round(self._sync().since(sync).bytes * 8 / 1000 / seconds, 2),
            "holder_steady_cpu_percent": percent[0],
            "standby_steady_cpu_percent": percent[1],
        }

    def _cut(self, record: Path) -> dict[str, Any]:
        """The power cut under the client's eyes, and what the new holder has then."""
        moment = time.monotonic()
        seen = measure(self._ours, POWER_CUT, record)
        survivor = self._standby
        journal = survivor.run(["journalctl", "--output=json", "--boot"], timeout=120, check=True).stdout.splitlines()
        start = started_with(journal, moment)
        listed = survivor.run(
            ["sh", "-c", f"conntrack -L --orig-src {CLIENT_ADDRESS} >/dev/null"], timeout=120, check=True
        )
        long_flows = {"long_flows": seen.pop("flows"), "long_flows_survived": seen.pop("flows_survived")}
        return {
            **seen,
            **long_flows,
            "start": start,
            "committed": int(start["flows"]) if "flows" in start else None,
            "commit_s": float(start["commit"]) if "commit" in start else None,
            "commit_told": commit_told(journal, moment),
            "in_kernel": shown(listed.stderr),
        }

    def _rejoin(self, flows: int) -> float:
        """Power for the lost host; seconds until it is a member again and has every flow."""
        start = time.monotonic()
        self._ours.restore()
        self._wait_for_replica(self._holder, flows)
        return round(time.monotonic() - start, 1)

    def _forget(self, hosts: Sequence[Host]) -> None:
        """Empty tables and caches: conntrackd starts anew, since it does not give back memory that it had once."""
        for host in hosts:
            host.run(["conntrack", "--flush"], timeout=60, check=True)
        for host in hosts:
            host.run(["systemctl", "restart", "conntrackd.service"], timeout=60, check=True)
        for host in hosts:
            wait_until(
                f"conntrackd answers on {host.key}",
                lambda host=host: host.run(["conntrackd", "-s"]).returncode == 0,  # type: ignore[misc]
                QUIET_LIMIT,
                lambda: "an error",
                interval=0.2,
            )

    def _wait_for_replica(self, host: Host, flows: int) -> None:
        """Wait until conntrackd of a host has so many flows of the other one."""
        seen = "no answer"

        def has_all() -> bool:
            nonlocal seen
            try:
                size = replica_size(host.run(["conntrackd", "-s"], check=True).stdout)
            except HostError as error:
                seen = str(error)
                return False
            seen = f"{size} flows"
            return size >= flows

        wait_until(f"{host.key} has {flows} flows of the other", has_all, REPLICA_LIMIT, lambda: seen, interval=0.2)

    def _usages(self) -> tuple[Usage, Usage]:
        """What conntrackd has used on the holder and the standby of the run's beginning."""
        holder, standby = (usage(host.daemon_pid("conntrackd")) for host in (self._holder, self._standby))
        return holder, standby

    def _sync(self) -> counters.Count:
        return counters.read(self._lab.fabric.vpc_netns)["sync"]
