# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The replica of the other host's connections, which conntrackd keeps in its external cache on this one.

`Commit` puts it into the kernel while a start waits for EC2. `Follower` looks after it while the ENI is elsewhere: asks
the other host for all it has, tells when that has come, and clears the kernel of connections that are over. Whatever is
wrong with conntrackd is told and never fails a start: connections are lost then, and the ENI is served all the same.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ocf import Deadline

    Run = Callable[[Sequence[str], float], str]

COMMAND = "conntrackd"
SOCKET = "/run/conntrackd.ctl"
# This kernel may hold connections of the clients, since a start that began at the time within (monotonic seconds).
MARK = "/run/evernat-connections"
# What the Follower thinks of the replica, for a start to tell.
STATE = "/run/evernat-replica"
REQUEST_SECONDS = 5.0
STATISTICS_SECONDS = 2.0
COMMIT_SECONDS = 10.0  # about 10 us a connection: enough for a million
COMPARE_SECONDS = 10.0

ANSWER_SECONDS = 2.5  # conntrackd says something each second, and asks again for what it missed
SETTLED_FLOWS, SETTLED_SHARE = 100, 0.01  # growth in a second that is everyday business, not the answer to a request
ANSWERED_SECONDS = 60.0  # by then the answer is here: a table that still grows as fast grows by itself
ASK_AGAIN_SECONDS = 10.0
SILENT_SECONDS = 10.0
SERVED_SECONDS = 2.0  # how long the ENI must have answered elsewhere for its connections here to be over
START_SECONDS = 600.0  # longer than any start takes


class ReplicaError(Exception):
    """conntrackd did not do what it was asked to."""


class Sample:
    """What `conntrackd -s` told: when (monotonic seconds), connections in the external cache, packets from the peer."""

    def __init__(self, at: float, flows: int, received: int) -> None:
        self.at = at
        self.flows = flows
        self.received = received


def parse_statistics(text: str, at: float) -> Sample:
    """Raises ReplicaError where one of the two numbers is not told."""
    _unused, _unused, external = text.partition("cache external:")
    cache, _unused, network = external.partition("UDP traffic")
    flows = _number_after("current active connections:", cache)
    received = _number_before("Pckts recv", network)
    if flows is None or received is None:
        raise ReplicaError(f"conntrackd -s told neither of cache and traffic: {text[:200]!r}")
    return Sample(at, flows, received)


def is_whole(asked: Sample, before: Sample, now: Sample) -> bool:
    """Whether the answer to a request for all connections has come.

    asked: as the request was sent. before, now: two samples after it. The peer must have been heard since, and what
    comes must be no more than what connections that come and go make up, for the answer comes at once and in one piece.
    """
    if now.at - asked.at < ANSWER_SECONDS or now.received <= asked.received or now.at <= before.at:
        return False
    growth = (now.flows - before.flows) / (now.at - before.at)
    return growth < max(SETTLED_FLOWS, SETTLED_SHARE * now.flows) or now.at - asked.at > ANSWERED_SECONDS


class Commit:
    """The commit of the external cache, beside whatever else a start does meanwhile.

    flows: connections in the cache when it began; None if conntrackd did not tell. whole: whether the Follower took it
    for whole. seconds: what it took, None while it is not done. error: why it failed, if it did.
    """

    def __init__(self, run: Run | None = None, now: Callable[[], float] = time.monotonic) -> None:
        self.flows: int | None = None
        self.whole = read_state()
        self.seconds: float | None = None
        self.error = ""
        self._compared = False
        self._run = run or run_command
        self._now = now
        self._began = now()
        self._done = threading.Event()
        threading.Thread(target=self._work, daemon=True).start()

    def join(self, deadline: Deadline) -> None:
        """Wait for its end, as far as the deadline and COMMIT_SECONDS from its beginning allow."""
        left = min(deadline.left(), max(0.0, self._began + COMMIT_SECONDS - self._now()))
        if not self._done.wait(left):
            self.error = f"it was not done within {self._now() - self._began:.1f} s"

    def afterwards(self) -> list[str]:
        """What is left to do once the ENI is in service: options of conntrackd, in their order.

        What was committed is this host's own now: a later commit must not bring back connections that have ended. And
        the other host, which asks for this one's connections as soon as the ENI answers, must be told of all.
        """
        return ["-f external"] if self._compared else ["-f external", "-R"]

    def _work(self) -> None:
        try:
            _write(MARK, str(self._began))
            self.flows = parse_statistics(self._run([COMMAND, "-s"], STATISTICS_SECONDS), self._now()).flows
            self._run([COMMAND, "-c"], COMMIT_SECONDS)
            self.seconds = self._now() - self._began
            self._done.set()
            # A large commit makes more events than conntrackd can hear (of 100 000, 13 000 were in its internal cache
            # then). Nobody waits for this, and it is mostly over before the link comes.
            self._run([COMMAND, "-R"], COMPARE_SECONDS)
            self._compared = True
        except (ReplicaError, OSError) as error:
            if not self._done.is_set():
                self.error = str(error)
                self._done.set()


