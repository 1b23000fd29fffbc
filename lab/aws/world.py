# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the patches on moto share: the settings, the hooks, the one lock, and the work that comes after a call."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from lab.aws.hooks import Hooks
from lab.aws.settings import AwsSettings

log = logging.getLogger("lab.aws")


class Closed(Exception):
    """The emulator was closed while something waited."""


class World:
    """The state round one emulated AWS. moto's own state is global, so there is one at a time."""

    def __init__(self, settings: AwsSettings, hooks: Hooks) -> None:
        self.settings = settings
        self.hooks = hooks
        self.lock = threading.RLock()
        self.closing = threading.Event()
        self.on_change: Callable[[], None] = lambda: None
        self._later = threading.local()
        self._threads: set[threading.Thread] = set()

    def after_call(self, delay: float, task: Callable[[], None]) -> None:
        """Run the task once the current call has let go of the lock: at once, or in a thread if it has to wait.

        The task does its own waiting (`wait`); the delay is told for the choice between the two.
        """
        tasks = getattr(self._later, "tasks", None)
        if tasks is None:
            self._start(delay, task)
        else:
            tasks.append((delay, task))

    def call(self, action: Callable[[], Any]) -> Any:
        """Carry out one call on moto under the lock, then start what it has left to do."""
        self._later.tasks = []
        try:
            with self.lock:
                return action()
        finally:
            tasks, self._later.tasks = self._later.tasks, None
            for delay, task in tasks:
                self._start(delay, task)

    def take_effect(self, delay: float, change: Callable[[], None]) -> None:
        """Make a change of the account so long after the current call: within the call if there is no delay."""
        if delay <= 0:
            change()
            return

        def make() -> None:
            self.wait(delay)
            with self.lock:
                change()
            self.changed()

        self.after_call(delay, make)

    def wait(self, seconds: float) -> None:
        """Let time pass. Raises Closed when the emulator is closed meanwhile."""
        if seconds > 0 and self.closing.wait(seconds):
            raise Closed

    def wait_for(self, event: threading.Event) -> None:
        """Wait for another transition of this emulator to end."""
        while not event.wait(0.2):
            if self.closing.is_set():
                raise Closed

    def changed(self) -> None:
        """Something of the network may look different from now on."""
        self.on_change()

    def hook(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a hook. Its errors are logged: an EC2 call has no one to tell them to."""
        try:
            return function(*arguments)
        except Exception:
            log.exception("hook %s%r failed", function.__name__, arguments)
            return None

    def _start(self, delay: float, task: Callable[[], None]) -> None:
        def run() -> None:
            try:
                task()
            except Closed:
                pass
            except Exception:
                log.exception("a transition failed")
            finally:
                self._threads.discard(threading.current_thread())

        if delay <= 0 and type(self.hooks) is Hooks:
            run()  # nothing to wait for: the caller may rely on the final state
        else:
            thread = threading.Thread(target=run, name="lab-aws-transition", daemon=True)
            self._threads.add(thread)
            thread.start()

    def close(self, timeout: float) -> None:
        """End what waits, and give hooks that still run so many seconds in all."""
        self.closing.set()
        deadline = time.monotonic() + timeout
        for thread in list(self._threads):
            thread.join(max(0.0, deadline - time.monotonic()))


class Notifier:
    """Tells `network_changed` in a thread of its own: serialised, the latest picture wins, no picture twice."""

    def __init__(self, world: World, take: Callable[[], Any]) -> None:
        self._world = world
        self._take = take
        self._condition = threading.Condition()
        self._wanted = self._told = 0
        self._last: Any = None
        self._thread = threading.Thread(target=self._run, name="lab-aws-notifier", daemon=True)
        self._thread.start()

    def poke(self) -> None:
        with self._condition:
            self._wanted += 1
            self._condition.notify_all()

    def flush(self, timeout: float) -> None:
        """Wait until every change so far was told. Raises TimeoutError after so many seconds."""
        deadline = time.monotonic() + timeout
        with self._condition:
            wanted = self._wanted
            while self._told < wanted:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"network_changed has not caught up within {timeout:g} s")
                self._condition.wait(left)

    def close(self) -> None:
        with self._condition:
            self._condition.notify_all()
        self._thread.join(5)

    def _run(self) -> None:
        while True:
            with self._condition:
                while self._told == self._wanted and not self._world.closing.is_set():
                    self._condition.wait(0.5)
                if self._world.closing.is_set():
                    return
                wanted = self._wanted
            snapshot = self._take()
            if snapshot != self._last:
                self._world.hook(self._world.hooks.network_changed, snapshot)
                self._last = snapshot
            with self._condition:
                self._told = wanted
                self._condition.notify_all()


_current: World | None = None


def world() -> World:
    """The world of the emulator that runs in this process."""
    if _current is None:
        raise RuntimeError("no emulator is running in this process")
    return _current


def enter(new: World) -> None:
    global _current
    if _current is not None:
        raise RuntimeError("another emulator is running in this process: moto's state is global")
    _current = new


def leave() -> None:
    global _current
    _current = None
