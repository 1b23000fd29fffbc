# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""ocf:evernat:eni while EC2 or the metadata service is down, throttled, hanging or denying; and with lost replies."""

from __future__ import annotations

import subprocess
import time

import pytest
from agent_world import World, wait_for

from lab.aws import IMDS, Fault

pytestmark = pytest.mark.root

MONITORS = 50  # for each of four troubles: 200 in all

TROUBLES = {
    "down": [Fault("drop-before"), Fault("drop-before", action=IMDS)],
    "throttled": [Fault("throttle")],
    "hanging": [Fault("hang"), Fault("hang", action=IMDS)],
    "denying": [Fault("error", code="UnauthorizedOperation")],
}


def bring_about(world: World, trouble: str) -> None:
    for fault in TROUBLES[trouble]:
        world.aws.faults.add(fault)


@pytest.mark.parametrize("trouble", TROUBLES)
def test_the_holder_goes_on_and_can_be_stopped(world: World, trouble: str) -> None:
    assert world.agent("a", "start").returncode == 0
    bring_about(world, trouble)
    mark = world.mark()
    codes = [world.agent("a", "monitor").returncode for _ in range(MONITORS)]
    assert codes == [0] * MONITORS
    assert world.mark() == mark  # no call at all, of no service
    began = time.monotonic()
    assert world.agent("a", "stop", CRM_meta_timeout="8000").returncode == 0
    assert time.monotonic() - began < 8.0
    assert not world.is_up("a")
    assert world.agent("a", "monitor").returncode == 7


@pytest.mark.parametrize("trouble", TROUBLES)
def test_start_fails_softly_in_time_with_the_reason(world: World, trouble: str) -> None:
    bring_about(world, trouble)
    began = time.monotonic()
    failed = world.agent("a", "start", CRM_meta_timeout="6000")
    assert time.monotonic() - began < 6.0
    assert failed.returncode == 1
    reason = {
        "down": "metadata service",
        "throttled": "RequestLimitExceeded",
        "hanging": "metadata service",
        "denying": "UnauthorizedOperation",
    }[trouble]
    assert reason in failed.stderr
    assert failed.stderr.count("\n") == 1
    assert not world.is_up("a")


@pytest.mark.parametrize("kind", ["throttle", "unavailable", "drop-before", "garbage", "hang"])
def test_a_trouble_that_passes_is_survived(world: World, kind: str) -> None:
    world.aws.faults.add(Fault(kind, count=2, seconds=1.0))
    assert world.agent("a", "start").returncode == 0
    assert world.holder() == "a"


@pytest.mark.parametrize("action", ["AttachNetworkInterface", "DetachNetworkInterface"])
def test_a_lost_reply_is_no_second_write(world: World, action: str) -> None:
    assert world.agent("a", "start").returncode == 0
    world.in_host("a", "ip", "link", "set", "ens6", "down")
    world.aws.faults.add(Fault("drop-after", action=action, count=1))
    mark = world.mark()
    assert world.agent("b", "start").returncode == 0
    assert world.holder() == "b"
    assert world.actions(mark).count("AttachNetworkInterface") == 1
    assert world.actions(mark).count("DetachNetworkInterface") == 1


def test_a_link_that_is_here_comes_back_into_service_without_ec2(world: World) -> None:
    assert world.agent("a", "start").returncode == 0
    world.in_host("a", "ip", "link", "set", "ens6", "down")
    bring_about(world, "hanging")
    assert world.agent("a", "start").returncode == 0
    assert world.agent("a", "monitor").returncode == 0


def test_it_starts_as_soon_as_ec2_is_back(world: World) -> None:
    number = world.aws.faults.add(Fault("throttle"))

    start = subprocess.Popen(world.agent_argv("a", "start"), env=world.environ(), stderr=subprocess.PIPE, text=True)
    wait_for(lambda: "DescribeNetworkInterfaces" in world.actions(0)[-1:], 5, "the first call")
    world.aws.faults.remove(number)
    began = time.monotonic()
    assert start.wait(20) == 0
    assert time.monotonic() - began < 5.0
