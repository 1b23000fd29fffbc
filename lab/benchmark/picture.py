# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pure: the takeover benchmark's record as a picture. Every run is a dot; median, p95 and surviving flows are written.

The axis is logarithmic, with a place of its own for runs without any outage.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from lab import svg
from lab.benchmark.runs import FREEZE, Run, of, read

WIDTH, LEFT, RIGHT = 1180, 240, 330
ROW, HEAD = 28, 44
FIRST, LAST = 0.1, 200.0  # seconds on the axis
NONE = LEFT + 14  # where a run without an outage stands
START = LEFT + 50
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200)
COLOURS = {"ours": svg.GREEN, "floor": svg.INK}


def place(milliseconds: float) -> float:
    """Where on the axis an outage stands."""
    seconds = milliseconds / 1000
    if seconds < FIRST:
        return NONE
    share = math.log(min(seconds, LAST) / FIRST) / math.log(LAST / FIRST)
    return round(START + share * (WIDTH - RIGHT - START), 1)


def takeover_svg(record: Mapping[str, Any]) -> str:
    """A panel for each fault, a row for each contender."""
    runs = read(record["runs"])
    panel = HEAD + ROW * len(record["contenders"]) + 26
    height = 70 + panel * len(record["faults"]) + 20
    shapes = [
        svg.text(20, 28, "Outage that a client sees, side by side on the lab", font_size="18", font_weight="bold"),
        svg.text(20, 50, _subtitle(record), fill=svg.MUTED),
    ]
    for number, fault in enumerate(record["faults"]):
        shapes += _panel(record, runs, fault, 70 + panel * number)
    return svg.document(WIDTH, height, shapes)


def _subtitle(record: Mapping[str, Any]) -> str:
    delays, versions = record["delays_s"], record["versions"]
    named = ", ".join(f"{name} {delays[name]:g} s" for name in ("api", "detach", "attach", "link", "reassign"))
    return f"injected delays: {named}; Debian {versions['debian']}; {record['date'][:10]}; every run is a dot"


def _panel(record: Mapping[str, Any], runs: list[Run], fault: str, top: float) -> Iterator[str]:
    rows = top + HEAD
    bottom = rows + ROW * len(record["contenders"])
    yield svg.text(20, top + 24, fault, font_size="15", font_weight="bold")
    yield svg.line(NONE, rows - 6, NONE, bottom, svg.GRID)
    yield svg.text(NONE, bottom + 16, "none", fill=svg.MUTED, text_anchor="middle", font_size="11")
    for tick in TICKS:
        x = place(tick * 1000)
        yield svg.line(x, rows - 6, x, bottom, svg.GRID)
        yield svg.text(x, bottom + 16, f"{tick:g} s", fill=svg.MUTED, text_anchor="middle", font_size="11")
    if fault != FREEZE:
        x = place(record["injected_ms"])
        yield svg.line(x, rows - 12, x, bottom, svg.INK, dashes="4 3")
        yield svg.text(x, rows - 16, f"injected delays of a move {record['injected_ms'] / 1000:g} s", font_size="11")
    for number, (name, told) in enumerate(record["contenders"].items()):
        given = told["given"].get(fault, {}).get("seconds", 0)
        yield from _row(
            name, told["title"], given, of(runs, name, fault), record["summary"][name][fault], rows + ROW * number
        )


def _row(name: str, title: str, given: float, runs: list[Run], sums: Mapping[str, Any], top: float) -> Iterator[str]:
    """`given`: seconds that were not measured; a grey bar leads to where the median would be with them."""
    middle, colour = top + ROW / 2, COLOURS.get(name, svg.BLUE)
    yield svg.text(LEFT - 12, middle + 5, title, text_anchor="end")
    outage = sums["outage_ms"]
    if given and outage["n"]:
        start, end = place(outage["median"]), place(outage["median"] + given * 1000)
        yield svg.bar(start, middle - 4, round(end - start, 1), 8, svg.GREY)
        yield svg.text(end + 4, middle + 4, f"+ {given:g} s given", fill=svg.MUTED, font_size="11")
    for run in runs:
        if run.outage_ms is not None:
            yield svg.dot(place(run.outage_ms), middle, 4, colour, opacity=0.45)
    if outage["n"]:
        x = place(outage["median"])
        yield svg.line(x, middle - 9, x, middle + 9, colour, width=2)
    yield svg.text(WIDTH - RIGHT + 16, middle + 5, _words(sums), font_size="12")


def _words(sums: Mapping[str, Any]) -> str:
    outage = sums["outage_ms"]
    failed = f", {sums['failed']} failed" if sums["failed"] else ""
    if not outage["n"]:
        return f"no run{failed}"
    flows = f"flows {sums['flows_survived']} of {sums['flows']}"
    return f"{outage['median'] / 1000:.2f} s, p95 {outage['p95'] / 1000:.2f} s, n {outage['n']}; {flows}{failed}"
