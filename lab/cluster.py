# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host's Pacemaker says of the pair, read from `crm_mon`."""

from __future__ import annotations

import contextlib
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass

from lab.hosts.errors import HostError
from lab.hosts.host import Host
from lab.hosts.wait import wait_until


@dataclass(frozen=True)
class ClusterState:
    """One host's view."""

    online: frozenset[str]  # host names
    eni_on: tuple[str, ...]  # host names where it is active
    watchers: int
    failures: tuple[str, ...]

    def is_whole(self) -> bool:
        """Both hosts are members, each with its watcher, and one has the ENI."""
        return len(self.online) == 2 and len(self.eni_on) == 1 and self.watchers == 2

    def is_sound(self) -> bool:
        """Whole, and nothing failed."""
        return self.is_whole() and not self.failures


def state_of(host: Host) -> ClusterState:
    """Ask a host. Raises HostError if it is off or its Pacemaker does not answer."""
    return parse(crm_mon(host))


def node_name(host: Host) -> str:
    """What the cluster calls a host. Raises HostError."""
    return host.run(["crm_node", "--name"], check=True).stdout.strip()


def told_by(host: Host) -> str:
    """What a host's Pacemaker says, or why it says nothing."""
    try:
        return str(state_of(host))
    except HostError as error:
        return str(error)


def wait_for(what: str, holds: Callable[[], bool], timeout: float, last_seen: Callable[[], str]) -> None:
    """Poll `holds`; a host that does not answer yet counts as no. Raises HostTimeout."""

    def answered_and_holds() -> bool:
        with contextlib.suppress(HostError):
            return holds()
        return False

    wait_until(what, answered_and_holds, timeout, last_seen, interval=0.3)


def wait_settled(host: Host, timeout: float) -> None:
    """Wait until Pacemaker has nothing left to do. Raises HostError if it still has after so many seconds."""
    wait = ["crm_resource", "--wait", f"--timeout={timeout:.0f}s"]
    host.run(wait, timeout=timeout + 10, check=True)


def crm_mon(host: Host, *options: str) -> ET.Element:
    """`crm_mon`'s report as XML. Raises HostError."""
    output = host.run(["crm_mon", "--one-shot", "--output-as=xml", *options], timeout=60, check=True).stdout
    try:
        return ET.fromstring(output)
    except ET.ParseError as error:
        raise HostError(f"host {host.key}: crm_mon printed no XML ({error}): {output[:200]}") from error


def parse(report: ET.Element) -> ClusterState:
    def active(agent: str) -> list[str]:
        return [
            str(node.get("name"))
            for resource in report.findall(".//resource")
            if resource.get("resource_agent", "").endswith(f":{agent}") and resource.get("active") == "true"
            for node in resource.findall("node")
        ]

    return ClusterState(
        frozenset(str(node.get("name")) for node in report.findall("./nodes/node") if node.get("online") == "true"),
        tuple(active("eni")),
        len(active("watch")),
        tuple(f"{item.get('op_key')}: {item.get('exitreason')}" for item in report.findall("./failures/failure")),
    )
