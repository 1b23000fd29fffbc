# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The main job: install the collection, build a pair, cut the active host's power, show what the client saw.

Writes lab/out/demo.json and lab/out/demo.svg. Ends with 0 only if traffic came back through the other host with the
same address, after one move, and no established connection died.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.cluster import state_of, told_by, wait_for
from lab.hosts.errors import HostError
from lab.lab import OUT, Delays, Lab, LabError, LabSettings
from lab.operator import BUNDLE, PlaybookFailed, PlaybookRun, install_collection
from lab.report import Lane, Phase, Timeline, table, timeline_svg
from lab.takeover import StartRecord, phases_after, starts_in
from lab.vpc.record import Flow, Record
from lab.vpc.traffic import Traffic, TrafficError, patience

TAKEOVER_LIMIT = 120.0  # seconds until the demo gives up
REJOIN_LIMIT = 60.0  # seconds for a booted host to be a member again
BEAT = 0.1  # seconds between two dots of the download in the picture


class Progress:
    """What is being done now, with the time since the start."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def say(self, words: str) -> None:
        print(f"[{time.monotonic() - self._start:5.0f} s] {words}", flush=True)

    def task(self, line: str) -> None:
        """A line of ansible-playbook: only what it is doing."""
        if line.startswith(("TASK [", "PLAY [")) and "] " in line:
            self.say(f"    {line[6 : line.rindex('] ')]}")


@dataclass(frozen=True)
class Takeover:
    """What happened from the power cut on. Moments are on the machine's monotonic clock."""

    fault: float
    holder_before: str
    holder_after: str
    moves: int
    start: StartRecord
    record: Record

    @property
    def outage(self) -> tuple[float, float]:
        """The first lost probe and the first answer after it, in seconds after the fault."""
        (outage, *_rest) = self.record.since(self.fault)
        if outage.end is None:
            raise LabError("traffic did not come back")
        return outage.start - self.fault, outage.end - self.fault

    @property
    def outage_ms(self) -> int:
        start, end = self.outage
        return round((end - start) * 1000)

    @property
    def recovered(self) -> float:
        """When the last of the connections that live went on, in seconds after the fault: TCP waits before it tries."""
        ends = [end - self.fault for flow in self.record.flows if flow.alive for _, end in flow.gaps]
        return max(ends, default=self.outage[1])

    @property
    def phases(self) -> list[Phase]:
        return phases_after(self.fault, self.start, self.fault + self.outage[1])


def egress_at(record: Record, moment: float) -> str:
    """The address that the servers saw at a moment."""
    return [address for first_seen, address in record.egress if first_seen <= moment][-1]


def cut_power(lab: Lab, record: Path, progress: Progress) -> Takeover:
    """Start the client's traffic, cut the active host's power, wait until traffic flows again."""
    with Traffic(lab.fabric, record) as traffic:
        traffic.start(time.monotonic() + 20)
        traffic.wait_until_established(time.monotonic() + 20)
        progress.say("the client's traffic flows")
        return _cut_power(lab, traffic, progress)


def _cut_power(lab: Lab, traffic: Traffic, progress: Progress) -> Takeover:
    before = lab.holder()
    calls = lab.aws.calls.mark()
    traffic.mark("power cut")
    progress.say(f"cutting the power of the active host {before}")
    fault = lab.power_cut(before)
    flowing = traffic.wait_until_flowing(time.monotonic() + TAKEOVER_LIMIT, since=fault)
    progress.say(f"traffic flows again {flowing - fault:.1f} s after the power cut")
    with contextlib.suppress(TrafficError):  # a flow that never comes back is told as dead by the record
        traffic.wait_for_flows(time.monotonic() + patience(flowing - fault), since=flowing)
    after = lab.holder()
    journal = lab.hosts[after].run(["journalctl", "--output=json", "--boot"], timeout=60).stdout.splitlines()
    starts = [start for start in starts_in(journal) if start.began > fault]
    return Takeover(fault, before, after, len(lab.moves_since(calls)), starts[0], traffic.stop())


