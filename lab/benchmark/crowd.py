# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many flows through a lab's pair (see flows.py), from outside of the namespaces where their two ends live."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from types import TracebackType

from lab.lab import Lab, LabError
from lab.operator import ROOT
from lab.vpc.fabric import SERVER_ADDRESSES

ANSWER_LIMIT = 700.0  # seconds, with many flows on a busy machine
END_LIMIT = 30.0
TCP_SHARE, TCP_MOST = 10, 8000  # every tenth flow is a TCP connection, which costs a file on both sides


def shares(flows: int) -> tuple[int, int]:
    """How many of the flows are UDP, and how many TCP."""
    tcp = min(flows // TCP_SHARE, TCP_MOST)
    return flows - tcp, tcp


class Crowd:
    """`flows` flows of the lab's client. As a context manager it ends them. Errors: LabError."""

    def __init__(self, lab: Lab, flows: int) -> None:
        self._processes: list[subprocess.Popen[str]] = []
        self._server = self._start(lab.fabric.internet_netns, "serve")
        self._tell(self._server)
        udp, tcp = shares(flows)
        self._client = self._start(lab.fabric.namespace("client"), "hold", str(udp), str(tcp))

    def __enter__(self) -> Crowd:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in reversed(self._processes):
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(END_LIMIT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def open(self) -> dict[str, float]:
        """Wait until all are open: how many answered (`udp`, `tcp`), and the seconds that it took (`opened`)."""
        return self._tell(self._client)

    def answered(self) -> int:
        """How many of the flows answer now."""
        return sum(int(self._ask(self._client)[kind]) for kind in ("udp", "tcp"))

    def peers(self) -> int:
        """How many UDP flows the server has ever seen: one more for each that got another port on its way."""
        return int(self._ask(self._server)["peers"])

    def _start(self, namespace: str, *arguments: str) -> subprocess.Popen[str]:
        argv = ["ip", "netns", "exec", namespace, sys.executable, "-m", "lab.benchmark.flows", *arguments]
        process = subprocess.Popen(
            [*argv, *SERVER_ADDRESSES],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            start_new_session=True,  # a Ctrl-C is for the parent, which then closes the pipe
        )
        self._processes.append(process)
        return process

    def _ask(self, process: subprocess.Popen[str]) -> dict[str, float]:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        return self._tell(process)

    def _tell(self, process: subprocess.Popen[str]) -> dict[str, float]:
        """The next line of one of the two."""
        assert process.stdout is not None
        began = time.monotonic()
        readable, _, _ = select.select([process.stdout], [], [], ANSWER_LIMIT)
        line = process.stdout.readline() if readable else ""
        if not line:
            waited = time.monotonic() - began
            raise LabError(f"{process.args!r}: no answer in {waited:.0f} s (exit status so far: {process.poll()})")
        told: dict[str, float] = json.loads(line)
        return told
