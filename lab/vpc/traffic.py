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
import os
import select
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from lab.vpc.fabric import SERVER_ADDRESSES, Fabric
from lab.vpc.record import MINIMUM_GAP, Record, complete_events, read

ROOT = Path(__file__).resolve().parents[2]
POLL = 0.02
STOP_SECONDS = 5.0


class TrafficError(Exception):
    """The traffic did not start, or did not flow in time."""


@dataclass(frozen=True)
class TrafficSettings:
    """Intervals and durations in seconds; how many long TCP connections of each kind."""

    udp_interval: float = 0.01
    tcp_interval: float = 0.1
    echo_flows: int = 1
    download_flows: int = 1
    maximum: float = 900.0


class Traffic:
    """One client's traffic and its record file. Use start() and stop(), or as a context manager."""

    def __init__(
        self, fabric: Fabric, record: Path, client: str = "client", settings: TrafficSettings | None = None
    ) -> None:
        self._fabric = fabric
        self._path = record
        self._client_key = client
        self._settings = settings or TrafficSettings()
        self._processes: list[subprocess.Popen[str]] = []
        self._events: list[dict[str, Any]] = []
        self._offset = 0
        self._rest = ""

    def __enter__(self) -> Traffic:
        self.start(time.monotonic() + 10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_processes()

    def start(self, deadline: float) -> None:
        """Start servers and client, return when both run. `deadline`: a time.monotonic() value. Raises TrafficError."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text("")
        server = self._spawn(self._fabric.internet_netns, "lab.vpc.server", *SERVER_ADDRESSES)
        self._wait_for_ready(server, deadline)
        settings = self._settings
        self._spawn(
            self._fabric.namespace(self._client_key),
            "lab.vpc.client",
            f"--udp-interval={settings.udp_interval}",
            f"--tcp-interval={settings.tcp_interval}",
            f"--echo-flows={settings.echo_flows}",
            f"--download-flows={settings.download_flows}",
            f"--seconds={settings.maximum}",
            str(self._path),
            *SERVER_ADDRESSES,
        )
        while not self.events():
            self._check(deadline, "the client to start")

    def mark(self, label: str) -> float:
        """Write a mark into the record; returns its time."""
        moment = time.monotonic()
        line = json.dumps({"t": moment, "kind": "mark", "label": label}) + "\n"
        with self._path.open("a") as file:
            file.write(line)
        return moment

    def events(self) -> list[dict[str, Any]]:
        """All events so far."""
        with self._path.open() as file:
            file.seek(self._offset)
            text = self._rest + file.read()
            self._offset = file.tell()
        lines = text.splitlines(keepends=True)
        self._rest = lines.pop() if lines and not lines[-1].endswith("\n") else ""
        self._events += complete_events(lines)
        return self._events

    def wait_until_flowing(self, deadline: float, since: float, probes: int = 5) -> float:
        """Wait until so many probes in a row, sent at or after `since`, were answered. Returns when the first was.

        Take `since` after the fault was made: what was sent before it may still have gone through.
        """
        while True:
            answered = {event["n"]: event["t"] for event in self.events() if _is_answer(event, since)}
            for number, moment in sorted(answered.items()):
                if all(number + step in answered for step in range(probes)):
                    return moment
            self._check(deadline, f"{probes} answered probes in a row sent since {since:.3f}")

    def wait_for_flows(self, deadline: float, since: float) -> None:
        """Wait until every long connection got data after `since`, or was closed: TCP takes its time to try again."""
        while True:
            flows = [event for event in self.events() if event["kind"] == "flow"]
            settled = {each["flow"] for each in flows if each["event"] == "closed" or each.get("last", 0.0) > since}
            waiting = {each["flow"] for each in flows} - settled
            if not waiting:
                return
            self._check(deadline, f"data on {', '.join(sorted(waiting))} since {since:.3f}")

    def stop(self, minimum_gap: float = MINIMUM_GAP) -> Record:
        """End the client and the servers; returns what the client saw. `minimum_gap` of an outage in seconds."""
        self._end_processes()
        return read(self._path, minimum_gap)

    # --- inside -------------------------------------------------------------------------------------------------------

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
            last = self._events[-1] if self._events else "nothing"
            raise TrafficError(f"waited in vain for {what}; the client's last line: {last}")
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


def _is_answer(event: dict[str, Any], since: float) -> bool:
    return bool(event["kind"] == "udp" and event["sent"] >= since)
