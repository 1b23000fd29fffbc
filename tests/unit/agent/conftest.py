# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent's modules lie flat in one folder, as on a host; the engine beside them is the collection's."""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

LIBRARY = Path(__file__).resolve().parents[3] / "roles" / "cluster" / "files" / "ocf" / "lib" / "evernat"
sys.path.insert(0, str(LIBRARY))
sys.modules["_eni_move"] = importlib.import_module("ansible_collections.evernat.aws.plugins.module_utils._eni_move")

PARAMETERS = {
    "interface_id": "eni-0123456789abcdef0",
    "mac_address": "02:00:00:00:00:01",
    "private_ip": "10.0.1.100",
    "subnet": "10.0.1.0/24",
    "region": "eu-west-1",
}


class Recorder:
    """A log that keeps its lines as (level, fields)."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, level: str, **fields: Any) -> None:
        self.lines.append((level, fields))

    def last(self) -> dict[str, Any]:
        return self.lines[-1][1]


@pytest.fixture(autouse=True)
def _keep_sigterm() -> Iterator[None]:
    """An agent's main() takes SIGTERM over."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def log() -> Recorder:
    return Recorder()


@pytest.fixture
def environ() -> dict[str, str]:
    """What Pacemaker hands over for the resource eni, beside the timeout."""
    parameters = {f"OCF_RESKEY_{name}": value for name, value in PARAMETERS.items()}
    return {"OCF_RESOURCE_INSTANCE": "eni", "HA_LOGFACILITY": "none", **parameters}


@pytest.fixture
def settings(environ: dict[str, str]) -> dict[str, Any]:
    import eni

    return {parameter.name: parameter.value(environ) for parameter in eni.AGENT.parameters}
