# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A pair on the lab as the benchmarks of detection see it: sound or not, who leads, what its journals say."""

from __future__ import annotations

import time

from lab.benchmark.membership import Detection, Doubts, detection, doubts
from lab.cluster import crm_mon, node_name, state_of, told_by, wait_for
from lab.hosts.host import Host
from lab.journal import Entry, entries
from lab.lab import Lab

SOUND_LIMIT = 120.0  # seconds
SOUND_FOR = 1.0  # seconds; just after a fault each host may still tell of the time before it
TAKEOVER_LIMIT = 180.0  # seconds
CLEANUP_LIMIT = 20.0  # seconds; while the hosts come together again nobody answers, and crm_resource would wait for 60


class Pair:
    """The pair that `site` built. Errors: HostError, LabError."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    @property
    def holder(self) -> str:
        return self.lab.holder()

    @property
    def standby(self) -> str:
        return self.lab.peer(self.holder)

    def hosts(self) -> list[Host]:
        return [self.lab.hosts[instance_id] for instance_id in self.lab.pair()]

    def name(self, instance_id: str) -> str:
        """The host's name in the cluster."""
        return node_name(self.lab.hosts[instance_id])

    def leader(self) -> str:
        """The instance whose controller is the DC. HostError if there is none."""
        found = crm_mon(self.lab.hosts[self.holder]).find("./summary/current_dc")
        name = found.get("name") if found is not None else None
        return next(instance_id for instance_id in self.lab.pair() if self.name(instance_id) == name)

    def restore(self) -> None:
        """End every fault, and wait until the pair is sound."""
        self.lab.heal()
        self.wait_sound()

    def wait_sound(self) -> None:
        """Wait until the pair is sound, and stays so. Once both hosts are members, failures are forgotten."""
        first = self.hosts()[0]
        sound_since: float | None = None

        def stays_sound() -> bool:
            nonlocal sound_since
            states = [state_of(host) for host in self.hosts()]
            attachment = self.lab.interface().attachment
            if all(len(state.online) == 2 for state in states) and states[0].failures:
                first.run(["crm_resource", "--cleanup"], timeout=CLEANUP_LIMIT)
            if not all(state.is_sound() for state in states) or attachment is None or attachment.status != "attached":
                sound_since = None
                return False
            sound_since = sound_since or time.monotonic()
            return time.monotonic() - sound_since > SOUND_FOR

        wait_for("the pair is sound on both hosts", stays_sound, SOUND_LIMIT, self._told)

    def move(self) -> None:
        """A planned move of the interface to the other host."""
        before = self.holder
        name = self.name(before)
        host = self.lab.hosts[before]
        host.run(["crm_standby", "--node", name, "--update", "on"], check=True)
        try:
            self._wait_started(self.lab.peer(before))
        finally:
            host.run(["crm_standby", "--node", name, "--delete"], check=True)

    def power_cut(self) -> Detection:
        """Cut the holder's power; returns when the other has the interface. The holder stays off."""
        before, survivor = self.holder, self.standby
        began = time.time()
        fault = self.lab.power_cut(before)
        self._wait_started(survivor)
        return detection(self._journal(self.lab.hosts[survivor], began), fault)

    def doubts(self, since: float) -> Doubts:
        """What Corosync on both hosts has reported since a monotonic moment."""
        now = time.monotonic()
        found = Doubts()
        for host in self.hosts():
            found += doubts(self._journal(host, time.time() - (now - since)), since, now)
        return found

    def _told(self) -> str:
        return "; ".join(told_by(host) for host in self.hosts())

    def _wait_started(self, instance_id: str) -> None:
        host = self.lab.hosts[instance_id]
        name = self.name(instance_id)

        def has_it() -> bool:
            attachment = self.lab.interface().attachment
            holds = attachment is not None and attachment.instance_id == instance_id
            return holds and state_of(host).eni_on == (name,)

        wait_for(f"{name} has the interface", has_it, TAKEOVER_LIMIT, lambda: told_by(host))

    def _journal(self, host: Host, began: float) -> list[Entry]:
        """A host's journal since a moment of the wall clock."""
        read = ["journalctl", "--quiet", "--output=json", f"--since=@{began - 1:.3f}"]
        return entries(host.run(read, timeout=60, check=True).stdout.splitlines())
