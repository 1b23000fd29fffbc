# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""`lab/bench scale`: many flows over loopback, and from texts and samples to figures."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from typing import Any

import pytest

from lab.benchmark import flows, scale
from lab.benchmark.crowd import TCP_MOST, shares
from lab.lab import LabError
from lab.operator import ROOT

ADDRESSES = ("127.0.0.1", "127.0.0.2")
STATISTICS = """cache internal:
current active connections:\t          11
connections created:\t\t          20\tfailed:\t           0

cache external:
current active connections:\t        1002
connections created:\t\t        1002\tfailed:\t           0

traffic processed:
"""
START = 'action=start rc=0 reason="" seconds=1.204 describe=0.051 flows=1002 commit=0.013 whole=true'


def entry(moment: float, message: str) -> str:
    return json.dumps({"__MONOTONIC_TIMESTAMP": str(int(moment * 1e6)), "MESSAGE": message})


def sample(flows: int, outage: int, **figures: Any) -> dict[str, Any]:
    lived = {"answered": flows, "renumbered": 0, "long_flows": 22, "long_flows_survived": 22}
    return {**dict.fromkeys(scale.SUMMED), **lived, "flows": flows, "asked": flows, "outage_ms": outage, **figures}


def start(*arguments: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "lab.benchmark.flows", *arguments, *ADDRESSES]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def ask(process: subprocess.Popen[str]) -> dict[str, int]:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return told(process)


def told(process: subprocess.Popen[str]) -> dict[str, int]:
    assert process.stdout is not None
    found: dict[str, int] = json.loads(process.stdout.readline())
    return found


def test_every_flow_is_opened_answered_and_known_to_the_server() -> None:
    with start("serve") as server:
        assert told(server) == {"ready": True}
        with start("hold", "300", "20") as client:  # 300: the last group is not full
            opened = told(client)
            assert (opened["udp"], opened["tcp"]) == (300, 20)
            assert ask(server) == {"peers": 300}
            assert ask(client) == {"udp": 300, "tcp": 20}
            assert ask(server) == {"peers": 300}
    assert (server.returncode, client.returncode) == (0, 0)


def test_an_old_answer_does_not_make_a_flow_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "ASK_SECONDS", 0.2)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.3", flows.UDP_PORTS[0]))
        crowd = flows.Flows(1, 0, ["127.0.0.3"])
        assert crowd.ask_all() == {"udp": 0, "tcp": 0}
        question, client = peer.recvfrom(100)
        peer.sendto(question, client)
        assert crowd.ask_all() == {"udp": 0, "tcp": 0}


def test_the_shares_are_the_whole() -> None:
    assert shares(1000) == (900, 100)
    assert shares(300_000) == (300_000 - TCP_MOST, TCP_MOST)


def test_the_replica_is_the_external_cache() -> None:
    assert scale.replica_size(STATISTICS) == 1002
    with pytest.raises(LabError, match="no size of its external cache"):
        scale.replica_size("cache internal:\ncurrent active connections:\t 11\n")


def test_the_start_is_the_first_that_succeeded_after_the_cut() -> None:
    journal = [
        entry(5.0, START.replace("1002", "7")),
        entry(11.0, START.replace("rc=0", "rc=1")),
        entry(12.0, START),
        entry(13.0, START.replace("1002", "8")),
    ]
    assert scale.started_with(journal, 10.0)["flows"] == "1002"
    assert scale.started_with(journal, 20.0) == {}


def test_what_conntrackd_says_of_its_commit_is_kept() -> None:
    head = "[Sun Nov 22 18:30:48 2026] (pid=170) [notice] "
    journal = [
        entry(9.0, f"{head}Committed 7 new entries"),
        entry(11.0, f"{head}Committed 1002 new entries"),
        entry(11.1, f"{head}3 entries can't be committed"),
        entry(12.0, START),
    ]
    assert scale.commit_told(journal, 10.0) == ["Committed 1002 new entries", "3 entries can't be committed"]


def test_the_number_of_entries_that_conntrack_has_shown() -> None:
    assert scale.shown("conntrack v1.4.8 (conntrack-tools): 100022 flow entries have been shown.\n") == 100022


def test_sizes_are_summed_up_beside_the_smallest() -> None:
    samples = [
        sample(100_000, 2500, commit_s=0.9),
        sample(1000, 2000, commit_s=0.01),
        sample(1000, 2200, commit_s=None),  # a start whose log line did not tell
        sample(100_000, 2700, commit_s=1.1),
    ]
    small, large = scale.summarise(samples)
    assert (small["flows"], small["outage_ms"]["median"], small["outage_above_smallest_ms"]) == (1000, 2100, 0)
    assert (large["flows"], large["outage_ms"]["median"], large["outage_above_smallest_ms"]) == (100_000, 2600, 500)
    assert (small["commit_s"]["n"], large["commit_s"]["median"]) == (1, pytest.approx(1.0))
    assert scale.text_of(large).startswith("outage 2600 ms (+500), commit 1.000 s, answered 100000, in the kernel ?")


def test_flows_that_died_or_got_another_port_are_faults() -> None:
    assert scale.faults_of(sample(1000, 2000)) == []
    assert scale.faults_of(sample(1000, 2000, answered=990, renumbered=3, long_flows_survived=21)) == [
        "10 of 1000 flows did not live on",
        "1 of 22 long flows died with 1000 flows in the table",
        "3 of 1000 flows got another port",
    ]