def bring_back(lab: Lab, instance_id: str, progress: Progress) -> None:
    """Boot the host that had lost its power, and wait until the pair is whole again."""
    progress.say(f"booting {instance_id} again")
    lab.power_on(instance_id)
    survivor = lab.hosts[lab.holder()]
    wait_for("the pair is whole again", lambda: state_of(survivor).is_whole(), REJOIN_LIMIT, lambda: told_by(survivor))


def rows(takeover: Takeover, delays: Delays, elastic_ip: str) -> list[tuple[str, str]]:
    record = takeover.record
    return [
        ("outage", f"{takeover.outage_ms} ms ({record.lost} of {record.sent} UDP probes lost, 10 ms apart)"),
        *((f"  {phase.name}", f"{phase.milliseconds} ms") for phase in takeover.phases),
        ("injected delays", f"{delays.injected_ms} ms ({delays})"),
        ("moves", str(takeover.moves)),
        ("holder", f"{takeover.holder_before} -> {takeover.holder_after}"),
        ("Elastic IP", elastic_ip),
        ("address seen before", egress_at(record, takeover.fault)),
        ("address seen after", record.egress[-1][1]),
        ("connections", connections(record)),
        *((f"  {flow.name}", f"died ({flow.error or 'no data'})") for flow in record.flows if not flow.alive),
    ]


def connections(record: Record) -> str:
    survived, total = record.survived()
    return f"{survived} of {total} survived, longest pause {record.longest_pause:.1f} s"


def figures(takeover: Takeover, delays: Delays, elastic_ip: str, second: PlaybookRun) -> dict[str, Any]:
    return {
        "outage_ms": takeover.outage_ms,
        "injected_ms": delays.injected_ms,
        "detection_ms": takeover.phases[0].milliseconds,
        "phases_ms": {phase.name: phase.milliseconds for phase in takeover.phases},
        "moves": takeover.moves,
        "forced": takeover.start.forced,
        "egress_ip_before": egress_at(takeover.record, takeover.fault),
        "egress_ip_after": takeover.record.egress[-1][1],
        "elastic_ip": elastic_ip,
        "second_run_changed": second.changed,
        "holder_before": takeover.holder_before,
        "holder_after": takeover.holder_after,
        "delays_s": {"api": delays.api, "detach": delays.detach, "attach": delays.attach, "link": delays.link},
        "probes_sent": takeover.record.sent,
        "probes_lost": takeover.record.lost,
        "connections": takeover.record.survived()[1],
        "connections_survived": takeover.record.survived()[0],
        "longest_pause_ms": round(takeover.record.longest_pause * 1000),
    }


def picture(takeover: Takeover, delays: Delays) -> str:
    record, fault = takeover.record, takeover.fault
    lanes = [
        Lane("UDP, every 10 ms", [(probe.sent - fault, probe.answered is not None) for probe in record.probes]),
        Lane("new TCP, 10/s", [(connect.start - fault, connect.ok) for connect in record.connects]),
        *(Lane("one TCP download", download_dots(flow, fault)) for flow in record.flows if flow.arrivals),
    ]
    return timeline_svg(
        Timeline(
            title=f"Power cut of the active host: traffic is back after {takeover.outage_ms / 1000:.1f} s",
            subtitle=f"injected delays of AWS: {delays}; {takeover.moves} move, same Elastic IP;"
            f" connections: {connections(record)}",
            window=(-1.0, max(takeover.outage[1], takeover.recovered) + 1.0),
            outage=takeover.outage,
            lanes=lanes,
            phases=takeover.phases,
            marks=[(0.0, "power cut")],
        )
    )


def download_dots(flow: Flow, fault: float) -> list[tuple[float, bool]]:
    """Ten a second: when bytes of the download came, and in a pause that none came."""
    came = [moment for moment, _ in flow.arrivals]
    dots = [(moment - fault, True) for moment in came]
    for before, after in zip(came, came[1:]):
        dots += [(before - fault + BEAT * step, False) for step in range(1, int((after - before - BEAT) / BEAT))]
    return dots


