# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Corosync's time to detect: as it runs on a host, and as this collection sets it by default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import yaml

from lab.hosts.errors import HostError
from lab.hosts.host import Host
from lab.operator import ROOT

DEFAULTS = ROOT / "roles" / "cluster" / "defaults" / "main.yml"


@dataclass(frozen=True)
class Timings:
    """Milliseconds. What is not given Corosync derives from the token. `knet_ping`: the link's heartbeat."""

    token: int
    consensus: int | None = None
    knet_ping: Mapping[str, int] = field(default_factory=dict)

    def lines(self) -> str:
        """For the section totem of corosync.conf."""
        consensus = f"    consensus: {self.consensus}\n" if self.consensus else ""
        names = {name: name if name == "pong_count" else f"ping_{name}" for name in self.knet_ping}
        pings = "".join(f"        knet_{names[name]}: {value}\n" for name, value in self.knet_ping.items())
        interface = f"    interface {{\n        linknumber: 0\n{pings}    }}\n" if pings else ""
        return f"    token: {self.token}\n{consensus}{interface}"


def defaults_of_the_role() -> Timings:
    """What a pair has that sets nothing. ValueError if the role's defaults are no plain numbers."""
    found = yaml.safe_load(DEFAULTS.read_text())
    return Timings(int(found["cluster_token"]), int(found["cluster_consensus"]) or None, found["cluster_knet_ping"])


def running_on(host: Host) -> dict[str, int]:
    """Token and consensus that Corosync works with now, in milliseconds. HostError."""
    prefix = "runtime.config.totem."
    told = host.run(["corosync-cmapctl", prefix], check=True).stdout
    values = {line.split()[0].removeprefix(prefix): line.rpartition("= ")[2] for line in told.splitlines()}
    try:
        return {f"{name}_ms": int(values[name]) for name in ("token", "consensus")}
    except (KeyError, ValueError) as error:
        raise HostError(f"host {host.key}: corosync-cmapctl told no {error}: {told[:200]}") from error
