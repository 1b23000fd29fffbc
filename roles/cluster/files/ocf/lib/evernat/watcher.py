# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The watcher's daemon: may this host have the ENI? Its answer is a node attribute: 1 bars it, 0 does not.

`judge()` decides from what was observed, without I/O. `Watcher` observes a few times a second, and tells Pacemaker's
attribute daemon when the answer changes. A ring that is cut makes both hosts believe they are alone: a holder that
still answers on the ENI's address, asked by the primary link, proves that it serves, and is left alone.
"""

from __future__ import annotations

import socket
import subprocess
import threading
import time

import host
import icmp
from netlink import Netlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ocf import Log
    from replica import Follower

ANSWER_SECONDS = 0.1  # an answer takes less than a millisecond; a later one still counts when the next is waited for
PRIMARY_SECONDS = 5.0  # how long what is known of the primary link is taken for true
CONNECT_SECONDS = 0.5
CONNECT_ADDRESSES = 2
WAY_OPEN_SECONDS, WAY_CLOSED_SECONDS = 5.0, 0.5  # how long the result of a connect holds
RESOLVE_SECONDS, RESOLVE_AGAIN_SECONDS = 300.0, 5.0
UPDATE_SECONDS, UPDATE_AGAIN_SECONDS = 5.0, 1.0

NOT_WHOLE_SECONDS = 10.0  # each write of an attribute is work for Pacemaker, and a planned move is over by then

FREE, BARRED = 0, 1


class Verdict:
    def __init__(self, value: int, why: str) -> None:
        self.value = value
        self.why = why


def judge(here: bool, silent_probes: int, probes: int, way_open: Callable[[], bool]) -> Verdict | None:
    """The answer to what was observed; None while it is too early to tell: the last answer holds.

    here: the ENI's link is on this host. silent_probes: how many of our last requests in a row had no answer.
    way_open: whether this host can reach the EC2 endpoint; asked only where it matters.
    """
    if here:
        return Verdict(FREE, "it is here")
    if silent_probes == 0:
        return Verdict(BARRED, "it answers elsewhere")
    if silent_probes < probes:
        return None
    if way_open():
        return Verdict(FREE, "it is silent, and the EC2 endpoint can be reached")
    return Verdict(BARRED, "it is silent, but the EC2 endpoint cannot be reached")


class Way:
    """The way to the EC2 endpoint: a TCP connection, no API call.

    Names are resolved in a thread and ahead of need: the resolver may hang just when the answer counts.
    """

    def __init__(self, name: str, port: int, now: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._port = port
        self._now = now
        self._addresses: list[Any] = []
        self._thread: threading.Thread | None = None
        self._resolve_at = 0.0
        self._open = False
        self._good_until = 0.0

    def refresh(self) -> None:
        """Resolve the name anew if it is time; returns at once."""
        if self._now() < self._resolve_at or (self._thread is not None and self._thread.is_alive()):
            return
        self._resolve_at = self._now() + (RESOLVE_SECONDS if self._addresses else RESOLVE_AGAIN_SECONDS)
        self._thread = threading.Thread(target=self._resolve, daemon=True)
        self._thread.start()

    def is_open(self) -> bool:
        now = self._now()
        if now >= self._good_until:
            self._open = any(self._connects(address) for address in self._addresses[:CONNECT_ADDRESSES])
            self._good_until = self._now() + (WAY_OPEN_SECONDS if self._open else WAY_CLOSED_SECONDS)
            if not self._open:
                self._resolve_at = min(self._resolve_at, now + RESOLVE_AGAIN_SECONDS)
        return self._open

    def _resolve(self) -> None:
        try:
            found = socket.getaddrinfo(self._name, self._port, socket.AF_INET, socket.SOCK_STREAM)
        except OSError:
            return  # the last known addresses stay
        self._addresses = [entry[-1] for entry in found]

    @staticmethod
    def _connects(address: Any) -> bool:
        try:
            socket.create_connection(address, CONNECT_SECONDS).close()
        except OSError:
            return False
        return True


class Attribute:
    """The node attribute, written by `attrd_updater` in the background, and only when its value changes."""

    def __init__(self, name: str, log: Log, now: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.written: int | None = None
        self._log = log
        self._now = now
        self._verdict: Verdict | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._child_verdict: Verdict | None = None
        self._child_until = 0.0
        self._not_before = 0.0
        self._complained = False

    @property
    def settled(self) -> int | None:
        """The value that Pacemaker has; None while it is being written, or where the fate of a write is not known."""
        return self.written if self._child is None else None

    def set(self, verdict: Verdict) -> None:
        self._verdict = verdict

    def work(self) -> None:
        """Start, look after, or end the child; never waits."""
        if self._child is not None:
            self._look_after(self._child)
        if self._child is None and self._verdict is not None and self._verdict.value != self.written:
            self._begin(self._verdict)

    def close(self) -> None:
        """No write of ours may come after this."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None

    def _begin(self, verdict: Verdict) -> None:
        if self._now() < self._not_before:
            return
        self._not_before = self._now() + UPDATE_AGAIN_SECONDS
        try:
            self._child = subprocess.Popen(
                update_command(self.name, verdict.value),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            self._complain(str(error))
            return
        self._child_verdict = verdict
        self._child_until = self._now() + UPDATE_SECONDS

    def _look_after(self, child: subprocess.Popen[bytes]) -> None:
        code = child.poll()
        if code is None and self._now() < self._child_until:
            return
        self.written = None  # until it has ended well, Pacemaker may have either value
        if code is None:
            self.close()
            self._complain(f"attrd_updater did not end within {UPDATE_SECONDS:.0f} s")
            return
        self._child = None
        verdict = self._child_verdict
        if code != 0 or verdict is None:
            self._complain(f"attrd_updater ended with {code}")
            return
        self.written = verdict.value
        self._not_before = 0.0
        self._complained = False
        self._log("notice", attribute=self.name, value=verdict.value, why=verdict.why)

    def _complain(self, reason: str) -> None:
        """Once per trouble: Pacemaker may be away for long."""
        if not self._complained:
            self._log("warning", attribute=self.name, reason=reason)
        self._complained = True


def update_command(name: str, value: int) -> list[str]:
    return ["attrd_updater", "--name", name, "--update", str(value)]


class Replica:
    """What is known of the other host's connections here, as a node attribute: 1 if they are whole, 0 if not."""

    def __init__(self, follower: Follower, attribute: Attribute, now: Callable[[], float] = time.monotonic) -> None:
        self.attribute = attribute
        self._follower = follower
        self._now = now
        self._whole_at: float | None = None

    def work(self, here: bool, answers: bool) -> None:
        """Tell the follower what was observed, and Pacemaker what it found. Never waits."""
        follower = self._follower
        follower.observe(here, answers)
        if follower.whole:
            self._whole_at = self._now()
        is_news = self._whole_at is None or self._now() - self._whole_at > NOT_WHOLE_SECONDS
        if follower.why and (follower.whole or is_news):
            self.attribute.set(Verdict(int(follower.whole), follower.why))
        self.attribute.work()


class Watcher:
    """Observes, judges, writes. `beat` is called once a round with both attributes' values, None if not settled."""

    def __init__(
        self,
        mac: str,
        ip: str,
        interval: float,
        probes: int,
        way: Way,
        attribute: Attribute,
        beat: Callable[[int | None, int | None], None],
        replica: Replica | None = None,
    ) -> None:
        self.mac = mac
        self.ip = ip
        self.interval = interval
        self.probes = probes
        self.way = way
        self.attribute = attribute
        self.beat = beat
        self.replica = replica
        self.stopping = False
        self._silent = 0
        self._served = False  # by another host
        self._kernel: Netlink | None = None
        self._echo: icmp.Echo | None = None
        self._echo_until = 0.0

    def run(self) -> None:
        """Until `stopping` is set."""
        due = time.monotonic()
        while not self.stopping:
            due += self.interval
            self.round(due)
            self.beat(self.attribute.settled, self.replica.attribute.settled if self.replica else None)
            # After a freeze the rounds that were missed are not made up for.
            due = time.monotonic() if self._in_doubt else max(due, time.monotonic())
        self.attribute.close()
        if self.replica is not None:
            self.replica.attribute.close()

    @property
    def _in_doubt(self) -> bool:
        """It was silent, but not often enough to tell: asked again at once, as a takeover may wait for the answer."""
        return 0 < self._silent < self.probes

    def round(self, until: float) -> None:
        """One observation; takes until the given monotonic time, less while in doubt."""
        self.way.refresh()
        here = self._is_here()
        if here is None:
            pause(until)
        elif here:
            self._silent = 0
            pause(until)
        else:
            self._silent = 0 if self._answered(until) else self._silent + 1
        if here is not None:
            verdict = judge(here, self._silent, self.probes, self.way.is_open)
            if verdict is not None:
                self.attribute.set(verdict)
            if self.replica is not None:
                self.replica.work(here, self._is_served_elsewhere(here))
        self.attribute.work()

    def _is_served_elsewhere(self, here: bool) -> bool:
        """One probe that was lost does not end it."""
        if here or self._silent >= self.probes:
            self._served = False
        elif self._silent == 0:
            self._served = True
        return self._served

    def _is_here(self) -> bool | None:
        """None if the kernel did not tell."""
        try:
            if self._kernel is None:
                self._kernel = Netlink()
            return host.find_link(self.mac, self._kernel.links()) is not None
        except OSError:
            self._kernel = None
            return None

    def _answered(self, until: float) -> bool:
        try:
            echo = self._open_echo()
            if echo is None:
                pause(until)
                return False
            echo.send()
            answered = echo.answered(min(ANSWER_SECONDS, max(0.0, until - time.monotonic())))
            if answered or self._silent + 1 >= self.probes:
                pause(until)
            return echo.drain() or answered
        except OSError:
            self._echo_until = 0.0  # the primary link may have changed
            pause(until)
            return False

    def _open_echo(self) -> icmp.Echo | None:
        now = time.monotonic()
        if self._echo is not None and now < self._echo_until:
            return self._echo
        if self._echo is not None:
            self._echo.close()
            self._echo = None
        source = host.read_primary(self.mac)
        if source is not None:
            self._echo = icmp.Echo(source, self.ip)
            self._echo_until = now + PRIMARY_SECONDS
        return self._echo


def pause(until: float) -> None:
    left = until - time.monotonic()
    if left > 0:
        time.sleep(left)
