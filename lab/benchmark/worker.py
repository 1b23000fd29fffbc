# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A process for each contender: the emulated AWS is global to a process, and the contenders take turns.

The command asks (build, steady, measure, restore), one contender at a time; the labs stay up between the rounds.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from lab.benchmark.contenders.contender import Contender, measure, steady
from lab.lab import OUT, Lab, LabSettings, purge

END_LIMIT = 90.0  # seconds for a worker to take its lab down


class WorkerError(Exception):
    """A contender's process failed at what it was asked, took too long, or ended."""


@dataclass(frozen=True)
class Task:
    """What a worker needs to begin: all of it can be pickled."""

    name: str
    make: Callable[[Lab, Callable[[str], None]], Contender]
    settings: LabSettings
    began: float  # of the whole benchmark, for the progress lines


def say(began: float, who: str, words: str) -> None:
    """One line of progress."""
    print(f"[{time.monotonic() - began:5.0f} s] {who}: {words}", flush=True)


class Worker:
    """The command's end of one contender's process."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._context = multiprocessing.get_context("spawn")
        self._start()

    def _start(self) -> None:
        self._pipe, theirs = self._context.Pipe()
        self._process = self._context.Process(target=serve, args=(theirs, self.task), name=self.task.name)
        self._process.start()
        theirs.close()

    def ask(self, what: str, *arguments: Any) -> None:
        """Send a request; `answer` waits for what comes of it. WorkerError if the process is gone."""
        try:
            self._pipe.send((what, arguments))
        except OSError as error:
            raise WorkerError(f"its process has ended: {error}") from error

    def answer(self, timeout: float) -> Any:
        """The result of the last request. WorkerError if it failed, or was not there in so many seconds."""
        if not self._pipe.poll(timeout):
            raise WorkerError(f"no answer after {timeout:g} s")
        try:
            good, result = self._pipe.recv()
        except EOFError:
            raise WorkerError(f"its process ended with {self._process.exitcode}") from None
        if not good:
            raise WorkerError(result)
        return result

    def call(self, timeout: float, what: str, *arguments: Any) -> Any:
        self.ask(what, *arguments)
        return self.answer(timeout)

    def restart(self) -> None:
        """A new process with a new lab of the same name."""
        self.end()
        self._start()

    def end(self) -> None:
        """Take the lab down, by force if need be."""
        if self._process.is_alive():
            self._process.terminate()  # it may be busy: SIGTERM ends that, and the lab goes down in order
        self._pipe.close()
        self._process.join(END_LIMIT)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        if self._process.exitcode != 0:
            purge(self.task.settings.name)


def serve(pipe: Connection, task: Task) -> None:
    """The process: a lab with a contender on it, until the command closes the pipe or sends SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the command's: it ends its workers
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    with Lab(task.settings) as lab:
        contender = task.make(lab, lambda words: say(task.began, task.name, words))
        doing: dict[str, Callable[..., Any]] = {
            "build": lambda: (contender.build(), contender.settings())[1],
            "steady": lambda seconds: steady(contender, seconds),
            "measure": lambda fault: measure(contender, fault, OUT / f"bench-traffic-{task.name}.jsonl"),
            "restore": contender.restore,
        }
        while True:
            try:
                what, arguments = pipe.recv()
            except EOFError:
                return
            try:
                reply = (True, doing[what](*arguments))
            except Exception as error:  # goes into the record; the benchmark goes on
                reply = (False, f"{type(error).__name__}: {error}")
            pipe.send(reply)
