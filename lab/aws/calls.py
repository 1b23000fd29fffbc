# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The log of every call: who, what, what came of it, when. It holds no secrets."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

READING = ("Describe", "Get", "List", "GET ", "PUT ")
SECRETS = ("UserData", "Secret", "Password", "Token", "KeyMaterial", "Signature", "Credential")
LONGEST = 300


@dataclass(frozen=True)
class Call:
    """One request and its outcome."""

    time: float  # of its arrival, seconds since the epoch
    monotonic: float
    caller: str  # ARN of the role session, or "operator"
    host: str  # instance id, or "operator"
    service: str  # ec2, iam, sts, imds
    action: str
    params: dict[str, str]
    outcome: str  # "ok" or the error's code; "dropped" and "hung" where there was no answer
    duration: float  # seconds
    dry_run: bool = False

    @property
    def mutates(self) -> bool:
        """Whether it changed something: a write that succeeded, even if nobody got the answer."""
        return not self.action.startswith(READING) and not self.dry_run and self.outcome in ("ok", "dropped-after")


def without_secrets(parameters: Mapping[str, str]) -> dict[str, str]:
    """The parameters as they may be shown: long values cut, secret ones hidden."""
    return {
        name: "..." if any(word in name for word in SECRETS) and name != "ClientToken" else value[:LONGEST]
        for name, value in parameters.items()
        if name not in ("Action", "Version")
    }


class CallLog:
    """All calls in the order of their end. With a path, one JSON line each is written there too."""

    def __init__(self, path: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._calls: list[Call] = []
        self._file = path.open("a", encoding="utf-8") if path else None

    def add(self, call: Call) -> None:
        with self._lock:
            self._calls.append(call)
            if self._file:
                self._file.write(json.dumps(asdict(call)) + "\n")
                self._file.flush()

    def mark(self) -> int:
        """A position in the log, for since()."""
        with self._lock:
            return len(self._calls)

    def since(self, mark: int = 0, service: str | None = None) -> list[Call]:
        """The calls after a mark, of one service if it is named."""
        with self._lock:
            return [call for call in self._calls[mark:] if service in (None, call.service)]

    def mutating(self, mark: int = 0) -> list[Call]:
        """The calls after a mark that changed something."""
        return [call for call in self.since(mark) if call.mutates]

    def __len__(self) -> int:
        return self.mark()

    def close(self) -> None:
        with self._lock:
            if self._file:
                self._file.close()
                self._file = None