def faults_of(takeovers: list[Takeover], elastic_ip: str, second: PlaybookRun) -> list[str]:
    """Why the run was no success; empty if it was."""
    found = []
    if second.changed:
        found.append(f"the second run of site changed {second.changed} things instead of none")
    for each in takeovers:
        if each.moves != 1:
            found.append(f"the interface was attached {each.moves} times instead of once")
        if each.holder_after == each.holder_before:
            found.append("the interface did not go to the other host")
        if not egress_at(each.record, each.fault) == each.record.egress[-1][1] == elastic_ip:
            found.append("the internet did not see the Elastic IP before and after")
        survived, total = each.record.survived()
        if survived != total:
            found.append(f"{total - survived} of {total} connections died")
    return found


def run(settings: LabSettings, out: Path, runs: int) -> int:
    progress = Progress()
    out.mkdir(parents=True, exist_ok=True)
    progress.say(f"starting the lab: an AWS, a VPC and its client (delays: {settings.delays})")
    with Lab(settings) as lab:
        progress.say("building the collection and installing its tarball")
        install_collection(lab.operator.collections, BUNDLE)
        pair = ("-e", f"@{lab.pair_file}")
        progress.say("ansible-playbook evernat.aws.site")
        lab.operator.playbook("evernat.aws.site", *pair, on_line=progress.task)
        progress.say("ansible-playbook evernat.aws.site, again")
        second = lab.operator.playbook("evernat.aws.site", *pair)
        progress.say(f"second run: changed={second.changed} {', '.join(second.changed_tasks())}")
        elastic_ip = lab.elastic_ip()
        takeovers = [cut_power(lab, out / "demo-traffic.jsonl", progress)]
        for _ in range(runs - 1):
            bring_back(lab, takeovers[-1].holder_before, progress)
            takeovers.append(cut_power(lab, out / "demo-traffic.jsonl", progress))
    takeover = sorted(takeovers, key=lambda each: each.outage_ms)[(runs - 1) // 2]
    result = figures(takeover, settings.delays, elastic_ip, second)
    result["runs"] = [
        {
            "outage_ms": each.outage_ms,
            "detection_ms": each.phases[0].milliseconds,
            "connections_survived": each.record.survived()[0],
        }
        for each in takeovers
    ]
    (out / "demo.json").write_text(json.dumps(result, indent=2) + "\n")
    (out / "demo.svg").write_text(picture(takeover, settings.delays))
    print("\n" + table(rows(takeover, settings.delays, elastic_ip)))
    if runs > 1:
        outages = sorted(each.outage_ms for each in takeovers)
        print(f"\nthe median of {runs} power cuts; outages in ms: {', '.join(map(str, outages))}")
    print(f"\nwritten: {out / 'demo.json'}, {out / 'demo.svg'}")
    failures = faults_of(takeovers, elastic_ip, second)
    for failure in failures:
        print(f"NOT AS IT SHOULD BE: {failure}", file=sys.stderr)
    return 1 if failures else 0


def main() -> None:
    parser = argparse.ArgumentParser(prog="lab/demo", description=__doc__)
    delays = Delays()
    for name in ("api", "detach", "attach", "link"):
        parser.add_argument(
            f"--{name}", type=float, default=getattr(delays, name), metavar="SECONDS", help="default: %(default)s"
        )
    parser.add_argument("--release", choices=("trixie", "bookworm"), default="trixie", help="the hosts' Debian")
    parser.add_argument(
        "--dead-detach",
        choices=("completes", "stuck"),
        default="completes",
        help="what a polite detach from a host without power does: completes, or waits for Force",
    )
    parser.add_argument(
        "--runs", type=int, default=1, help="power cuts in a row, of which the median is shown; default: 1"
    )
    options = parser.parse_args()
    if options.runs < 1:
        parser.error(f"--runs is {options.runs}; at least one power cut is needed")
    settings = LabSettings(
        name="demo",
        release=options.release,
        delays=Delays(options.api, options.detach, options.attach, options.link),
        dead_detach=options.dead_detach,
    )
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit("the demo was told to stop"))  # and cleans up
    try:
        sys.exit(run(settings, OUT, options.runs))
    except (LabError, HostError, PlaybookFailed, TrafficError) as error:
        sys.exit(f"the demo failed: {error}")


if __name__ == "__main__":
    main()
