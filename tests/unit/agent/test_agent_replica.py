# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""conntrackd beside a start and on the host that stands by: what is asked of it, and when the replica is whole."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

import ocf  # isort: skip
import replica  # isort: skip
import watcher  # isort: skip
from ansible_collections.evernat.aws.tests.unit.agent.conftest import Recorder

STATISTICS = """cache internal:
current active connections:\t           3
connections created:\t\t          11\tfailed:\t           0
connections updated:\t\t           0\tfailed:\t           0
connections destroyed:\t\t           8\tfailed:\t           0

cache external:
current active connections:\t{flows:12d}
connections created:\t\t       20481\tfailed:\t           0
connections updated:\t\t           0\tfailed:\t           0
connections destroyed:\t\t           0\tfailed:\t           0

traffic processed:
                   0 Bytes                         0 Pckts

UDP traffic (active device=ens5):
                1272 Bytes sent                 1264 Bytes recv
                  80 Pckts sent {received:20d} Pckts recv
                   0 Error send                    0 Error recv

message tracking:
                   0 Malformed msgs                    0 Lost msgs
"""


def sample(at: float, flows: int, received: int = 1000) -> replica.Sample:
    return replica.Sample(at, flows, received)


class Conntrackd:
    """Two daemons' worth of conntrackd: what this one tells, and what it was asked."""

    def __init__(self) -> None:
        self.now = 100.0
        self.number: int | None = 1  # another one after a restart; None: it does not run
        self.flows = 0
        self.peer_runs = True
        self.received = 50
        self.asked: list[str] = []
        self.errors: dict[str, str] = {}
        self.follower = replica.Follower(self, lambda: self.number, lambda: self.now)
        self.follower.observe(here=False, answers=False)

    def __call__(self, argv: Sequence[str], seconds: float) -> str:
        assert argv[0] == "conntrackd"
        option = argv[1]
        if option in self.errors:
            raise replica.ReplicaError(self.errors[option])
        if option == "-s":
            return STATISTICS.format(flows=self.flows, received=self.received)
        self.asked.append(option)
        return ""

    def steps(self, seconds: int, grow: int = 0) -> None:
        """So many seconds pass, in each of which the table grows by so much."""
        for _unused in range(seconds):
            self.now += 1
            self.flows += grow
            self.received += 1 if self.peer_runs else 0
            self.follower.step()


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Conntrackd:
    monkeypatch.setattr(replica, "MARK", str(tmp_path / "mark"))
    monkeypatch.setattr(replica, "STATE", str(tmp_path / "state"))
    return Conntrackd()


# What conntrackd tells


def test_the_cache_and_the_traffic_are_read() -> None:
    found = replica.parse_statistics(STATISTICS.format(flows=20480, received=79), 5.0)
    assert (found.at, found.flows, found.received) == (5.0, 20480, 79)


@pytest.mark.parametrize(
    "text", ["", STATISTICS.partition("UDP traffic")[0], STATISTICS.partition("cache external")[0]]
)
def test_no_number_is_made_up(text: str) -> None:
    with pytest.raises(replica.ReplicaError, match="told neither of"):
        replica.parse_statistics(text.replace("{flows:12d}", "7"), 5.0)


# The judgement


@pytest.mark.parametrize(
    ("asked", "before", "now", "whole"),
    [
        # An empty table, once the other host was heard.
        (sample(0, 0, 10), sample(2, 0, 12), sample(3, 0, 13), True),
        (sample(0, 0, 10), sample(2, 0, 10), sample(3, 0, 10), False),
        # Too early: the request may have got lost, and conntrackd sees to that within two seconds.
        (sample(0, 0, 10), sample(1, 0, 11), sample(2, 0, 12), False),
        # The answer is coming in, and has come.
        (sample(0, 0), sample(2, 100_000, 3000), sample(3, 300_000, 9000), False),
        (sample(0, 0), sample(3, 300_000, 9000), sample(4, 300_000, 9001), True),
        # Everyday business: few in a small table, more in a large one.
        (sample(0, 500), sample(3, 600, 2000), sample(4, 690, 2090), True),
        (sample(0, 500), sample(3, 600, 2000), sample(4, 710, 2110), False),
        (sample(0, 300_000), sample(3, 300_000, 2000), sample(4, 302_000, 4000), True),
        (sample(0, 300_000), sample(3, 300_000, 2000), sample(4, 290_000, 4000), True),
        # A table that grows for a minute grows by itself.
        (sample(0, 0), sample(59, 59_000, 59_000), sample(60, 60_000, 60_000), False),
        (sample(0, 0), sample(60, 60_000, 60_000), sample(61, 61_000, 61_000), True),
    ],
)
def test_when_a_replica_is_whole(
    asked: replica.Sample, before: replica.Sample, now: replica.Sample, whole: bool
) -> None:
    assert replica.is_whole(asked, before, now) is whole