def run_in_background(options: Sequence[str]) -> None:
    """Ask conntrackd for one thing after the other, without waiting. Raises ReplicaError."""
    try:
        subprocess.Popen(
            ["sh", "-c", "; ".join(f"{COMMAND} {option}" for option in options)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise ReplicaError(f"sh: {error}") from error


class Follower:
    """Looks after the replica, one step a second, in a thread of its own: conntrackd may be slow to answer.

    `whole` tells whether all connections of the other host are here, `why` why that is thought: empty before the first
    judgement.
    """

    def __init__(
        self,
        run: Run | None = None,
        daemon: Callable[[], object] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.whole = False
        self.why = ""
        self._seen: tuple[bool, bool] | None = None  # nothing was observed yet
        self._changed = threading.Event()
        self._run = run or run_command
        self._daemon = daemon or _daemon
        self._now = now
        self._known: object = None  # the daemon that was there in the last step
        self._was_here = self._answered = False
        self._served_since: float | None = None
        self._asked: Sample | None = None
        self._before: Sample | None = None
        self._heard = 0.0

    def start(self) -> None:
        threading.Thread(target=self._follow, daemon=True).start()

    def observe(self, here: bool, answers: bool) -> None:
        """What the watcher saw: the ENI is on this host; it answers from elsewhere. A change is looked into at once."""
        if (here, answers) != self._seen:
            self._seen = here, answers
            self._changed.set()

    def _follow(self) -> None:
        while True:
            self._changed.wait(1.0)
            self._changed.clear()
            self.step()

    def step(self) -> None:
        """Look, ask, judge."""
        if self._seen is None:
            return
        here, answers = self._seen
        daemon = self._daemon()
        is_new, self._known = daemon != self._known, daemon
        # A new holder has its connections in the kernel as soon as it answers, not when the old one loses the ENI.
        moved = (self._was_here and not here) or (answers and not self._answered)
        self._was_here, self._answered = here, answers
        if here:
            self._hold(is_new)
        elif daemon is None:
            self._tell(False, "conntrackd does not run")
            self._asked = None
        else:
            try:
                self._stand_by(is_new or moved)
            except ReplicaError as error:
                self._tell(False, str(error))
                self._asked = None

    def _hold(self, is_new: bool) -> None:
        """The holder's own kernel is the truth. What a new daemon has missed, the other host has missed, too."""
        self._served_since = self._asked = None
        self._tell(True, "it is here")
        if is_new and self._known is not None:
            with contextlib.suppress(ReplicaError):  # the other host asks as well, once it hears nothing
                self._run([COMMAND, "-B"], REQUEST_SECONDS)

    def _stand_by(self, ask: bool) -> None:
        self._clear_kernel()
        now = self._sample()
        if ask or self._asked is None or self._is_lost(now):
            self._run([COMMAND, "-n"], REQUEST_SECONDS)
            self._asked = self._before = now
            self._heard = now.at
            self._tell(False, "the other host was asked for its connections")
        elif self._before is not None:
            if now.received > self._before.received:
                self._heard = now.at
            if not self.whole and is_whole(self._asked, self._before, now):
                self._tell(True, f"{now.flows} connections")
            elif self.whole and now.at - self._heard > SILENT_SECONDS:
                self._tell(False, f"conntrackd of the other host was not heard for {SILENT_SECONDS:.0f} s")
            self._before = now

    def _is_lost(self, now: Sample) -> bool:
        """Whether a request had no answer, or its answer has become old."""
        asked = self._asked
        return asked is not None and not self.whole and now.at - max(asked.at, self._heard) > ASK_AGAIN_SECONDS

    def _clear_kernel(self) -> None:
        """Connections that were here are the other host's now: one that has ended there must not come back."""
        now = self._now()
        if not self._answered:
            self._served_since = None
        elif self._served_since is None:
            self._served_since = now
        elif now - self._served_since >= SERVED_SECONDS and self._are_over(now, self._served_since):
            with contextlib.suppress(OSError):
                os.unlink(MARK)
            self._run([COMMAND, "-F"], REQUEST_SECONDS)

    @staticmethod
    def _are_over(now: float, served_since: float) -> bool:
        """Not what a start has only just committed: the other host's last answers may be younger than that."""
        try:
            with open(MARK) as file:
                began = float(file.read())
        except FileNotFoundError:
            return False
        except (OSError, ValueError):
            return True
        return began < served_since or now - began > START_SECONDS

    def _sample(self) -> Sample:
        return parse_statistics(self._run([COMMAND, "-s"], STATISTICS_SECONDS), self._now())

    def _tell(self, whole: bool, why: str) -> None:
        if whole != self.whole or not os.path.exists(STATE):
            with contextlib.suppress(OSError):
                _write(STATE, "1" if whole else "0")
        self.whole, self.why = whole, why


def read_state() -> bool:
    """Whether the Follower takes the replica for whole; False where none has told."""
    try:
        with open(STATE) as file:
            return file.read().strip() == "1"
    except OSError:
        return False


def run_command(argv: Sequence[str], seconds: float) -> str:
    """What a command printed. Raises ReplicaError if it fails or takes longer."""
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False, encoding="utf-8"
        )
    except OSError as error:
        raise ReplicaError(f"{argv[0]}: {error}") from error
    except subprocess.TimeoutExpired:
        raise ReplicaError(f"{' '.join(argv)} did not end within {seconds:.1f} s") from None
    if done.returncode != 0:
        raise ReplicaError(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def _daemon() -> object:
    """What tells one conntrackd from the next: each makes its socket anew. None without one."""
    try:
        found = os.stat(SOCKET)
    except OSError:
        return None
    return found.st_ino, found.st_ctime_ns


def _number_after(name: str, text: str) -> int | None:
    words = text.partition(name)[2].split()
    return int(words[0]) if words and words[0].isdigit() else None


def _number_before(name: str, text: str) -> int | None:
    words = text.partition(name)[0].split()
    return int(words[-1]) if name in text and words and words[-1].isdigit() else None


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
