# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Detection: how soon Corosync's settings see a dead host, and how often they suspect a living one.

A pair is built, and each setting loaded into its running Corosync. Under each trouble, what Corosync reported is
counted, and the moves of the interface, which are what users feel. With --releases: power cuts on Debian 12 and 13.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from lab.benchmark import grid, releases, troubles
from lab.benchmark.figures import delays_of, save
from lab.benchmark.pair import Pair
from lab.hosts.errors import HostError
from lab.lab import Lab, LabError, LabSettings
from lab.operator import BUNDLE, install_collection


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(api=0.02, detach=0.5, attach=0.5, link=0.2, runs=3)
    names = [setting.name for setting in grid.SETTINGS]
    parser.add_argument("--seconds", type=float, default=20, help="how long a lasting trouble lasts; default: 20")
    parser.add_argument(
        "--setting",
        action="append",
        choices=names,
        help="token/consensus, +interval/timeout of the link's ping; all by default",
    )
    parser.add_argument("--releases", action="store_true", help="compare Debian 12 and 13 instead; goes on with --out")
    parser.add_argument("-e", dest="variables", action="append", default=[], metavar="NAME=VALUE", help="for site")


def run(options: argparse.Namespace) -> dict[str, Any]:
    return _releases(options) if options.releases else _grid(options)


def _grid(options: argparse.Namespace) -> dict[str, Any]:
    """Saves after each setting: what was measured outlives a run that is cut."""
    delays = delays_of(options)
    wanted = troubles.every(options.seconds, options.runs)
    results: list[dict[str, Any]] = []
    failures: list[str] = []
    with Lab(LabSettings(name="detection", release=options.release, delays=delays)) as lab:
        install_collection(lab.operator.collections, BUNDLE)
        extra = [word for variable in options.variables for word in ("-e", variable)]
        lab.operator.playbook("evernat.aws.site", "-e", f"@{lab.pair_file}", *extra)
        for setting in grid.SETTINGS:
            if setting.name not in (options.setting or [setting.name]):
                continue
            try:
                results.append(grid.measure(Pair(lab), setting, wanted, options.runs, _say))
            except (HostError, LabError) as error:  # the other settings are measured all the same
                failures.append(f"{setting.name}: {error}")
            save(options.out, options.benchmark, options.release, delays, {"settings": results})
    print(grid.table(results))
    return {"settings": results, "failures": failures}


def _say(words: str) -> None:
    print(words, flush=True)


def _releases(options: argparse.Namespace) -> dict[str, Any]:
    """Goes on where the figures in --out end."""
    samples: list[dict[str, Any]] = []
    if options.out.exists():
        samples = json.loads(options.out.read_text())["samples"]
    delays = delays_of(options)

    def result() -> dict[str, Any]:
        return {"variables": options.variables, "rows": releases.summarise(samples), "samples": samples}

    def keep() -> None:
        save(options.out, options.benchmark, options.release, delays, result())

    releases.compare(options.runs, delays, options.variables, samples, keep)
    print(releases.table(result()["rows"]))
    return result()