# The follower


def test_a_rejoined_host_asks_and_is_whole_once_the_answer_is_there(daemon: Conntrackd) -> None:
    daemon.steps(1)
    assert daemon.asked == ["-n"]
    daemon.steps(5, grow=60_000)
    assert not daemon.follower.whole
    assert not replica.read_state()
    daemon.steps(1)
    assert daemon.follower.whole
    assert replica.read_state()
    daemon.steps(60)
    assert daemon.asked == ["-n"]


def test_nothing_is_asked_before_it_is_known_who_holds_the_interface(daemon: Conntrackd) -> None:
    daemon.follower = replica.Follower(daemon, lambda: daemon.number, lambda: daemon.now)
    daemon.steps(5)
    assert daemon.asked == []


def test_a_request_without_an_answer_is_repeated(daemon: Conntrackd) -> None:
    daemon.peer_runs = False
    daemon.steps(12)
    assert daemon.asked == ["-n", "-n"]
    assert not daemon.follower.whole
    daemon.peer_runs = True
    daemon.steps(4)
    assert daemon.follower.whole


def test_a_restarted_daemon_begins_anew(daemon: Conntrackd) -> None:
    daemon.steps(5)
    assert daemon.follower.whole
    daemon.number = None
    daemon.steps(1)
    assert (daemon.follower.whole, daemon.follower.why) == (False, "conntrackd does not run")
    daemon.number = 2
    daemon.steps(1)
    assert daemon.asked == ["-n", "-n"]
    daemon.steps(4)
    assert daemon.follower.whole


def test_a_peer_that_falls_silent_is_noticed_and_asked_again_when_it_is_back(daemon: Conntrackd) -> None:
    daemon.steps(5)
    daemon.peer_runs = False
    daemon.steps(10)
    assert daemon.follower.whole
    daemon.steps(1)
    assert not daemon.follower.whole
    daemon.peer_runs = True
    daemon.steps(15)
    assert daemon.follower.whole
    assert daemon.asked[-1] == "-n"


def test_the_holder_is_whole_and_sends_all_after_a_restart_of_its_daemon(daemon: Conntrackd) -> None:
    daemon.steps(5)
    daemon.follower.observe(here=True, answers=False)
    daemon.peer_runs = False  # its host has lost power
    daemon.steps(60)
    assert daemon.follower.whole
    assert daemon.asked == ["-n"]
    daemon.number = 2
    daemon.steps(2)
    assert daemon.asked == ["-n", "-B"]


def test_who_has_lost_the_interface_asks_at_once(daemon: Conntrackd) -> None:
    daemon.steps(5)
    daemon.follower.observe(here=True, answers=False)
    daemon.steps(5)
    daemon.follower.observe(here=False, answers=False)
    daemon.steps(1)
    assert daemon.asked == ["-n", "-n"]
    assert not daemon.follower.whole
    daemon.steps(4)
    assert daemon.follower.whole


def test_a_new_holder_is_asked_once_it_answers(daemon: Conntrackd) -> None:
    """What it was asked before, it answered before its commit: with nothing."""
    daemon.steps(5)
    assert daemon.follower.whole
    daemon.follower.observe(here=False, answers=True)
    daemon.steps(1)
    assert daemon.asked == ["-n", "-n"]
    assert not daemon.follower.whole
    daemon.steps(20)
    assert daemon.follower.whole
    assert daemon.asked == ["-n", "-n"]


def test_connections_of_an_old_holder_are_cleared_once_the_other_host_serves(daemon: Conntrackd) -> None:
    Path(replica.MARK).write_text("50.0")
    daemon.steps(5)
    daemon.follower.observe(here=False, answers=True)
    daemon.steps(2)
    assert "-F" not in daemon.asked
    daemon.steps(10)
    assert daemon.asked.count("-F") == 1


def test_what_a_start_commits_is_not_cleared_for_the_last_answers_of_the_old_holder(daemon: Conntrackd) -> None:
    """A planned move: the start begins before three probes in a row were lost."""
    daemon.follower.observe(here=False, answers=True)
    daemon.steps(60)
    replica.Commit(daemon, lambda: daemon.now).join(ocf.Deadline(10))
    daemon.steps(3)
    assert "-F" not in daemon.asked
    daemon.follower.observe(here=True, answers=False)
    daemon.steps(60)
    daemon.follower.observe(here=False, answers=False)
    daemon.steps(1)
    daemon.follower.observe(here=False, answers=True)
    daemon.steps(5)
    assert "-F" in daemon.asked


