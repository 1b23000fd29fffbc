# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""lab/bench: runs one benchmark, writes its figures as JSON with date, versions and delays beside them.

lab/bench [NAME] [OPTIONS]; without a name: takeover.
"""

from __future__ import annotations

import argparse
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from lab.benchmark import detection, scale, takeover, throughput
from lab.benchmark.figures import delays_of, save
from lab.hosts.errors import HostError
from lab.lab import OUT, Delays, LabError
from lab.operator import PlaybookFailed
from lab.vpc.traffic import TrafficError


class Benchmark(Protocol):
    """What a module of this folder offers to become a subcommand. Its docstring is the subcommand's help."""

    __doc__: str | None

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add options of its own to those of `add_common_options`; `parser.set_defaults(runs=...)` for its own n."""

    def run(self, options: argparse.Namespace) -> dict[str, Any]:
        """The figures, ready for JSON. A key `failures` lists what was not as it should be: exit code 1.

        Those of `figures.save` (date, versions, delays) are added by the command.
        """


DEFAULT = "takeover"
BENCHMARKS: dict[str, Benchmark] = {
    DEFAULT: takeover,
    "detection": detection,
    "scale": scale,
    "throughput": throughput,
}


def add_common_options(parser: argparse.ArgumentParser, name: str) -> None:
    for delay, seconds in asdict(Delays()).items():
        parser.add_argument(f"--{delay}", type=float, default=seconds, metavar="SECONDS", help="default: %(default)s")
    parser.add_argument("--release", choices=("trixie", "bookworm"), default="trixie", help="the hosts' Debian")
    parser.add_argument("--runs", type=int, default=10, metavar="N", help="runs of each kind; default: %(default)s")
    parser.add_argument(
        "--out",
        type=Path,
        default=OUT / ("bench.json" if name == DEFAULT else f"bench-{name}.json"),
        metavar="FILE",
        help="where the figures go; default: %(default)s",
    )


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="lab/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = parser.add_subparsers(dest="benchmark", required=True, metavar="NAME")
    for name, module in BENCHMARKS.items():
        text = module.__doc__ or name
        each = names.add_parser(
            name,
            help=text.splitlines()[0],
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        add_common_options(each, name)
        module.add_options(each)
    named = bool(argv) and (argv[0] in BENCHMARKS or argv[0] in ("-h", "--help"))
    options = parser.parse_args(argv if named else [DEFAULT, *argv])
    if options.runs < 1:
        parser.error(f"--runs is {options.runs}; at least one is needed")
    return options


def main() -> None:
    options = parse(sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit("the benchmark was told to stop"))  # and cleans up
    try:
        result = BENCHMARKS[options.benchmark].run(options)
    except (LabError, HostError, PlaybookFailed, TrafficError) as error:
        sys.exit(f"the benchmark failed: {error}")
    except KeyboardInterrupt:
        sys.exit("the benchmark was interrupted")
    save(options.out, options.benchmark, options.release, delays_of(options), result)
    print(f"\nwritten: {options.out}")
    for failure in result.get("failures", []):
        print(f"NOT AS IT SHOULD BE: {failure}", file=sys.stderr)
    sys.exit(1 if result.get("failures") else 0)


if __name__ == "__main__":
    main()
