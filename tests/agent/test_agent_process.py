# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""ocf:evernat:eni as a process in a host's namespace: moves, local faults, interruptions."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import time

import pytest
from agent_world import LINK, PRIVATE_IP, World, wait_for

pytestmark = pytest.mark.root


def test_start_serve_stop(world: World) -> None:
    assert world.agent("a", "monitor").returncode == 7
    started = world.agent("a", "start")
    assert (started.returncode, started.stderr) == (0, "")
    assert world.holder() == "a"
    assert world.agent("a", "monitor").returncode == 0
    assert world.agent("a", "monitor", CRM_meta_interval="0").returncode == 0
    assert world.agent("b", "monitor", CRM_meta_interval="0").returncode == 7
    assert world.agent("a", "start").returncode == 0
    stopped = world.agent("a", "stop")
    assert (stopped.returncode, stopped.stderr) == (0, "")
    assert not world.is_up("a")
    assert world.agent("a", "monitor").returncode == 7
    wait_for(lambda: world.holder() is None, 5, "the end of the attachment")
    assert world.agent("a", "stop").returncode == 0
    # What would leave by the ENI still ends here, and not at the primary link.
    assert "blackhole default" in world.in_host("a", "ip", "route", "show", "table", "100").stdout
    assert f"from {PRIVATE_IP} lookup 100" in world.in_host("a", "ip", "rule").stdout


def test_a_live_holder_keeps_it(world: World) -> None:
    assert world.agent("a", "start").returncode == 0
    mark = world.mark()
    refused = world.agent("b", "start")
    assert refused.returncode == 1
    assert "it answers on the interface's address" in refused.stderr
    assert set(world.actions(mark)) == {"DescribeNetworkInterfaces"}
    assert world.holder() == "a"


@pytest.mark.parametrize("dead_detach", ["completes", "stuck"])
def test_a_dead_holder_loses_it(world: World, dead_detach: str) -> None:
    assert world.agent("a", "start").returncode == 0
    world.aws.settings.dead_detach = dead_detach
    world.wires.dead.add("a")
    for link in (LINK, "ens5"):
        world.in_host("a", "ip", "link", "set", link, "down")
    mark = world.mark()
    started = world.agent("b", "start")
    assert started.returncode == 0, started.stderr
    assert world.agent("b", "monitor").returncode == 0
    assert world.holder() == "b"
    writes = [action for action in world.actions(mark) if not action.startswith("Describe")]
    detaches = ["DetachNetworkInterface"] * (2 if dead_detach == "stuck" else 1)
    assert writes == [*detaches, "AttachNetworkInterface"]


def test_a_stopped_holder_that_could_not_detach_loses_it(world: World) -> None:
    assert world.agent("a", "start").returncode == 0
    assert world.agent("a", "stop", endpoint="http://10.0.1.1:9").returncode == 0
    assert world.holder() == "a"
    assert world.agent("b", "start").returncode == 0
    assert world.holder() == "b"


def test_a_slow_move_is_followed_by_the_link_not_by_the_api(world: World) -> None:
    world.aws.settings.attach_delay = 0.5
    assert world.agent("a", "start").returncode == 0
    assert world.agent("a", "monitor").returncode == 0


def test_two_starts_at_once_have_one_winner(world: World) -> None:
    for _ in range(3):
        world.reset()
        races = [
            subprocess.Popen(
                world.agent_argv(host, "start"),
                env=world.environ(CRM_meta_timeout="8000", holddown="10"),
                stderr=subprocess.PIPE,
                text=True,
            )
            for host in world.hosts
        ]
        ends = [race.communicate(timeout=30)[1] for race in races]
        codes = sorted(race.returncode for race in races)
        assert codes == [0, 1], ends
        winner = "a" if races[0].returncode == 0 else "b"
        assert world.holder() == winner
        assert world.agent(winner, "monitor").returncode == 0


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (f"ip link set {LINK} down", f"link {LINK} is down"),
        (f"ip addr flush dev {LINK}", f"address {PRIVATE_IP} is not on"),
        ("ip route del default table 100 metric 0", "no default route"),
        (f"ip rule del iif {LINK}", f"routing rule iif {LINK} lookup 100 is missing"),
        (f"ip rule del from {PRIVATE_IP}", f"routing rule from {PRIVATE_IP} lookup 100 is missing"),
        ("sysctl -qw net.ipv4.ip_forward=0", "net.ipv4.ip_forward is 0"),
        (f"sysctl -qw net.ipv4.conf.{LINK}.rp_filter=1 net.ipv4.conf.all.rp_filter=0", "rp_filter is strict"),
        ("iptables -t nat -F", "no SNAT rule"),
    ],
)
def test_each_local_damage_is_a_failure_with_its_reason(world: World, damage: str, reason: str) -> None:
    assert world.agent("a", "start").returncode == 0
    world.in_host("a", *damage.split())
    mark = world.mark()
    monitored = world.agent("a", "monitor")
    assert monitored.returncode == 1
    assert monitored.stderr.startswith("ocf-exit-reason:")
    assert reason in monitored.stderr
    assert world.actions(mark) == []


