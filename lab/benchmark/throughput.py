# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Throughput: what NAT and replication cost, as ratios to plain forwarding on the same way in the same run.

One pair, its cluster in maintenance mode. In each round the holder gets one data path after the other (plain
forwarding, bare connection tracking, ours without and with replication), and each takes the same loads. Absolute
figures are the machine's, which also makes the load: read the ratios. Each is given twice: of what came through in a
second, and of what came through in a CPU second of the load. The second does not see what conntrackd takes, and the
first suffers from everything else that the machine does: where they differ by more than conntrackd, it was busy.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from lab.account import CLIENT_ADDRESS, FLOATING_ADDRESS
from lab.benchmark import counters, datapath
from lab.benchmark.figures import delays_of, summary
from lab.benchmark.process import usage
from lab.hosts.errors import HostError
from lab.hosts.host import Host
from lab.hosts.wait import wait_until
from lab.lab import Lab, LabError, LabSettings
from lab.operator import BUNDLE, ROOT, install_collection
from lab.report import table
from lab.vpc import namespaces, rules
from lab.vpc.fabric import SERVER_ADDRESSES

SERVER = SERVER_ADDRESSES[0]
LOADS = {"bulk": "Gbit/s", "small": "packets/s", "new-flows": "flows/s", "connections": "connections/s"}
RULES_FILE, SWITCHES_FILE = "/etc/evernat/iptables.rules", "/etc/sysctl.d/60-evernat.conf"
LOAD_LIMIT = 60.0  # seconds that a load may take in all
IDLE_LIMIT, IDLE_INTERVAL = 120.0, 0.5  # seconds
IDLE_CPU = 0.02  # seconds of CPU in an interval that are no work


class Comparison(NamedTuple):
    """A variant beside another one under one load; `target` is the ratio that is promised, if one is."""

    load: str
    variant: str
    base: str
    target: float | None


