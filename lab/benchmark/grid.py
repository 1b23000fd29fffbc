# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Corosync's settings times troubles: what each setting makes of each trouble, and how soon it sees a real loss."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from lab.benchmark.figures import summary
from lab.benchmark.membership import Detection, Doubts
from lab.benchmark.pair import Pair
from lab.benchmark.troubles import Trouble


@dataclass(frozen=True)
class Setting:
    """Milliseconds. Without a ping of its own Corosync derives the link's from the token."""

    token: int
    consensus: int
    ping: tuple[int, int] | None = None  # interval and timeout of knet's heartbeat

    @property
    def name(self) -> str:
        return f"{self.token}/{self.consensus}" + (f"+{self.ping[0]}/{self.ping[1]}" if self.ping else "")


SETTINGS = (
    Setting(3000, 3600),
    Setting(1000, 1200),
    Setting(1000, 500),
    Setting(1000, 500, (200, 1000)),
    Setting(500, 600),
    Setting(500, 300, (200, 1000)),
    Setting(300, 360, (200, 1000)),
    Setting(200, 240, (200, 1000)),
)


def endure(pair: Pair, trouble: Trouble) -> dict[str, Any]:
    """Make a trouble as often as it says. Returns what was reported and moved until the pair was sound again."""
    found, moves = Doubts(), 0
    for _ in range(trouble.times):
        mark, since = pair.lab.aws.calls.mark(), time.monotonic()
        with trouble.begin(pair.lab):
            time.sleep(trouble.seconds)
        pair.restore()
        moves += len(pair.lab.moves_since(mark))
        found += pair.doubts(since)
    return {
        "trouble": trouble.name,
        "seconds": trouble.seconds,
        "times": trouble.times,
        "moves": moves,
        **asdict(found),
    }


def lose(pair: Pair) -> Detection:
    """Cut the holder's power, and boot it again."""
    detection = pair.power_cut()
    pair.restore()
    return detection


def measure(
    pair: Pair, setting: Setting, wanted: list[Trouble], cuts: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Everything about one setting: a row for each trouble, and the times of `cuts` power cuts."""
    load(pair, setting)
    pair.restore()
    rows = []
    for trouble in wanted:
        rows.append(endure(pair, trouble))
        say(f"{setting.name}: {rows[-1]}")
    found = [lose(pair) for _ in range(cuts)]
    say(f"{setting.name}: {found}")
    return {"setting": setting.name, **asdict(setting), "troubles": rows, "cuts": [asdict(each) for each in found]}


def table(results: list[dict[str, Any]]) -> str:
    """Pure: Markdown. A cell has tokens lost / members left / links down, both hosts added up; in bold the moves."""
    if not results:
        return "nothing was measured"
    names = [row["trouble"] for row in results[0]["troubles"]]
    lines = [
        "| token/consensus, ms | " + " | ".join(result["setting"] for result in results) + " |",
        "|---" * (len(results) + 1) + "|",
    ]
    for what, label in (("membership", "loss to membership"), ("start", "loss to start")):
        cells = [_seconds([cut[what] for cut in result["cuts"]]) for result in results]
        lines.append(f"| {label}, n = {len(results[0]['cuts'])} | " + " | ".join(cells) + " |")
    for number, name in enumerate(names):
        rows = [result["troubles"][number] for result in results]
        lines.append(f"| {name}, n = {rows[0]['times']} | " + " | ".join(_cell(row) for row in rows) + " |")
    return "\n".join(lines)


def _seconds(values: list[float | None]) -> str:
    known = summary([value for value in values if value is not None])
    return f"{known['median']:.2f} s" if known["n"] else "-"


def _cell(row: dict[str, Any]) -> str:
    moved = f", **{row['moves']} moved**" if row["moves"] else ""
    return f"{row['tokens_lost']} / {row['members_left']} / {row['links_down']}{moved}"


# -- loading a setting into a Corosync that runs


def configured(conf: str, setting: Setting) -> str:
    """Pure: a corosync.conf with the timers of this setting."""
    lines = [f"token: {setting.token}", f"consensus: {setting.consensus}"]
    if setting.ping:
        interval, timeout = setting.ping
        ping = f"knet_ping_interval: {interval}\nknet_ping_timeout: {timeout}\nknet_pong_count: 2"
        lines.append(f"interface {{\nlinknumber: 0\n{ping}\n}}")
    bare = re.sub(r"^ *interface \{[^}]*\}\n|^ *(token|consensus): .*\n", "", conf, flags=re.MULTILINE)
    return bare.replace("totem {\n", "totem {\n" + "\n".join(lines) + "\n", 1)


def load(pair: Pair, setting: Setting) -> None:
    """Write the setting on both hosts, and let Corosync read it."""
    first, second = pair.hosts()
    for host in (first, second):
        conf = host.run(["cat", "/etc/corosync/corosync.conf"], check=True).stdout
        host.run(["tee", "/etc/corosync/corosync.conf"], input=configured(conf, setting), check=True)
    # Twice: the first time Corosync derives the link's heartbeat from the token that it had before.
    for _ in range(2):
        first.run(["corosync-cfgtool", "-R"], check=True)
