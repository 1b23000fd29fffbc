# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The few shapes that the lab's pictures are made of. Pure: numbers and words in, SVG text out."""

from __future__ import annotations

from collections.abc import Iterable
from xml.sax.saxutils import escape

GREEN, RED, BLUE, GREY, MUTED, INK = "#2a9d5c", "#d1495b", "#3d6fb4", "#c9ced6", "#52606d", "#1f2933"
GRID = "#e4e7eb"


def document(width: float, height: float, shapes: Iterable[str]) -> str:
    """A whole picture on white."""
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"',
        ' font-family="DejaVu Sans, Verdana, sans-serif" font-size="13">',
        "<!-- SPDX-FileCopyrightText: evernat.aws contributors -->",
        "<!-- SPDX-License-Identifier: GPL-3.0-or-later -->",
        bar(0, 0, width, height, "white"),
    ]
    return "\n".join([*head, *shapes, "</svg>"]) + "\n"


def text(x: float, y: float, words: str, **style: str) -> str:
    attributes = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in {"fill": INK, **style}.items())
    return f'<text x="{x}" y="{y}"{attributes}>{escape(words)}</text>'


def bar(x: float, y: float, width: float, height: float, fill: str, opacity: float = 1) -> str:
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{fill}" opacity="{opacity}"/>'


def line(x1: float, y1: float, x2: float, y2: float, stroke: str, dashes: str = "none", width: float = 1) -> str:
    return (
        f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{stroke}" stroke-dasharray="{dashes}" '
        f'stroke-width="{width}"/>'
    )


def dot(x: float, y: float, radius: float, fill: str, opacity: float = 1) -> str:
    return f'<circle cx="{x}" cy="{y}" r="{radius}" fill="{fill}" opacity="{opacity}"/>'
