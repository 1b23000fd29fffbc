# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run looked like from the client's side, as a picture (SVG) and as a table (text). Pure: data in, text out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from lab import svg

WIDTH = 1080
LEFT = 170
RIGHT = 30
ROW = 26


@dataclass(frozen=True)
class Phase:
    """A named span of the takeover, in seconds after the fault."""

    name: str
    start: float
    end: float

    @property
    def milliseconds(self) -> int:
        return round((self.end - self.start) * 1000)


@dataclass(frozen=True)
class Lane:
    """A row of dots: what the client sent at `t` seconds after the fault, and whether it was answered."""

    name: str
    events: Sequence[tuple[float, bool]]


@dataclass(frozen=True)
class Timeline:
    """All that the picture shows. Times are seconds after the fault."""

    title: str
    subtitle: str
    window: tuple[float, float]
    outage: tuple[float, float] | None
    lanes: Sequence[Lane]
    phases: Sequence[Phase]
    marks: Sequence[tuple[float, str]] = field(default_factory=tuple)


def _runs(events: Iterable[tuple[float, bool]]) -> list[tuple[float, float, bool]]:
    """Neighbouring dots of one colour become one bar: a picture of thousands of packets stays small."""
    runs: list[tuple[float, float, bool]] = []
    for moment, good in sorted(events):
        if runs and runs[-1][2] == good and moment - runs[-1][1] < 0.25:
            runs[-1] = (runs[-1][0], moment, good)
        else:
            runs.append((moment, moment, good))
    return runs


def timeline_svg(line: Timeline) -> str:
    """The client's packets over the phases of the takeover."""
    first, last = line.window
    scale = (WIDTH - LEFT - RIGHT) / (last - first)

    def x(moment: float) -> float:
        return round(LEFT + (min(max(moment, first), last) - first) * scale, 1)

    def width(start: float, end: float, least: float = 0) -> float:
        return max(round(x(end) - x(start), 1), least)

    top = 86
    lanes_end = top + ROW * len(line.lanes)
    phases_top = lanes_end + 24
    bottom = phases_top + ROW * len(line.phases) + 8
    height = bottom + 40
    out = [
        svg.text(20, 28, line.title, font_size="18", font_weight="bold"),
        svg.text(20, 50, line.subtitle, fill=svg.MUTED),
    ]
    if line.outage:
        start, end = line.outage
        out.append(svg.bar(x(start), top - 6, width(start, end), bottom - top + 6, svg.RED, opacity=0.1))
    for second in range(math.ceil(first), math.floor(last) + 1):
        out.append(svg.line(x(second), top - 6, x(second), bottom, svg.GRID))
        out.append(svg.text(x(second), bottom + 18, f"{second} s", fill=svg.MUTED, text_anchor="middle"))
    for row, lane in enumerate(line.lanes):
        y = top + ROW * row
        out.append(svg.text(LEFT - 10, y + 14, lane.name, text_anchor="end"))
        for begin, end, good in _runs([event for event in lane.events if first <= event[0] <= last]):
            out.append(svg.bar(x(begin), y + 3, width(begin, end, least=2), ROW - 10, svg.GREEN if good else svg.RED))
    out.append(svg.line(20, lanes_end + 12, WIDTH - RIGHT, lanes_end + 12, svg.GREY))
    for row, phase in enumerate(line.phases):
        y = phases_top + ROW * row
        out.append(svg.text(LEFT - 10, y + 14, phase.name, text_anchor="end"))
        out.append(svg.bar(x(phase.start), y + 3, width(phase.start, phase.end, least=2), ROW - 10, svg.BLUE))
        out.append(svg.text(x(phase.end) + 6, y + 14, f"{phase.milliseconds} ms", fill=svg.MUTED))
    for moment, label in line.marks:
        out.append(svg.line(x(moment), top - 10, x(moment), bottom, svg.INK, dashes="4 3"))
        out.append(svg.text(x(moment) + 4, top - 12, label, font_size="12"))
    return svg.document(WIDTH, height, out)


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Two aligned columns."""
    width = max(len(name) for name, _value in rows)
    return "\n".join(f"  {name.ljust(width)}  {value}" for name, value in rows)
