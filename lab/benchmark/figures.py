# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Median and p95, and figures on disk with what they need to be read years later: date, versions, delays."""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from lab.hosts import image
from lab.lab import Delays

PACKAGES = ("pacemaker", "corosync", "resource-agents", "conntrackd", "awscli", "keepalived", "iptables", "python3")


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def p95(values: Sequence[float]) -> float:
    """The smallest value that at least 95 % of them do not exceed. Of fewer than 20 that is the largest."""
    return sorted(values)[math.ceil(0.95 * len(values)) - 1]


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Median, p95 and n; without values n alone."""
    return {"n": len(values), "median": median(values), "p95": p95(values)} if values else {"n": 0}


def versions(release: str) -> dict[str, str]:
    """Debian's point release and the packages that the hosts' image has or offers."""
    root = image.ensure(release)
    found = {"debian": (root / "etc/debian_version").read_text().strip()}
    for index in (root / "var/lib/dpkg/status", root / image.REPOSITORY / "Packages"):
        for entry in index.read_text().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in entry.splitlines() if ": " in line and line[0] != " ")
            if fields.get("Package") in PACKAGES:
                found[fields["Package"]] = fields["Version"]
    return found


def delays_of(options: argparse.Namespace) -> Delays:
    """The delays that a command's options name, each by its own."""
    return Delays(**{field.name: getattr(options, field.name) for field in fields(Delays)})


def save(path: Path, benchmark: str, release: str, delays: Delays, result: dict[str, Any]) -> None:
    """Write the figures whole or not at all: a long run is saved many times, and may be cut."""
    head = {
        "SPDX-FileCopyrightText": "evernat.aws contributors",
        "SPDX-License-Identifier": "GPL-3.0-or-later",
        "benchmark": benchmark,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": versions(release),
        "delays_s": asdict(delays),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".draft")
    draft.write_text(json.dumps({**head, **result}, indent=2) + "\n")
    draft.rename(path)
