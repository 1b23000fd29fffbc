# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The takeover benchmark without a lab: statistics, what a record lacks, what the client saw, the command's options."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from lab.benchmark import main, takeover
from lab.benchmark.contenders.contender import seen
from lab.benchmark.contenders.totem import defaults_of_the_role
from lab.benchmark.figures import p95, summary
from lab.benchmark.picture import place, takeover_svg
from lab.benchmark.runs import FREEZE, POWER_CUT, Run, above, gaps, lost_flows, next_number, read, sums, unequal_timings
from lab.benchmark.takeover import Takeover
from lab.lab import Delays, LabError
from lab.vpc.record import summarise

# --- statistics -----------------------------------------------------------------------------------------------------


def test_p95_is_a_value_that_was_measured() -> None:
    assert p95(list(range(1, 101))) == 95
    assert p95(list(range(1, 21))) == 19
    assert p95([3, 1, 2]) == 3
    assert p95([7]) == 7


def test_a_summary_of_nothing_has_no_median() -> None:
    assert summary([]) == {"n": 0}
    assert summary([1, 2, 4]) == {"n": 3, "median": 2, "p95": 4}


# --- runs ------------------------------------------------------------------------------------------------------------


def run(contender: str, outage: int | None, fault: str = POWER_CUT, number: int = 1, survived: int = 22) -> Run:
    error = "it did not come back" if outage is None else None
    return Run(
        contender, fault, number, "2026-01-01T00:00:00Z", outage, ((0, outage or 0),), 5, survived, 22, True, error
    )


PAIRS = ["ours", "fast", "slow", "dead"]
RUNS = [run("ours", 100), run("ours", 300, number=2, survived=21), run("ours", None, number=3), run("peer", 900)]


def record(runs: list[Run]) -> dict[str, Any]:
    told = {"title": "T", "given": {POWER_CUT: {"seconds": 30, "source": "S"}}, "steady": {"window_s": 1}}
    return {
        "date": "2026-01-01T00:00:00Z",
        "versions": {"debian": "13.7"},
        "delays_s": asdict(Delays()),
        "faults": [POWER_CUT, FREEZE],
        "injected_ms": 5300,
        "contenders": {"ours": told, "peer": told},
        "summary": sums(runs, ["ours", "peer"], [POWER_CUT, FREEZE]),
        "runs": [asdict(each) for each in runs],
    }


def test_runs_are_summed_up_by_contender_and_fault() -> None:
    found = sums(RUNS, ["ours", "peer"], [POWER_CUT, FREEZE])
    assert found["ours"][POWER_CUT] == {
        "outage_ms": {"n": 2, "median": 200, "p95": 300},
        "flows_survived": 43,
        "flows": 44,
        "runs_with_all_flows": 1,
        "moved": 2,
        "failed": 1,
    }
    assert found["peer"][FREEZE]["outage_ms"] == {"n": 0}


def test_where_ours_is_slower_is_said() -> None:
    summed = sums([run("ours", 300), run("fast", 200), run("slow", 400), run("dead", None)], PAIRS, [POWER_CUT])
    assert above(summed, "ours", ["slow", "dead", "nobody"]) == []
    found = above(summed, "ours", ["fast"])
    assert found == [
        f"power cut: the {figure} of ours is above that of fast: ours 300 ms, fast 200 ms"
        for figure in ("median", "p95")
    ]


def test_runs_come_back_from_json_as_they_went() -> None:
    assert read(record(RUNS)["runs"]) == RUNS


def test_runs_of_the_file_are_counted_on() -> None:
    assert next_number(RUNS, "ours", POWER_CUT) == 4
    assert next_number(RUNS, "ours", FREEZE) == 1


def test_a_whole_record_lacks_nothing() -> None:
    assert gaps(record([run("ours", 1), run("peer", 1)]), ["ours", "peer"], [POWER_CUT], 1) == []


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"versions": {}}, "the record does not say its versions"),
        ({"contenders": {"ours": {}}}, "ours: no cost of the steady state"),
        ({"runs": []}, "ours, power cut: 0 of 1 runs"),
        ({"runs": [asdict(run("ours", None))]}, "ours, power cut: 0 of 1 runs (it did not come back)"),
        ({"runs": [{**asdict(run("ours", 1)), "flows": 0}]}, "ours, power cut: a run without flows"),
    ],
)
def test_what_a_record_lacks_is_said(more: dict[str, Any], sentence: str) -> None:
    assert gaps({**record([run("ours", 1)]), **more}, ["ours"], [POWER_CUT], 1) == [sentence]