def test_a_missing_blackhole_is_degraded(world: World) -> None:
    assert world.agent("a", "start").returncode == 0
    world.in_host("a", "ip", "route", "del", "blackhole", "default", "table", "100", "metric", "9999")
    monitored = world.agent("a", "monitor")
    assert monitored.returncode == 190
    assert "no blackhole default" in monitored.stderr


def test_damage_that_start_can_mend_is_mended_in_place(world: World) -> None:
    assert world.agent("a", "start").returncode == 0
    world.in_host("a", "ip", "link", "set", LINK, "down")
    world.in_host("a", "ip", "rule", "del", "iif", LINK)
    mark = world.mark()
    assert world.agent("a", "start").returncode == 0
    assert world.agent("a", "monitor").returncode == 0
    assert set(world.actions(mark)) == {"DescribeNetworkInterfaces"}


@pytest.mark.parametrize(
    ("damage", "reason"), [("sysctl -qw net.ipv4.ip_forward=0", "ip_forward"), ("iptables -t nat -F", "SNAT")]
)
def test_a_host_that_cannot_forward_takes_nothing(world: World, damage: str, reason: str) -> None:
    assert world.agent("a", "start").returncode == 0
    world.in_host("a", "ip", "link", "set", "ens5", "down")
    world.in_host("b", *damage.split())
    mark = world.mark()
    refused = world.agent("b", "start")
    assert refused.returncode == 1
    assert reason in refused.stderr
    assert world.actions(mark) == []


def test_an_attachment_whose_link_never_comes_is_given_back(world: World) -> None:
    world.wires.plugs = False
    refused = world.agent("a", "start", CRM_meta_timeout="6000")
    assert refused.returncode == 1
    assert re.search(r"is attached, but no link with the MAC .* it was detached again", refused.stderr)
    wait_for(lambda: world.holder() is None, 5, "the end of the attachment")


@pytest.mark.parametrize("after", [0.15, 0.4, 0.8])
def test_sigterm_leaves_what_the_next_call_can_read(world: World, after: float) -> None:
    world.aws.settings.api_delay = 0.1
    world.aws.settings.attach_delay = 0.5
    try:
        start = subprocess.Popen(world.agent_argv("a", "start"), env=world.environ(), stderr=subprocess.PIPE, text=True)
        time.sleep(after)  # the very thing that is tested: a signal at any time
        start.send_signal(signal.SIGTERM)
        start.communicate(timeout=20)
    finally:
        world.aws.settings.api_delay = 0.0
    assert start.returncode in (0, 1)
    assert world.agent("a", "monitor", CRM_meta_interval="0").returncode == (0 if start.returncode == 0 else 7)
    assert world.agent("a", "start").returncode == 0
    assert world.agent("a", "monitor").returncode == 0


def test_the_log_has_phases_and_no_secrets(world: World) -> None:
    master, terminal = pty.openpty()  # on a terminal the agent logs to it
    done = subprocess.run(
        world.agent_argv("a", "start"), env=world.environ(HA_debug="1"), stderr=terminal, timeout=30, check=False
    )
    os.close(terminal)
    text = os.read(master, 65536).decode()
    os.close(master)
    assert done.returncode == 0
    line = next(line for line in text.splitlines() if "rc=0" in line)
    for phase in ("describe", "detach", "attach", "link", "configure", "seconds"):
        assert re.search(rf" {phase}=\d+\.\d\d\d", line), line
    credentials = world.aws.credentials(world.instance_ids["a"])
    secrets = [value for name, value in credentials.items() if name in ("AccessKeyId", "SecretAccessKey", "Token")]
    assert len(secrets) == 3
    assert not any(secret in text for secret in secrets)
    assert "Signature=" not in text


def test_validate_all_asks_whether_the_role_may_move_it(world: World) -> None:
    assert world.agent("a", "validate-all").returncode == 0
    mark = world.mark()
    assert world.agent("a", "validate-all", OCF_CHECK_LEVEL="10").returncode == 0
    assert world.actions(mark) == ["DescribeNetworkInterfaces", "AttachNetworkInterface"]
    assert world.holder() is None
