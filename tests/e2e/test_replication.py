# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The replica of the connections: it is made again whatever becomes of a daemon or a host, and nothing goes stale."""

from __future__ import annotations

import time

from pair import Pair

from lab.account import PRIVATE_CIDR
from lab.cluster import wait_for

LIMIT = 60.0  # seconds; generous: figures are the benchmark's business
LONG = 22  # the client's 20 TCP connections, its download, its UDP exchange


def main_pid(pair: Pair, instance_id: str) -> str:
    return pair.run(instance_id, "systemctl", "show", "--property=MainPID", "--value", "conntrackd").strip()


def wait_for_another(pair: Pair, instance_id: str, killed: str) -> None:
    wait_for(
        f"conntrackd runs again on {instance_id}",
        lambda: main_pid(pair, instance_id) not in ("0", killed),
        LIMIT,
        lambda: pair.run(instance_id, "systemctl", "status", "conntrackd", check=False),
    )


def wait_for_replica(pair: Pair, instance_id: str, least: int) -> None:
    wait_for(
        f"the replica on {instance_id} has {least} connections",
        lambda: pair.replica(instance_id) >= least,
        LIMIT,
        lambda: f"{pair.replica(instance_id)}",
    )


def of_the_clients(pair: Pair, instance_id: str) -> list[str]:
    """The clients' established TCP connections in a host's kernel."""
    listed = pair.run(instance_id, "conntrack", "-L", "-p", "tcp", "--state", "ESTABLISHED", "--src", PRIVATE_CIDR)
    return listed.splitlines()


def test_a_daemon_that_is_killed_comes_back_and_the_replica_is_whole_again(pair: Pair) -> None:
    holder, standby = pair.holder, pair.standby
    with pair.moves() as moves, pair.traffic() as traffic:
        for victim in (standby, holder):
            wait_for_replica(pair, standby, LONG)
            killed = main_pid(pair, victim)
            pair.run(victim, "kill", "-9", killed)
            wait_for_another(pair, victim, killed)
            wait_for_replica(pair, standby, LONG)
            pair.wait_replicated()
        record = traffic.stop()
    assert moves == []
    assert record.lost == 0, f"{record.lost} of {record.sent} packets were lost"


def test_a_rejoined_host_has_the_whole_table(pair: Pair) -> None:
    before = pair.holder
    with pair.traffic() as traffic:
        traffic.wait_until_established(time.monotonic() + LIMIT)
        fault = pair.lab.power_cut(before)
        flowing = traffic.wait_until_flowing(time.monotonic() + LIMIT, since=fault)
        pair.lab.power_on(before)
        pair.wait_sound()
        pair.wait_replicated()
        assert pair.replica(before) >= LONG
        record = traffic.stop()
    assert record.survived(since=flowing) == (LONG, LONG)


def test_an_old_holder_forgets_what_is_the_new_ones(pair: Pair) -> None:
    """A connection that ends while the other host serves must not come back with the next move."""
    before = pair.holder
    with pair.traffic() as traffic:
        now = time.monotonic()
        traffic.wait_until_flowing(now + LIMIT, since=now, probes=50)
        assert len(of_the_clients(pair, before)) >= 20
        asked = pair.lab.switch_over(pair.lab.peer(before), time.monotonic() + LIMIT)
        traffic.wait_until_flowing(time.monotonic() + LIMIT, since=asked)
        wait_for(
            f"{before} has none of the clients' connections",
            lambda: of_the_clients(pair, before) == [],
            LIMIT,
            lambda: str(of_the_clients(pair, before)),
        )
        wait_for_replica(pair, before, LONG)
        traffic.stop()


def test_switched_off_nothing_of_it_is_left_and_switched_on_it_is_whole(pair: Pair) -> None:
    """The agent has the switch among its parameters, so Pacemaker restarts the interface where it is."""
    variables = ("-e", f"@{pair.lab.pair_file}")
    before = pair.holder
    pair.lab.operator.playbook("evernat.aws.site", *variables, "-e", "router_replication=false")
    for instance_id in pair.lab.pair():
        assert pair.run(instance_id, "systemctl", "is-active", "conntrackd", check=False).strip() == "inactive"
        assert pair.run(instance_id, "systemctl", "is-enabled", "conntrackd", check=False).strip() == "disabled"
        assert "-j CT" not in pair.run(instance_id, "iptables", "-t", "raw", "-S")
        attributes = pair.run(instance_id, "attrd_updater", "--name", "replica", "--query", check=False)
        assert 'value="0"' not in attributes
        assert 'value="1"' not in attributes
    pair.lab.operator.playbook("evernat.aws.site", *variables)
    pair.wait_replicated()
    assert pair.holder == before
