# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A contender: how a system is built on a lab, hit by a fault, put right again; and how that is measured."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from lab.benchmark.runs import FREEZE, POWER_CUT
from lab.hosts.host import Host
from lab.hosts.wait import wait_until
from lab.lab import Lab, LabError
from lab.vpc.record import Record
from lab.vpc.traffic import Traffic, TrafficError, patience

START_LIMIT = 30.0  # seconds for traffic to flow
TAKEOVER_LIMIT = 240.0  # seconds until a contender counts as one that does not come back
FREEZE_SECONDS = 20.0  # how long the holder's user space stands still
WATCH_SECONDS = 10.0  # of the client's traffic after the end of a freeze, at least


class Contender(ABC):
    """One system on a lab of its own. The module's docstring says how it is run, and where that comes from.

    `given`: seconds that belong to every outage and are not measured, by fault, with their source.
    """

    title: ClassVar[str]
    given: ClassVar[dict[str, tuple[float, str]]] = {}

    def __init__(self, lab: Lab, say: Callable[[str], None]) -> None:
        self.lab = lab
        self.say = say

    @abstractmethod
    def build(self) -> None:
        """From an empty account to a pair that serves the client."""

    @abstractmethod
    def switch_over(self) -> float:
        """Move to the other host as an operator would. Returns the moment (monotonic) that it was asked for."""

    @abstractmethod
    def restore(self) -> None:
        """After a fault: bring every host back, wait until a takeover can happen again."""

    def after_power_cut(self, holder: str) -> None:  # noqa: B027 # most need nothing: the other host acts
        """What happens outside of the hosts when one loses power."""

    def holder(self) -> str:
        """The instance that has the floating address. LabError while there is none."""
        return self.lab.holder()

    def settle(self) -> None:  # noqa: B027 # most act at once or not at all
        """After the end of a freeze: wait until the hosts have agreed on who has what."""

    def standing_by(self) -> list[Host]:
        """The hosts that cost something while nothing happens."""
        return [self.lab.hosts[instance_id] for instance_id in self.lab.pair()]

    def settings(self) -> dict[str, Any]:
        """What of its configuration decides the outage, for the record."""
        return {}


def measure(contender: Contender, fault: str, record: Path) -> dict[str, Any]:
    """Make one fault under the client's eyes. The fields of a Run."""
    lab = contender.lab
    with Traffic(lab.fabric, record) as traffic:
        traffic.start(time.monotonic() + START_LIMIT)
        traffic.wait_until_established(time.monotonic() + START_LIMIT)
        before = contender.holder()
        traffic.mark(fault)
        moment = _make(contender, fault, before)
        flowing = traffic.wait_until_flowing(time.monotonic() + TAKEOVER_LIMIT, since=moment, probes=20)
        with contextlib.suppress(TrafficError):  # a flow that never comes back is told as dead by the record
            traffic.wait_for_flows(time.monotonic() + patience(flowing - moment), since=flowing)
        after = contender.holder()
        return {**seen(traffic.stop(), moment), "moved": after != before}


def _make(contender: Contender, fault: str, holder: str) -> float:
    """Make the fault, and wait until what follows from it has happened. Returns its moment."""
    lab = contender.lab
    if fault == POWER_CUT:
        moment = lab.power_cut(holder)
        contender.after_power_cut(holder)
    elif fault == FREEZE:
        moment = time.monotonic()
        lab.freeze(holder)
        _let_pass(moment + FREEZE_SECONDS)
        lab.thaw(holder)
        _let_pass(moment + FREEZE_SECONDS + WATCH_SECONDS)
        contender.settle()
    else:
        moment = contender.switch_over()
        wait_until(
            "another host has the floating address",
            lambda: _has_moved(contender, holder),
            TAKEOVER_LIMIT,
            lambda: str(lab.interface()),
        )
    return moment


def _has_moved(contender: Contender, before: str) -> bool:
    with contextlib.suppress(LabError):  # between detach and attach there is no holder
        return contender.holder() != before
    return False


def _let_pass(until: float) -> None:
    """The length of a freeze is what is measured: no event ends it sooner."""
    time.sleep(max(0.0, until - time.monotonic()))


def seen(record: Record, fault: float) -> dict[str, Any]:
    """What the client saw after a fault, in milliseconds. LabError if traffic did not come back."""
    outages = record.since(fault)
    if any(outage.end is None for outage in outages):
        raise LabError("traffic did not come back")
    spans = [(round((each.start - fault) * 1000), round(((each.end or 0) - fault) * 1000)) for each in outages]
    survived, flows = record.survived()
    return {
        "outage_ms": sum(end - start for start, end in spans),
        "outages": spans,
        "probes_lost": sum(each.lost for each in outages),
        "flows_survived": survived,
        "flows": flows,
    }


def steady(contender: Contender, seconds: float) -> dict[str, Any]:
    """What a pair costs that does nothing but stand by: its calls and its hosts' CPU over a window."""
    lab = contender.lab
    hosts = contender.standing_by()
    mark, start = lab.aws.calls.mark(), time.monotonic()
    cpu = sum(host.cpu_seconds() for host in hosts)
    _let_pass(start + seconds)
    used, window = sum(host.cpu_seconds() for host in hosts) - cpu, time.monotonic() - start
    calls = [call for call in lab.aws.calls.since(mark) if call.host != "operator"]

    def hourly(*services: str) -> int:
        return round(sum(1 for call in calls if call.service in services) * 3600 / window)

    return {
        "window_s": round(window, 1),
        "api_calls_per_hour": hourly("ec2", "sts", "iam"),
        "metadata_calls_per_hour": hourly("imds"),
        "cpu_percent_of_one_core": round(100 * used / window, 2),
        "hosts": len(hosts),
        "note": "calls per hour are extrapolated from the window",
    }
