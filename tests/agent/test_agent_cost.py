# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A monitor stays within its budget: 60 ms of CPU time and 20 MiB."""

from __future__ import annotations

import subprocess
import sys

import pytest
from agent_world import ROOT

pytestmark = pytest.mark.root


def test_monitor_stays_within_its_budget() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tests/bench_monitor.py"], capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
