# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Counters of packets and bytes in a namespace: an nft table of the benchmarks' own, which disturbs nothing else."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from typing import NamedTuple

from lab.vpc import namespaces

TABLE = "bench_counters"


class Count(NamedTuple):
    packets: int
    bytes: int

    def since(self, earlier: Count) -> Count:
        return Count(self.packets - earlier.packets, self.bytes - earlier.bytes)


def ruleset(matches: Mapping[str, str], drop: bool = False) -> str:
    """A table that counts, before connection tracking, what matches: name of the counter, nft match.

    `drop`: what was counted goes no further, so that nobody spends time on answering it.
    """
    verdict = " drop" if drop else ""
    return "\n".join(
        [
            f"table ip {TABLE}",
            f"delete table ip {TABLE}",
            f"table ip {TABLE} {{",
            *(f"  counter {name} {{ }}" for name in matches),
            "  chain arriving {",
            "    type filter hook prerouting priority raw - 20; policy accept;",
            *(f"    {match} counter name {name}{verdict}" for name, match in matches.items()),
            "  }",
            "}",
            "",
        ]
    )


def install(namespace: str, matches: Mapping[str, str], drop: bool = False) -> None:
    """Put the counters into a namespace, at zero. Raises NamespaceError."""
    namespaces.nft(namespace, ruleset(matches, drop))


def read(namespace: str) -> dict[str, Count]:
    """What the counters of a namespace say. Raises CalledProcessError if there are none."""
    argv = ["ip", "netns", "exec", namespace, "nft", "--json", "list", "counters", "table", "ip", TABLE]
    return parse(subprocess.run(argv, capture_output=True, text=True, check=True, timeout=20).stdout)


def parse(text: str) -> dict[str, Count]:
    """The counters in nft's JSON."""
    found = (entry["counter"] for entry in json.loads(text)["nftables"] if "counter" in entry)
    return {counter["name"]: Count(counter["packets"], counter["bytes"]) for counter in found}
