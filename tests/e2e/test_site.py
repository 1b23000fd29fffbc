# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `site` built, what a second run does to a pair that serves, and what `verify` finds."""

from __future__ import annotations

import secrets

from pair import Pair

from lab.operator import PlaybookRun


def run(pair: Pair, playbook: str, *arguments: str, check: bool = True) -> PlaybookRun:
    variables = ("-e", f"@{pair.lab.pair_file}")
    return pair.lab.operator.playbook(f"evernat.aws.{playbook}", *variables, *arguments, check=check)


def writes(pair: Pair, mark: int) -> list[str]:
    return [call.action for call in pair.lab.aws.calls.mutating(mark)]


def test_second_run_changes_nothing_and_disturbs_nobody(pair: Pair) -> None:
    mark = pair.lab.aws.calls.mark()
    with pair.moves() as moves, pair.traffic() as traffic:
        second = run(pair, "site")
        record = traffic.stop()
    assert second.changed == 0, second.changed_tasks()
    assert writes(pair, mark) == []
    assert moves == []
    assert record.lost == 0, f"{record.lost} of {record.sent} packets were lost"


def test_check_mode_on_a_live_pair_writes_nothing(pair: Pair) -> None:
    mark = pair.lab.aws.calls.mark()
    checked = run(pair, "site", "--check", "--diff")
    assert checked.changed == 0, checked.changed_tasks()
    assert writes(pair, mark) == []


def test_verify_finds_it_sound(pair: Pair) -> None:
    mark = pair.lab.aws.calls.mark()
    assert run(pair, "verify").changed == 0
    assert writes(pair, mark) == []


def test_verify_finds_a_source_dest_check_that_is_on(pair: Pair) -> None:
    interface = pair.lab.interface()
    attribute = {"NetworkInterfaceId": interface.id, "SourceDestCheck": {"Value": True}}
    pair.lab.ec2.modify_network_interface_attribute(**attribute)
    try:
        result = run(pair, "verify", check=False)
    finally:
        attribute["SourceDestCheck"] = {"Value": False}
        pair.lab.ec2.modify_network_interface_attribute(**attribute)
    assert result.rc != 0
    assert interface.id in result.output


def test_secrets_are_in_no_output_and_readable_by_nobody_else(pair: Pair) -> None:
    for instance_id in pair.lab.pair():
        mode = pair.run(instance_id, "stat", "--format=%a %U %s", "/etc/corosync/authkey").split()
        assert mode == ["400", "root", "256"]
        log = pair.run(instance_id, "journalctl", "--boot", "--no-pager")
        assert "X-Amz-Security-Token" not in log
        assert "ASIA" not in log


def test_new_settings_and_a_new_key_disturb_nobody(pair: Pair) -> None:
    """A push to a pair that serves: Corosync is restarted for the key, and told of the token."""
    before = pair.run(pair.holder, "sha256sum", "/etc/corosync/authkey")
    with pair.moves() as moves, pair.traffic() as traffic:
        pushed = run(pair, "site", "-e", "cluster_token=1500", "-e", f"cluster_authkey={secrets.token_hex(128)}")
        pair.wait_sound()
        record = traffic.stop()
    assert pushed.changed > 0
    assert pair.run(pair.holder, "sha256sum", "/etc/corosync/authkey") != before
    for instance_id in pair.lab.pair():
        assert "= 1500" in pair.run(instance_id, "corosync-cmapctl", "runtime.config.totem.token")
    assert moves == []
    assert record.lost == 0, f"{record.lost} of {record.sent} packets were lost"
    run(pair, "site")  # as the other tests expect it; the key stays