def test_what_a_start_that_was_refused_has_committed_is_cleared_in_the_end(daemon: Conntrackd) -> None:
    daemon.follower.observe(here=False, answers=True)
    daemon.steps(5)
    replica.Commit(daemon, lambda: daemon.now).join(ocf.Deadline(10))
    daemon.steps(600)
    assert "-F" not in daemon.asked
    daemon.steps(2)
    assert "-F" in daemon.asked


def test_connections_are_kept_while_nobody_serves_or_this_host_does(daemon: Conntrackd) -> None:
    Path(replica.MARK).write_text("50.0")
    daemon.steps(20)
    daemon.follower.observe(here=True, answers=False)
    daemon.steps(20)
    assert "-F" not in daemon.asked


def test_a_daemon_that_does_not_answer_is_told(daemon: Conntrackd) -> None:
    daemon.steps(5)
    daemon.errors["-s"] = "conntrackd -s did not end within 2.0 s"
    daemon.steps(1)
    assert (daemon.follower.whole, daemon.follower.why) == (False, "conntrackd -s did not end within 2.0 s")


# The attribute


def test_a_moment_without_it_is_not_written(daemon: Conntrackd, log: Recorder) -> None:
    told: list[int] = []
    attribute = watcher.Attribute("replica", log)
    attribute.set = lambda verdict: told.append(verdict.value)  # type: ignore[method-assign]
    attribute.work = lambda: None  # type: ignore[method-assign]
    kept = watcher.Replica(daemon.follower, attribute, lambda: daemon.now)
    kept.work(here=False, answers=True)
    assert told == []
    daemon.steps(1)
    kept.work(here=False, answers=True)
    assert told == [0]
    for whole, seconds in ((True, 1.0), (False, 8.0)):
        daemon.follower.whole = whole
        kept.work(here=False, answers=True)
        daemon.now += seconds
    assert told == [0, 1]
    daemon.now += 3
    kept.work(here=False, answers=True)
    assert told == [0, 1, 0]


# The commit


def test_a_commit_tells_how_many_and_how_long(daemon: Conntrackd) -> None:
    daemon.flows = 20480
    commit = replica.Commit(daemon)
    commit.join(ocf.Deadline(10))
    assert daemon.asked[0] == "-c"
    assert Path(replica.MARK).exists()
    assert (commit.flows, commit.whole) == (20480, False)
    assert commit.seconds is not None
    assert commit.error == ""


def test_the_internal_cache_is_compared_with_the_kernel_after_the_commit_and_only_once(daemon: Conntrackd) -> None:
    """The other host asks for the internal cache, and a large commit is mostly missing in it."""
    slow = threading.Event()

    def compare(argv: Sequence[str], seconds: float) -> str:
        if argv[1] == "-R":
            slow.wait(20)
        return daemon(argv, seconds)

    commit = replica.Commit(compare)
    commit.join(ocf.Deadline(10))
    assert commit.afterwards() == ["-f external", "-R"]
    slow.set()
    end = time.monotonic() + 10
    while len(commit.afterwards()) == 2 and time.monotonic() < end:
        time.sleep(0.01)
    assert commit.afterwards() == ["-f external"]
    assert daemon.asked == ["-c", "-R"]


def test_a_commit_that_fails_says_why(daemon: Conntrackd) -> None:
    daemon.errors["-s"] = "conntrackd -s ended with 1: can't connect"
    commit = replica.Commit(daemon)
    commit.join(ocf.Deadline(10))
    assert (commit.flows, commit.seconds, commit.error) == (None, None, "conntrackd -s ended with 1: can't connect")


@pytest.mark.usefixtures("daemon")
def test_a_commit_that_hangs_is_left_at_the_deadline() -> None:
    end = threading.Event()

    def hang(argv: Sequence[str], seconds: float) -> str:
        end.wait(20)
        return STATISTICS.format(flows=1, received=1)

    commit = replica.Commit(hang)
    commit.join(ocf.Deadline(0.05))
    assert commit.error.startswith("it was not done within ")
    assert commit.seconds is None
    end.set()


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["evernat-no-such-command"], "evernat-no-such-command: .*No such file"),
        (["sh", "-c", "echo is conntrackd running >&2; exit 1"], "ended with 1: is conntrackd running"),
        (["sleep", "20"], "did not end within 0.2 s"),
    ],
)
def test_a_command_that_fails_is_told(argv: list[str], reason: str) -> None:
    with pytest.raises(replica.ReplicaError, match=reason):
        replica.run_command(argv, 0.2)
