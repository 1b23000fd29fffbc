# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""conntrackd beside a start: what it told, how long it took, and that nothing of it can fail or hold up the start."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

import ocf  # isort: skip
import replica  # isort: skip

STATISTICS = """cache internal:
current active connections:\t           3
connections created:\t\t          11\tfailed:\t           0

cache external:
current active connections:\t       20480
connections created:\t\t       20481\tfailed:\t           0

traffic processed:
                   0 Bytes                         0 Pckts
"""


class Conntrackd:
    """Answers as it is told here, and keeps what it was asked."""

    def __init__(self, **answers: str | Exception) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def __call__(self, argv: Sequence[str], seconds: float) -> str:
        assert argv[0] == "conntrackd"
        self.asked.append(argv[1])
        answer = self.answers.get(argv[1].lstrip("-"), "")
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_the_size_of_the_external_cache_is_read() -> None:
    assert replica.external_flows(STATISTICS) == 20480


@pytest.mark.parametrize(
    "text",
    ["", "cache internal:\ncurrent active connections: 3\n", "cache external:\n", "cache external:\nx: 3"],
)
def test_no_size_is_made_up(text: str) -> None:
    assert replica.external_flows(text) is None


def test_a_commit_tells_how_many_and_how_long() -> None:
    daemon = Conntrackd(s=STATISTICS)
    commit = replica.Commit(daemon)
    commit.join(ocf.Deadline(10))
    assert daemon.asked == ["-s", "-c"]
    assert commit.flows == 20480
    assert commit.seconds is not None
    assert commit.error == ""


def test_a_commit_that_fails_says_why() -> None:
    commit = replica.Commit(Conntrackd(s=replica.ReplicaError("conntrackd -s ended with 1: can't connect")))
    commit.join(ocf.Deadline(10))
    assert (commit.flows, commit.seconds, commit.error) == (None, None, "conntrackd -s ended with 1: can't connect")


def test_a_commit_that_hangs_is_left_at_the_deadline() -> None:
    end = threading.Event()

    def hang(argv: Sequence[str], seconds: float) -> str:
        end.wait(20)
        return ""

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
        (["sleep", "20"], "did not end within 0 s"),
    ],
)
def test_a_command_that_fails_is_told(argv: list[str], reason: str) -> None:
    with pytest.raises(replica.ReplicaError, match=reason):
        replica.run_command(argv, 0.2)
