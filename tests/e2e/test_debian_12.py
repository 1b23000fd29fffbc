# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From an empty account to an empty account, on Debian 12 hosts: site, power cut, teardown."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from pair import Pair, build
from test_site import run, writes

from lab.lab import QUICK_DELAYS, LabSettings


@pytest.fixture(scope="module")
def bookworm() -> Iterator[Pair]:
    with build(LabSettings(name=f"debian12x{os.getpid()}", release="bookworm", delays=QUICK_DELAYS)) as pair:
        yield pair


def test_debian_12_takes_over_and_is_torn_down(bookworm: Pair) -> None:
    pair = bookworm
    pair.wait_sound()
    before, elastic_ip = pair.holder, pair.lab.elastic_ip()
    with pair.moves() as moves, pair.traffic() as traffic:
        fault = pair.lab.power_cut(before)
        traffic.wait_until_flowing(time.monotonic() + 60, since=fault)
        record = traffic.stop()
    assert moves == [pair.lab.peer(before)]
    assert record.egress_addresses() == [elastic_ip]

    pair.lab.heal()
    assert run(pair, "teardown").changed > 0
    assert ours(pair) == []
    mark = pair.lab.aws.calls.mark()
    assert run(pair, "teardown").changed == 0
    assert writes(pair, mark) == []


def ours(pair: Pair) -> list[str]:
    """What is left in the account beyond what was there before the pair."""
    snapshot = pair.lab.aws.snapshot()
    account = pair.lab.account
    left = [instance.id for instance in snapshot.instances.values() if instance.state != "terminated"]
    left += list(snapshot.interfaces)
    groups = pair.lab.ec2.describe_security_groups()["SecurityGroups"]
    left += [group["GroupName"] for group in groups if group["GroupName"] != "default"]
    left += [address["AllocationId"] for address in pair.lab.ec2.describe_addresses()["Addresses"]]
    left += [
        f"{table.id} {route.cidr}"
        for table in snapshot.route_tables.values()
        for route in table.routes
        if table.id == account.private_route_table_id and route.target_kind != "local"
    ]
    iam = pair.lab.client("iam")
    left += [role["RoleName"] for role in iam.list_roles()["Roles"]]
    left += [profile["InstanceProfileName"] for profile in iam.list_instance_profiles()["InstanceProfiles"]]
    left += [policy["PolicyName"] for policy in iam.list_policies(Scope="Local")["Policies"]]
    return left
