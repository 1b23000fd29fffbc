# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Traffic of a client through the fabric: starts the servers and the client, follows what the client writes down.

traffic = Traffic(fabric, Path("run.jsonl"))
traffic.start(deadline)
... a fault ...
mark = traffic.mark("fault")
traffic.wait_until_flowing(deadline, since=mark)
record = traffic.stop()
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from lab.vpc.fabric import SERVER_ADDRESSES, Fabric
from lab.vpc.record import MINIMUM_GAP, Record, read
from lab.vpc.server import BULK_RATE

ROOT = Path(__file__).resolve().parents[2]
POLL = 0.02
STOP_SECONDS = 5.0


ESTABLISHED_SECONDS = 3.0  # a kernel takes a UDP exchange for a stream after 2 s: what is younger is not replicated
FLOWS_SECONDS = 5.0  # for a busy machine's connections to go on


class TrafficError(Exception):
    """The traffic did not start, or did not flow in time."""


@dataclass(frozen=True)
class TrafficSettings:
    """Intervals and durations in seconds; long TCP connections: how many that talk, how many that only listen.

    `bulk`: whether there is a bulk download too, `bulk_rate`: how fast, in Mbit/s.
    """

    udp_interval: float = 0.01
    tcp_interval: float = 0.1
    echo_flows: int = 10
    download_flows: int = 10
    bulk: bool = True
    bulk_rate: float = BULK_RATE
    maximum: float = 900.0


def patience(outage: float) -> float:
    """Seconds after an outage of so many seconds within which a long connection goes on, if it does at all.

    TCP doubles the time between two tries, so the next one comes at most as long after the outage as that lasted.
    """
    return outage + FLOWS_SECONDS


def _last_data(event: dict[str, Any]) -> float:
    """When a flow's last data came, after one of its events: never yet, or for ever once it is closed."""
    if event["event"] == "opening":
        return -math.inf
    return math.inf if event["event"] == "closed" else event.get("last", event["t"])


class Answer(NamedTuple):
    """A probe that came back: when it was sent, when the answer arrived."""

    sent: float
    arrived: float


class Traffic:
    """One client's traffic and its record file. As a context manager it ends what was started."""

    def __init__(
        self, fabric: Fabric, record: Path, client: str = "client", settings: TrafficSettings | None = None
    ) -> None:
        self._fabric = fabric
        self._path = record
        self._client_key = client
        self._settings = settings or TrafficSettings()
        self._processes: list[subprocess.Popen[str]] = []
        self._answers: dict[int, Answer] = {}  # by the number of the probe
        self._flows: dict[str, float] = {}  # by the connection's name: when its last data came
        self._last_line = ""
        self._started = time.monotonic()
        self._offset = 0

    def __enter__(self) -> Traffic:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_processes()

    def start(self, deadline: float) -> None:
        """Start servers and client, return when both run. `deadline`: a time.monotonic() value. Raises TrafficError."""
        self._started = time.monotonic()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text("")
        settings = self._settings
        rate = f"--bulk-rate={settings.bulk_rate}"
        server = self._spawn(self._fabric.internet_netns, "lab.vpc.server", rate, *SERVER_ADDRESSES)
        self._wait_for_ready(server, deadline)
        self._spawn(
            self._fabric.namespace(self._client_key),
            "lab.vpc.client",
            f"--udp-interval={settings.udp_interval}",
            f"--tcp-interval={settings.tcp_interval}",
            f"--echo-flows={settings.echo_flows}",
            f"--download-flows={settings.download_flows}",
            "--bulk" if settings.bulk else "--no-bulk",
            f"--seconds={settings.maximum}",
            str(self._path),
            *SERVER_ADDRESSES,
        )
        while not self._last_line:
            self._check(deadline, "the client to start")
            self._follow()

    def mark(self, label: str) -> float:
        """Write a mark into the record; returns its time."""
        moment = time.monotonic()
        line = json.dumps({"t": moment, "kind": "mark", "label": label}) + "\n"
        with self._path.open("a") as file:
            file.write(line)
        return moment

    def wait_until_flowing(self, deadline: float, since: float, probes: int = 5) -> float:
        """Wait until so many probes in a row, sent after this call, were answered: make the fault before it.

        Returns when the unbroken row of answers began, looking back no further than to probes sent at `since`.
        """
        called = max(time.monotonic(), since)
        while True:
            self._follow()
            number = next(reversed(self._answers), 0)
            row = [self._answers.get(number - step) for step in range(probes)]
            if all(answer is not None and answer.sent >= called for answer in row):
                while (earlier := self._answers.get(number - 1)) is not None and earlier.sent >= since:
                    number -= 1
                return self._answers[number].arrived
            self._check(deadline, f"{probes} answered probes in a row")

    def wait_until_open(self, deadline: float) -> None:
        """Wait until every long connection is made: only then can a fault hit it."""
        self.wait_for_flows(deadline, since=-math.inf)

    def wait_until_established(self, deadline: float) -> None:
        """Wait until every long connection is made, and the UDP exchange old enough to be one in a kernel's eyes."""
        self.wait_until_open(deadline)
        now = time.monotonic()
        self.wait_until_flowing(deadline, since=now, probes=round(ESTABLISHED_SECONDS / self._settings.udp_interval))

    def wait_for_flows(self, deadline: float, since: float) -> None:
        """Wait until every long connection got data after `since`, or was closed: see `patience()`."""
        while True:
            self._follow()
            waiting = [name for name, last in self._flows.items() if last <= since]
            if not waiting:
                return
            self._check(deadline, f"data on {', '.join(waiting)}")

    def stop(self, minimum_gap: float = MINIMUM_GAP) -> Record:
        """End the client and the servers; returns what the client saw. `minimum_gap` of an outage in seconds."""
        self._end_processes()
        return read(self._path, minimum_gap)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        """Read what the client has written since the last time, but for a line that is not whole yet."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            lines = file.read().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            del lines[-1]
        for line in lines:
            self._offset += len(line)
            self._note(json.loads(line))
        if lines:
            self._last_line = lines[-1].decode().strip()

    def _note(self, event: dict[str, Any]) -> None:
        if event["kind"] == "udp":
            self._answers[event["n"]] = Answer(event["sent"], event["t"])
        elif event["kind"] == "flow":
            self._flows[event["flow"]] = _last_data(event)

    def _spawn(self, namespace: str, module: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            start_new_session=True,  # a Ctrl-C is for the parent, which then closes the pipe
        )
        self._processes.append(process)
        return process

    def _wait_for_ready(self, process: subprocess.Popen[str], deadline: float) -> None:
        assert process.stdout is not None
        readable, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        if not readable or process.stdout.readline() != "ready\n":
            raise TrafficError(f"the servers did not start in time (exit status so far: {process.poll()})")

    def _check(self, deadline: float, what: str) -> None:
        """Sleep a little. Raises TrafficError when the deadline is over or a process has ended."""
        for process in self._processes:
            if process.poll() is not None:
                raise TrafficError(f"while waiting for {what}: {process.args!r} ended with {process.returncode}")
        if time.monotonic() > deadline:
            waited = deadline - self._started
            raise TrafficError(f"no {what} until {waited:.1f} s after the start; the last line: {self._last_line}")
        time.sleep(POLL)

    def _end_processes(self) -> None:
        """The client first, so that it can wait for its last answers."""
        while self._processes:
            process = self._processes.pop()
            assert process.stdin is not None
            assert process.stdout is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