COMPARISONS = (
    Comparison("bulk", "tracking", "forwarding", None),
    Comparison("bulk", "nat", "forwarding", 0.85),
    Comparison("bulk", "replicated", "forwarding", 0.82),
    Comparison("small", "tracking", "forwarding", None),
    Comparison("small", "nat", "forwarding", 0.90),
    Comparison("small", "replicated", "forwarding", None),
    Comparison("new-flows", "tracking", "forwarding", None),
    Comparison("new-flows", "nat", "tracking", 0.90),
    Comparison("new-flows", "replicated", "nat", 0.75),
    Comparison("connections", "tracking", "forwarding", None),
    Comparison("connections", "nat", "tracking", None),
    Comparison("connections", "replicated", "nat", None),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(api=0.02, detach=0.5, attach=0.5, link=0.2, runs=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="how long a load lasts; default: %(default)s")
    parser.add_argument("--flows", type=int, default=100_000, help="new flows in one load; default: %(default)s")


def run(options: argparse.Namespace) -> dict[str, Any]:
    delays = delays_of(options)
    with Lab(LabSettings("throughput", options.release, delays)) as lab:
        install_collection(lab.operator.collections, BUNDLE)
        files = {}
        for variant, replication in (("nat", False), ("replicated", True)):
            switch = json.dumps({"router_replication": replication})
            lab.operator.playbook("evernat.aws.site", "-e", f"@{lab.pair_file}", "-e", switch)
            files[variant] = DataPathFiles.of(lab.hosts[lab.holder()])
        samples = Bench(lab, files).measure(options.runs, options.seconds, options.flows)
    rows = compare(samples)
    print("\n" + table([(name_of(row), ratio_text(row)) for row in rows]))
    return {
        "seconds": options.seconds,
        "flows": options.flows,
        "rates": rates(samples),
        "ratios": rows,
        "samples": samples,
    }


# -- what the samples say


def rate(load: str, done: dict[str, float], arrived: int) -> float:
    """A load's rate in the unit of LOADS: from what the generator says, and how many of its packets arrived."""
    if load == "bulk":
        return done["bytes"] * 8 / done["seconds"] / 1e9
    if load == "connections":
        return done["connections"] / done["seconds"]
    return arrived / done["seconds"]


def rates(samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each load on each variant, the median rate."""
    return [
        {"load": load, "variant": variant, "unit": unit, **summary(values)}
        for load, unit in LOADS.items()
        for variant in datapath.VARIANTS
        if (values := [each["rate"] for each in samples if (each["load"], each["variant"]) == (load, variant)])
    ]


def compare(samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each comparison the ratios, taken within a round: the machine is not the same from minute to minute."""
    rows = []
    for load, variant, base, target in COMPARISONS:
        pairs = [
            (mine, other)
            for mine in samples
            for other in samples
            if mine["round"] == other["round"]
            and (mine["load"], mine["variant"]) == (load, variant)
            and (other["load"], other["variant"]) == (load, base)
        ]
        if pairs:
            ratios = [mine["rate"] / other["rate"] for mine, other in pairs]
            by_cpu = [per_cpu_second(mine) / per_cpu_second(other) for mine, other in pairs]
            row = {"load": load, "variant": variant, "base": base, "target": target, **summary(ratios)}
            rows.append({**row, "least": min(ratios), "most": max(ratios), "by_cpu": summary(by_cpu)})
    return rows


def per_cpu_second(sample: Mapping[str, Any]) -> float:
    """A sample's rate if the load had had a CPU for itself all the time."""
    rate_: float = sample["rate"] * sample["seconds"] / sample["cpu"]
    return rate_


def name_of(row: dict[str, Any]) -> str:
    return f"{row['load']}: {row['variant']} / {row['base']}"


def ratio_text(row: dict[str, Any]) -> str:
    target = f", wanted {row['target']:.2f}" if row["target"] is not None else ""
    by_cpu = f"{row['by_cpu']['median']:.2f} by CPU"
    return f"{row['median']:.2f} ({row['least']:.2f} to {row['most']:.2f}, n={row['n']}{target}), {by_cpu}"


# -- taking them


class DataPathFiles(NamedTuple):
    """What the role has written for iptables-restore and for sysctl."""

    rules: str
    switches: str

    @classmethod
    def of(cls, host: Host) -> DataPathFiles:
        return cls(*(host.run(["cat", path], check=True).stdout for path in (RULES_FILE, SWITCHES_FILE)))


class Bench:
    """A pair that `site` built, taken over for the measurement: its cluster is told to look away, for good.

    `files` is what `site` wrote for each of datapath.NATIVE.
    """

    def __init__(self, lab: Lab, files: Mapping[str, DataPathFiles]) -> None:
        self._lab = lab
        self._files = files
        self._hosts = [lab.hosts[instance_id] for instance_id in lab.pair()]
        self._holder = lab.hosts[lab.holder()]
        self._device = rules.device_name(lab.interface().id)
        # The router sends answers that go to the client by way of the host: it has to find the host for them.
        way = f"neighbour replace {CLIENT_ADDRESS} lladdr {lab.interface().mac} dev {self._device} nud permanent"
        namespaces.ip(lab.fabric.vpc_netns, [way])
        maintenance = ["crm_attribute", "--type=crm_config", "--name=maintenance-mode", "--update=true"]
        self._holder.run(maintenance, timeout=60, check=True)
        counters.install(lab.fabric.internet_netns, {"arrived": "ip protocol udp"}, drop=True)

    def measure(self, rounds: int, seconds: float, flows: int) -> list[dict[str, Any]]:
        """Every load on every variant, `rounds` times."""
        samples: list[dict[str, Any]] = []
        with self._sink():
            for number in range(rounds):
                for variant in rotated(datapath.VARIANTS, number):
                    self._put(variant)
                    for load in LOADS:
                        done = self._load(load, flows if load == "new-flows" else seconds)
                        samples.append({"round": number, "variant": variant, "load": load, **done})
                        print(f"round {number + 1}: {variant}, {load}: {done['rate']:,.1f} {LOADS[load]}", flush=True)
        return samples

    def _load(self, load: str, amount: float) -> dict[str, Any]:
        """One sample; afterwards the host's table is empty again, and conntrackd has done its work.

        `conntrackd_cpu`: seconds that it took for this load on holder and standby, the end of the flows included.
        """
        cpu = self._conntrackd_cpu()
        internet = self._lab.fabric.internet_netns
        before = counters.read(internet)["arrived"]
        client = self._lab.fabric.namespace("client")
        argv = [*module_in(client, "lab.benchmark.generator"), load, SERVER, str(amount)]
        done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, timeout=LOAD_LIMIT, check=False)
        if done.returncode:
            raise LabError(f"the load {load} failed: {done.stderr.strip()}")
        facts: dict[str, float] = json.loads(done.stdout)
        arrived = counters.read(internet)["arrived"].since(before).packets
        self._holder.run(["conntrack", "--flush"], timeout=60, check=True)
        self._wait_idle()
        spent = [round(now - then, 2) for then, now in zip(cpu, self._conntrackd_cpu(), strict=True)]
        return {"rate": rate(load, facts, arrived), "arrived": arrived, **facts, "conntrackd_cpu": spent}

    def _put(self, variant: str) -> None:
        """Give the holder a data path, and the VPC's router its part of it."""
        native = variant in datapath.NATIVE
        back = FLOATING_ADDRESS if native else CLIENT_ADDRESS
        ruleset = datapath.router_ruleset(self._device, FLOATING_ADDRESS, SERVER_ADDRESSES, back)
        namespaces.nft(self._lab.fabric.vpc_netns, ruleset)
        for host in self._hosts:
            verb = "start" if variant == "replicated" else "stop"
            host.run(["systemctl", verb, "conntrackd.service"], timeout=60, check=True)
        namespaces.nft(self._holder.netns, datapath.bare_ruleset(variant))
        self._holder.run(["sysctl", "--quiet", "net.netfilter.nf_conntrack_events=2"], check=True)  # the kernel's own
        if native:
            rules_text, switches = self._files[variant]
            self._holder.run(["iptables-restore"], input=rules_text, timeout=60, check=True)
            self._holder.run(["sysctl", "--quiet", "--load=-"], input=switches, check=True)
        self._wait_idle()

    def _wait_idle(self) -> None:
        """Wait until conntrackd has nothing to do on either host."""
        cpu = self._conntrackd_cpu()

        def is_idle() -> bool:
            nonlocal cpu
            before, cpu = cpu, self._conntrackd_cpu()
            return all(now - then <= IDLE_CPU for then, now in zip(before, cpu, strict=True))

        what = "conntrackd has done its work on both hosts"
        wait_until(what, is_idle, IDLE_LIMIT, lambda: f"its CPU time in seconds: {cpu}", interval=IDLE_INTERVAL)

    def _conntrackd_cpu(self) -> tuple[float, ...]:
        """CPU seconds since its start on each host, 0 where it does not run; the holder comes first."""
        hosts = sorted(self._hosts, key=lambda host: host is not self._holder)
        return tuple(cpu_of(host, "conntrackd") for host in hosts)

    @contextmanager
    def _sink(self) -> Iterator[None]:
        argv = [*module_in(self._lab.fabric.internet_netns, "lab.benchmark.sink"), SERVER]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise LabError("the sink did not start")
            yield  # at the end of the block its standard input is closed


def module_in(namespace: str, module: str) -> list[str]:
    """The start of a command that runs a module of this folder inside a namespace; its directory must be ROOT."""
    return ["ip", "netns", "exec", namespace, sys.executable, "-m", module]


def cpu_of(host: Host, daemon: str) -> float:
    """CPU seconds that a daemon has used since its start; 0 if the host runs none."""
    try:
        return usage(host.daemon_pid(daemon)).cpu
    except HostError:
        return 0.0


def rotated(variants: Sequence[str], number: int) -> list[str]:
    """Another one first in each round: none has always the same predecessor's traces to suffer from."""
    first = number % len(variants)
    return [*variants[first:], *variants[:first]]
