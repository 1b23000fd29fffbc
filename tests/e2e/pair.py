# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A built pair as the end-to-end tests see it: what the cluster says, what moved, what the client's packets did."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab.benchmark.scale import replica_size
from lab.cluster import ClusterState, crm_mon, node_name, state_of, told_by, wait_for
from lab.lab import Lab, LabSettings
from lab.operator import BUNDLE, install_collection
from lab.vpc.traffic import Traffic


class Pair:
    """The pair that `site` built on a lab."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    @property
    def holder(self) -> str:
        return self.lab.holder()

    @property
    def standby(self) -> str:
        return self.lab.peer(self.holder)

    def run(self, instance_id: str, *argv: str, timeout: float = 60, check: bool = True) -> str:
        """Run a command on a host; returns what it printed."""
        return self.lab.hosts[instance_id].run(list(argv), timeout=timeout, check=check).stdout

    def state(self, instance_id: str) -> ClusterState:
        """Raises HostError if the host's Pacemaker does not answer."""
        return state_of(self.lab.hosts[instance_id])

    def restore(self) -> None:
        """End every fault, wait until both hosts are members again, forget the failures, as an operator would."""
        self.lab.heal()
        first, second = self.lab.pair()
        wait_for(
            "both hosts are members",
            lambda: len(self.state(first).online) == len(self.state(second).online) == 2,
            60,
            lambda: str(self._states()),
        )
        if self.state(first).failures:
            self.run(first, "crm_resource", "--cleanup", timeout=90)

    def wait_sound(self, timeout: float = 90) -> None:
        """Wait until both hosts agree that both are online, one has the ENI, and nothing failed."""

        def sound() -> bool:
            return all(self.state(instance_id).is_sound() for instance_id in self.lab.pair())

        wait_for("the pair is sound on both hosts", sound, timeout, lambda: str(self._states()))

    def wait_replicated(self, timeout: float = 90) -> None:
        """Wait until each host says that it has all connections of the other one."""

        def told() -> str:
            queries = (("attrd_updater", "--name", "replica", "--query"), ("cat", "/run/evernat-replica"))
            return "; ".join(self.run(host, *query, check=False) for host in self.lab.pair() for query in queries)

        def whole() -> bool:
            return told().count('value="1"') == 2 and all(
                self.run(host, "cat", "/run/evernat-replica", check=False) == "1" for host in self.lab.pair()
            )

        wait_for("both hosts have the other one's connections", whole, timeout, told)

    def replica(self, instance_id: str) -> int:
        """How many connections of the other host conntrackd keeps on this one."""
        return replica_size(self.run(instance_id, "conntrackd", "-s"))

    def wait_holder(self, instance_id: str, timeout: float) -> None:
        """Wait until AWS says that this instance holds the ENI."""

        def attachment() -> str:
            return str(self.lab.interface().attachment)

        def held() -> bool:
            now = self.lab.interface().attachment
            return now is not None and now.status == "attached" and now.instance_id == instance_id

        wait_for(f"{instance_id} holds the ENI", held, timeout, attachment)

    def link_of_eni(self, instance_id: str) -> dict[str, Any] | None:
        """The host's link with the ENI's MAC, as `ip -json address` shows it."""
        mac = self.lab.interface().mac
        links = json.loads(self.run(instance_id, "ip", "-json", "address"))
        return next((link for link in links if link.get("address") == mac), None)

    def last_stop(self, instance_id: str) -> int | None:
        """The code of the ENI's last stop on a host, if that was its last operation there."""
        root = crm_mon(self.lab.hosts[instance_id], "--include=operations")
        name = node_name(self.lab.hosts[instance_id])
        node = root.find(f"./node_history/node[@name='{name}']/resource_history[@id='eni']")
        operations = node.findall("operation_history") if node is not None else []
        last = max(operations, key=lambda item: int(item.get("call", "0")), default=None)
        return int(last.get("rc", "-1")) if last is not None and last.get("task") == "stop" else None

    def watcher_pids(self, instance_id: str) -> list[int]:
        """The machine's pids of the watcher daemon on a host: what its `start` left behind."""
        return [pid for pid in self.lab.hosts[instance_id].pids() if _command(pid)[-2:] == ["watch", "start"]]

    def _states(self) -> dict[str, str]:
        return {instance_id: told_by(self.lab.hosts[instance_id]) for instance_id in self.lab.pair()}

    @contextmanager
    def moves(self) -> Iterator[list[str]]:
        """Collects the instances that got the ENI while the block ran: successful attaches, from AWS's own log."""
        mark = self.lab.aws.calls.mark()
        moved: list[str] = []
        yield moved
        moved.extend(self.lab.moves_since(mark))

    @contextmanager
    def traffic(self) -> Iterator[Traffic]:
        """The client's traffic, flowing when the block begins. End it with `stop()`, which gives the record."""
        with Traffic(self.lab.fabric, self.lab.state / f"traffic-{time.monotonic_ns()}.jsonl") as traffic:
            traffic.start(time.monotonic() + 20)
            now = time.monotonic()
            traffic.wait_until_flowing(now + 20, since=now, probes=50)
            traffic.wait_until_open(now + 20)
            yield traffic


@contextmanager
def build(settings: LabSettings) -> Iterator[Pair]:
    """A lab with a pair on it, built by the installed collection. Everything is removed at the end."""
    with Lab(settings) as lab:
        install_collection(lab.operator.collections, BUNDLE)
        lab.operator.playbook("evernat.aws.site", "-e", f"@{lab.pair_file}")
        yield Pair(lab)


def _command(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
    except FileNotFoundError:
        return []
