# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run looked like from the client's side, as a picture (SVG) and as a table (text). Pure: data in, text out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

WIDTH = 1080
LEFT = 170
RIGHT = 30
ROW = 26
GREEN, RED, BLUE, GREY, MUTED, INK = "#2a9d5c", "#d1495b", "#3d6fb4", "#c9ced6", "#52606d", "#1f2933"


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


def _text(x: float, y: float, words: str, **style: str) -> str:
    attributes = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in {"fill": INK, **style}.items())
    return f'<text x="{x}" y="{y}"{attributes}>{escape(words)}</text>'


def _bar(x: float, y: float, width: float, height: float, fill: str, opacity: float = 1) -> str:
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{fill}" opacity="{opacity}"/>'


def _line(x1: float, y1: float, x2: float, y2: float, stroke: str, dashes: str = "none") -> str:
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{stroke}" stroke-dasharray="{dashes}"/>'


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
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"',
        ' font-family="DejaVu Sans, Verdana, sans-serif" font-size="13">',
        "<!-- SPDX-FileCopyrightText: evernat.aws contributors -->",
        "<!-- SPDX-License-Identifier: GPL-3.0-or-later -->",
        _bar(0, 0, WIDTH, height, "white"),
        _text(20, 28, line.title, font_size="18", font_weight="bold"),
        _text(20, 50, line.subtitle, fill=MUTED),
    ]
    if line.outage:
        start, end = line.outage
        out.append(_bar(x(start), top - 6, width(start, end), bottom - top + 6, RED, opacity=0.1))
    for second in range(math.ceil(first), math.floor(last) + 1):
        out.append(_line(x(second), top - 6, x(second), bottom, "#e4e7eb"))
        out.append(_text(x(second), bottom + 18, f"{second} s", fill=MUTED, text_anchor="middle"))
    for row, lane in enumerate(line.lanes):
        y = top + ROW * row
        out.append(_text(LEFT - 10, y + 14, lane.name, text_anchor="end"))
        for begin, end, good in _runs([event for event in lane.events if first <= event[0] <= last]):
            out.append(_bar(x(begin), y + 3, width(begin, end, least=2), ROW - 10, GREEN if good else RED))
    out.append(_line(20, lanes_end + 12, WIDTH - RIGHT, lanes_end + 12, GREY))
    for row, phase in enumerate(line.phases):
        y = phases_top + ROW * row
        out.append(_text(LEFT - 10, y + 14, phase.name, text_anchor="end"))
        out.append(_bar(x(phase.start), y + 3, width(phase.start, phase.end, least=2), ROW - 10, BLUE))
        out.append(_text(x(phase.end) + 6, y + 14, f"{phase.milliseconds} ms", fill=MUTED))
    for moment, label in line.marks:
        out.append(_line(x(moment), top - 10, x(moment), bottom, INK, dashes="4 3"))
        out.append(_text(x(moment) + 4, top - 12, label, font_size="12"))
    out.append("</svg>")
    return "\n".join(out) + "\n"


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Two aligned columns."""
    width = max(len(name) for name, _value in rows)
    return "\n".join(f"  {name.ljust(width)}  {value}" for name, value in rows)
