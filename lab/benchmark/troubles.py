# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a pair has to bear without a move: no time, no network, or a host that stands still for a while."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

from lab.cluster import wait_for
from lab.hosts.host import Host
from lab.lab import Lab
from lab.vpc.delay import Delay, Way
from lab.vpc.rules import device_name

RING_PORT = 5405
FREEZES = (0.2, 0.5, 1.0, 2.0, 3.0)  # seconds
SHARE = 0.1  # of one CPU, for a host that is throttled


@dataclass(frozen=True)
class Trouble:
    """What a living pair has to bear. `begin` is a block in which it lasts; `times` is how often it is made."""

    name: str
    begin: Callable[[Lab], AbstractContextManager[object]]
    seconds: float
    times: int = 1


def every(seconds: float, repeats: int) -> list[Trouble]:
    """Every trouble of the table; the lasting ones last `seconds`, the short ones come `repeats` times."""
    lasting = [
        Trouble("idle", lambda lab: nullcontext(), seconds),
        Trouble("both cores busy", lambda lab: busy(hosts_of(lab), seconds), seconds),
        Trouble("holder throttled", lambda lab: throttled(lab, lab.holder(), seconds), seconds),
        Trouble("standby throttled", lambda lab: throttled(lab, lab.peer(lab.holder()), seconds), seconds),
        *(Trouble(f"loss {percent} %", _loss(percent), seconds) for percent in (5, 20, 40)),
        *(Trouble(f"delay {delay} ms", _delay(delay / 1000), seconds) for delay in (20, 100)),
    ]
    kinds = {
        "holder frozen": lambda lab: frozen(lab, lab.holder()),
        "standby frozen": lambda lab: frozen(lab, lab.peer(lab.holder())),
        "holder paused": lambda lab: paused(lab, lab.holder()),
        "standby paused": lambda lab: paused(lab, lab.peer(lab.holder())),
    }
    short = [
        Trouble(f"{kind} {length:g} s", begin, length, repeats) for kind, begin in kinds.items() for length in FREEZES
    ]
    return lasting + short


def hosts_of(lab: Lab) -> list[Host]:
    return [lab.hosts[instance_id] for instance_id in lab.pair()]


@contextmanager
def busy(hosts: list[Host], seconds: float, nice: int = 0) -> Iterator[None]:
    """On each host one endless loop for each core of the machine; they end by themselves, also if nobody ends them."""
    loop = f"timeout {seconds:g} nice --adjustment={nice} sh -c 'while :; do :; done'"
    loops = " & ".join([loop] * (os.cpu_count() or 1)) + " & wait"
    with ThreadPoolExecutor(len(hosts)) as pool:
        runs = [pool.submit(host.run, ["sh", "-c", loops], timeout=seconds + 60) for host in hosts]
        for host in hosts:
            wait_for(f"{host.key} is busy", partial(_has_loop, host), 30, lambda: "no loop")
        yield
        for run in runs:
            run.result()


def _has_loop(host: Host) -> bool:
    return host.daemon_pid("timeout") > 0


@contextmanager
def throttled(lab: Lab, instance_id: str, seconds: float) -> Iterator[None]:
    """The host has a tenth of a CPU, and something on it that would use all."""
    host = lab.hosts[instance_id]
    with busy([host], seconds):
        host.throttle(SHARE)
        try:
            yield
        finally:
            host.throttle(0)


@contextmanager
def frozen(lab: Lab, instance_id: str) -> Iterator[None]:
    """User space stands still; the kernel goes on forwarding, and answers."""
    lab.freeze(instance_id)
    try:
        yield
    finally:
        lab.thaw(instance_id)


@contextmanager
def paused(lab: Lab, instance_id: str) -> Iterator[None]:
    """The whole machine stands still, as in a live migration: user space, and the kernel on the network."""
    number = lab.fabric.isolate(instance_id)
    try:
        with frozen(lab, instance_id):
            yield
    finally:
        lab.fabric.heal(number)


def _loss(percent: float) -> Callable[[Lab], AbstractContextManager[object]]:
    @contextmanager
    def lossy(lab: Lab) -> Iterator[None]:
        first, second = lab.pair()
        number = lab.fabric.cut(first, second, [RING_PORT], percent=percent)
        try:
            yield
        finally:
            lab.fabric.heal(number)

    return lossy


def _delay(seconds: float) -> Callable[[Lab], AbstractContextManager[object]]:
    @contextmanager
    def late(lab: Lab) -> Iterator[None]:
        ends = []
        instances = lab.aws.snapshot().instances
        for instance_id in lab.pair():
            primary = instances[instance_id].interfaces[0]
            ends.append((device_name(primary.id), primary.mac))
        (first, first_mac), (second, second_mac) = ends
        ways = [Way(first, second, second_mac), Way(second, first, first_mac)]
        holder = lab.holder()
        number = lab.fabric.cut(holder, lab.peer(holder), [RING_PORT])
        try:
            with Delay(lab.fabric.vpc_netns, ways, [RING_PORT], seconds):
                yield
        finally:
            lab.fabric.heal(number)

    return late