def test_clusters_to_be_compared_have_the_same_timings() -> None:
    def contenders(token: int) -> dict[str, Any]:
        return {"contenders": {"ours": {"settings": {"token_ms": 1000}}, "peer": {"settings": {"token_ms": token}}}}

    assert unequal_timings(contenders(1000), "ours", "peer") == []
    (sentence,) = unequal_timings(contenders(30000), "ours", "peer")
    assert "30000" in sentence
    assert unequal_timings(contenders(30000), "ours", "nobody") == []


def test_a_flow_that_died_is_said() -> None:
    assert lost_flows(RUNS, "ours") == ["ours, power cut 2: 21 of 22 flows survived"]
    assert lost_flows(RUNS, "peer") == []


# --- what the client saw ----------------------------------------------------------------------------------------------


def events(*probes: tuple[float, bool]) -> list[dict[str, Any]]:
    return [
        {"t": sent + 0.001, "kind": "udp", "n": number, "sent": sent, "seen": "198.51.100.7:4000"}
        if answered
        else {"t": sent + 2, "kind": "lost", "n": number, "sent": sent}
        for number, (sent, answered) in enumerate(probes)
    ]


def test_outages_are_told_from_the_fault_and_added_up() -> None:
    probes = [(0.0, True), (1.1, False), (1.5, True), (1.6, True), (2.0, False), (2.2, True), (4.1, True)]
    told = seen(summarise(events(*probes)), fault=1.0)
    assert told["outages"] == [(100, 501), (1000, 1201)]
    assert told["outage_ms"] == 602
    assert told["probes_lost"] == 2
    assert (told["flows_survived"], told["flows"]) == (1, 1)


def test_an_outage_without_an_end_is_a_failure() -> None:
    with pytest.raises(LabError, match="did not come back"):
        seen(summarise(events((0.0, True), (1.1, False))), fault=1.0)


# --- the picture ------------------------------------------------------------------------------------------------------


def test_the_picture_shows_every_run_and_what_was_given() -> None:
    picture = takeover_svg(record(RUNS))
    root = ET.fromstring(picture)
    assert len(root.findall("{http://www.w3.org/2000/svg}circle")) == 3
    assert "0.20 s, p95 0.30 s, n 2; flows 43 of 44, 1 failed" in picture
    assert picture.count("+ 30 s given") == 2
    assert "injected delays of a move 5.3 s" in picture


def test_the_axis_grows_and_has_a_place_for_none() -> None:
    places = [place(milliseconds) for milliseconds in (0, 100, 1000, 10_000, 100_000, 900_000)]
    assert places == sorted(places)
    assert place(0) == place(50) < place(100)


# --- the command ------------------------------------------------------------------------------------------------------


def test_without_a_name_it_is_the_takeover() -> None:
    options = main.parse(["--runs", "3", "--faults", "freeze,power cut", "--contenders", "floor"])
    assert (options.benchmark, options.runs, options.contenders) == ("takeover", 3, ("floor",))
    assert options.faults == (FREEZE, POWER_CUT)


@pytest.mark.parametrize("argv", [["--runs", "0"], ["--contenders", "nobody"], ["--faults", "rain"]])
def test_bad_input_is_refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main.parse(argv)
    assert end.value.code == 2
    assert argv[1] in capsys.readouterr().err


def test_quick_is_one_run_of_ours_and_a_peer() -> None:
    options = main.parse(["--quick"])
    takeover.be_quick(options)
    benchmark = Takeover(options)
    assert benchmark.wanted == 1
    assert benchmark.delays == takeover.QUICK_DELAYS == main.delays_of(options)
    assert takeover.OURS in benchmark.contenders
    assert len(benchmark.contenders) == 2


def test_a_record_at_other_delays_is_not_resumed(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    out.write_text(json.dumps(record(RUNS)))
    again = Takeover(main.parse(["--resume", "--out", str(out)]))
    assert again.runs == RUNS
    with pytest.raises(LabError, match="other delays"):
        Takeover(main.parse(["--resume", "--out", str(out), "--detach", "9"]))


def test_the_plan_takes_turns_and_leaves_out_what_is_there(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    out.write_text(json.dumps(record([run("floor", 1)])))
    argv = ["--resume", "--out", str(out), "--runs", "2", "--contenders", "ours,floor", "--faults", "power cut,freeze"]
    plan = list(Takeover(main.parse(argv)).plan())
    first = [("ours", POWER_CUT), ("ours", FREEZE), ("floor", FREEZE)]
    second = [("ours", POWER_CUT), ("floor", POWER_CUT), ("ours", FREEZE), ("floor", FREEZE)]
    assert plan[:3] == first
    assert plan[3:] == second


def test_the_injected_delays_are_those_of_the_bare_calls() -> None:
    assert Delays(api=0.1, detach=2.5, attach=2.0, link=0.5).injected_ms == 5300


def test_the_roles_timings_are_numbers() -> None:
    assert defaults_of_the_role().token > 0
