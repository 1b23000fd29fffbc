# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Corosync's timers and links: what the role cluster writes, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_cluster import VARIABLES, words

from lab.operator import ROOT, Operator, PlaybookRun

PLAYBOOK = Path(__file__).parent / "corosync_conf.yml"
TEMPLATE = ROOT / "roles" / "cluster" / "templates" / "corosync.conf.j2"
SECOND = {"nat-a": "10.0.3.10", "nat-b": "10.0.3.11"}
Render = Callable[..., PlaybookRun]


def nodes(second: dict[str, str]) -> list[dict[str, str]]:
    """cluster_nodes, with a second address where `second` has one."""
    return [
        {**node, **({"second_address": second[node["name"]]} if node["name"] in second else {})}
        for node in VARIABLES["cluster_nodes"]
    ]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "corosync.conf"


@pytest.fixture
def render(installed: Path, out: Path) -> Render:
    """Run the playbook with these variables beside those of a sound pair."""

    def run(**more: Any) -> PlaybookRun:
        operator = Operator([], {}, installed, installed / "key", logs=installed / "logs")
        wanted = {**VARIABLES, "conf": str(TEMPLATE), "out": str(out), **more}
        return operator.playbook(str(PLAYBOOK), "-i", "nat-a,", "-e", json.dumps(wanted), check=False, timeout=120)

    return run


def values(conf: Path, name: str) -> list[str]:
    """What a corosync.conf says for a name, in order."""
    lines = (line.split(":", 1) for line in conf.read_text().splitlines() if ":" in line)
    return [value.strip() for key, value in lines if key.strip() == name]


def test_by_default_there_is_one_link_with_a_heartbeat_of_its_own(render: Render, out: Path) -> None:
    run = render()
    assert run.rc == 0, run.output
    assert values(out, "ring0_addr") == ["10.0.1.10", "10.0.1.11"]
    assert values(out, "ring1_addr") == []
    assert values(out, "link_mode") == ["active"]  # it cannot be changed when a second link comes
    assert values(out, "linknumber") == ["0"]
    assert [len(values(out, name)) for name in ("token", "consensus", "knet_ping_interval", "knet_pong_count")] == [
        1
    ] * 4


def test_corosync_s_own_timers_can_be_had(render: Render, out: Path) -> None:
    assert render(cluster_token=3000, cluster_consensus=0, cluster_knet_ping={}).rc == 0
    assert values(out, "token") == ["3000"]
    assert values(out, "consensus") == values(out, "linknumber") == []


def test_a_second_link_is_used_beside_the_first(render: Render, out: Path) -> None:
    run = render(cluster_nodes=nodes(SECOND))
    assert run.rc == 0, run.output
    assert values(out, "ring0_addr") == ["10.0.1.10", "10.0.1.11"]
    assert values(out, "ring1_addr") == ["10.0.3.10", "10.0.3.11"]
    assert values(out, "link_mode") == ["active"]
    assert values(out, "linknumber") == ["0", "1"]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a tiny token": ({"cluster_token": 100}, "cluster_token is 100 ms: Corosync needs 200 at least."),
    "a low token on a heartbeat derived from it": (
        {"cluster_token": 500, "cluster_knet_ping": {}},
        "cluster_token is 500 ms: below 1000 ms the link flaps unless cluster_knet_ping says interval and timeout.",
    ),
    "a tiny consensus": (
        {"cluster_consensus": 50},
        "cluster_consensus is 50 ms: it must be 0 (1.2 times the token) or 200",
    ),
    "a heartbeat without effect": (
        {"cluster_knet_ping": {"interval": 50, "timeout": 1000}},
        "cluster_knet_ping.interval is 50 ms: below 200 ms it has no effect",
    ),
    "a hasty heartbeat": (
        {"cluster_knet_ping": {"interval": 300, "timeout": 500}},
        "cluster_knet_ping.timeout is 500 ms: it must be at least twice the interval of 300 ms",
    ),
    "half a second link": (
        {"cluster_nodes": nodes({"nat-a": "10.0.3.10"})},
        "Given are nat-a: 10.0.1.10 and 10.0.3.10; nat-b: 10.0.1.11 and none.",
    ),
    "a second link that is the first": (
        {"cluster_nodes": nodes({"nat-a": "10.0.1.10", "nat-b": "10.0.1.11"})},
        "a second link needs a second_address of its own on both hosts",
    ),
    "a second link without an interface": (
        {"cluster_nodes": nodes(SECOND), "ansible_facts": {"all_ipv4_addresses": ["10.0.1.10"]}},
        "nat-a has no interface with the second_address 10.0.3.10, only 10.0.1.10.",
    ),
    "a second link nowhere": (
        {"cluster_nodes": nodes({**SECOND, "nat-b": "10.0.3.256"})},
        "10.0.3.256 is no IPv4 address.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_is_refused(render: Render, out: Path, case: str) -> None:
    changes, sentence = REFUSED[case]
    run = render(**changes)
    assert run.rc != 0
    assert sentence in words(run)
    assert not out.exists()
