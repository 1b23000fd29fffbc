# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The replica of the other host's connections, which conntrackd keeps in its external cache on this one.

A start commits it to the kernel before the link comes up. Whatever is wrong with conntrackd is told and never fails a
start: connections are lost then, and the ENI is served all the same.
"""

from __future__ import annotations

import subprocess
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ocf import Deadline

COMMAND = "conntrackd"
STATISTICS_SECONDS = 1.0
COMMIT_SECONDS = 10.0  # about 10 us a connection: enough for a million
AFTERWARDS = "conntrackd -f external; conntrackd -R"


class ReplicaError(Exception):
    """conntrackd did not do what it was asked to."""


class Commit:
    """The commit of the external cache, beside whatever else a start does meanwhile.

    flows: connections in the cache when it began; None if conntrackd did not tell. seconds: what it took, None while
    it is not done. error: why it failed, if it did.
    """

    def __init__(
        self, run: Callable[[Sequence[str], float], str] | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.flows: int | None = None
        self.seconds: float | None = None
        self.error = ""
        self._run = run or run_command
        self._now = now
        self._began = now()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def join(self, deadline: Deadline) -> None:
        """Wait for its end, as far as the deadline and COMMIT_SECONDS from its beginning allow."""
        self._thread.join(min(deadline.left(), max(0.0, self._began + COMMIT_SECONDS - self._now())))
        if self._thread.is_alive() and not self.error:
            self.error = f"it was not done within {self._now() - self._began:.1f} s"

    def _work(self) -> None:
        try:
            self.flows = external_flows(self._run([COMMAND, "-s"], STATISTICS_SECONDS))
            self._run([COMMAND, "-c"], COMMIT_SECONDS)
            self.seconds = self._now() - self._began
        except ReplicaError as error:
            self.error = str(error)


def tidy_up() -> None:
    """After a takeover, in the background: what was committed is this host's own now.

    The external cache is emptied, so that no later commit brings back connections that have ended meanwhile, and the
    internal one, which the other host asks for, is compared with the kernel.
    """
    try:
        subprocess.Popen(
            ["sh", "-c", AFTERWARDS],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise ReplicaError(f"sh: {error}") from error


def external_flows(statistics: str) -> int | None:
    """The size of the external cache, from `conntrackd -s`; None if it is not told."""
    _unused, found, external = statistics.partition("cache external:")
    name, _unused, rest = external.strip().partition(":")
    number = rest.split()[:1]
    return int(number[0]) if found and name == "current active connections" and number[0].isdigit() else None


def run_command(argv: Sequence[str], seconds: float) -> str:
    """What a command printed. Raises ReplicaError if it fails or takes longer."""
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False, encoding="utf-8"
        )
    except OSError as error:
        raise ReplicaError(f"{argv[0]}: {error}") from error
    except subprocess.TimeoutExpired:
        raise ReplicaError(f"{' '.join(argv)} did not end within {seconds:.0f} s") from None
    if done.returncode != 0:
        raise ReplicaError(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout
