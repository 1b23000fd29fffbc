# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role cluster says of a cluster whose commands answer as they are told here."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.operator import Operator, PlaybookRun

PLAYBOOK = Path(__file__).parent / "cluster.yml"
VARIABLES = {
    "ansible_python_interpreter": sys.executable,
    "cluster_name": "nat",
    "cluster_nodes": [{"name": "nat-a", "address": "10.0.1.10"}, {"name": "nat-b", "address": "10.0.1.11"}],
    "cluster_region": "eu-west-1",
    "cluster_eni_id": "eni-0123456789abcdef0",
    "cluster_eni_mac": "02:00:00:00:00:01",
    "cluster_eni_ip": "10.0.1.100",
    "cluster_subnet_cidr": "10.0.1.0/24",
}


def attributes(barred: str, replica: str = "1") -> str:
    """An attrd_updater that knows these two."""
    choice = f"case $2 in barred) value={barred} ;; *) value={replica} ;; esac"
    return choice + '; echo "name=\\"$2\\" value=\\"$value\\""'


SOUND = {
    "crm_resource": "echo resource eni is running on: nat-a",
    "crm_attribute": "echo false",
    "attrd_updater": attributes("0"),
    "resource.d/evernat/eni": "exit 0",
}
Play = Callable[..., PlaybookRun]


@pytest.fixture
def play(installed: Path, tmp_path: Path) -> Play:
    """Run an entry point on one host, where each command of `commands` is the given line of shell."""

    def run(entry: str, commands: dict[str, str], host: str = "nat-a", **more: Any) -> PlaybookRun:
        for name, line in commands.items():
            command = tmp_path / name
            command.parent.mkdir(parents=True, exist_ok=True)
            command.write_text(f'#!/bin/sh\necho {name.rpartition("/")[2]} "$@" >>{tmp_path}/calls\n{line}\n')
            command.chmod(0o755)
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        operator = Operator([], environment, installed, installed / "key", logs=installed / "logs")
        wanted = {**VARIABLES, "entry": entry, "__cluster_ocf": str(tmp_path), **more}
        arguments = ("-i", f"{host},", "-e", json.dumps(wanted))
        return operator.playbook(str(PLAYBOOK), *arguments, check=False, timeout=120)

    return run


def words(run: PlaybookRun) -> str:
    return " ".join(run.output.split())


@pytest.mark.parametrize(("host", "barred"), [("nat-a", "0"), ("nat-b", "1")])
def test_verify_finds_a_sound_pair_sound(play: Play, host: str, barred: str) -> None:
    run = play("verify", {**SOUND, "attrd_updater": attributes(barred)}, host)
    assert run.rc == 0, run.output
    assert f"{host}: barred is {barred}, a cut ring would leave the interface where it is." in run.output
    assert f"{host}: has every connection that it would have to go on with." in run.output
    assert run.changed == 0


def test_verify_waits_for_a_watcher_that_has_just_started(play: Play, tmp_path: Path) -> None:
    late = f"if [ -e {tmp_path}/seen ]; then {SOUND['attrd_updater']}; else touch {tmp_path}/seen; exit 6; fi"
    assert play("verify", {**SOUND, "attrd_updater": late}).rc == 0


def test_verify_says_when_a_cut_ring_would_move_the_interface(play: Play) -> None:
    run = play("verify", {**SOUND, "attrd_updater": "echo no such attribute >&2; exit 6"}, "nat-a,nat-b")
    assert run.rc != 0
    for host, barred in {"nat-a": "0", "nat-b": "1"}.items():
        assert f"{host}: the node attribute barred must be {barred} where nat-a serves the interface" in words(run)
    assert "let the echo request (ICMP type 8) pass between the hosts' primary addresses and 10.0.1.100" in words(run)
    assert "Last seen: no such attribute" in words(run)


def test_verify_says_when_connections_would_be_lost(play: Play) -> None:
    run = play("verify", {**SOUND, "attrd_updater": attributes("0", replica="0")}, cluster_timeout=8)
    assert run.rc != 0
    assert "nat-a: the node attribute replica must be 1, or connections would not survive a takeover" in words(run)
    assert 'Last seen: name="replica" value="0"' in words(run).replace("\\", "")


def test_verify_does_not_ask_for_a_replica_where_there_is_none(play: Play) -> None:
    run = play("verify", {**SOUND, "attrd_updater": attributes("0", replica="0")}, router_replication=False)
    assert run.rc == 0, run.output


@pytest.mark.parametrize("key", ["", "Key7" * 64])
def test_a_good_authkey_is_taken_and_not_shown(play: Play, key: str) -> None:
    run = play("input", {}, cluster_authkey=key)
    assert run.rc == 0, run.output
    assert "Key7Key7" not in run.output


END = "crm_attribute --type crm_config --name maintenance-mode --delete"


def test_verify_says_how_to_end_a_maintenance_mode_that_was_left_on(play: Play) -> None:
    run = play("verify", {**SOUND, "crm_attribute": "echo true"})
    assert run.rc != 0
    assert f"end that mode with: {END}. Last seen: true" in words(run)


@pytest.mark.parametrize(("joined", "ended"), [(["nat-a", "nat-b"], True), (["nat-a"], False)])
def test_a_change_of_key_that_fails_ends_the_maintenance_mode_where_that_is_safe(
    play: Play, tmp_path: Path, joined: list[str], ended: bool
) -> None:
    nodes = "".join(f'<node name="{name}" id="1" online="true" standby="false" pending="false"/>' for name in joined)
    commands = {"crm_attribute": "exit 0", "systemctl": "exit 1", "crm_mon": f"echo '{nodes}'"}
    run = play("rekey", commands)
    assert run.rc != 0
    assert (END in (tmp_path / "calls").read_text()) is ended
    assert (f"end it with: {END}" in words(run)) is not ended
