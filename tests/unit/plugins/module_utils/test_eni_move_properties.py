# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What holds of every move, whatever EC2, the network and a second mover do. Times are virtual."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Optional, Union

import pytest
from ansible_collections.evernat.aws.plugins.module_utils._eni_move import (
    ATTACH,
    DESCRIBE,
    DETACH,
    ApiError,
    MoveError,
    Outcome,
    Wanted,
    move,
)
from ansible_collections.evernat.aws.tests.unit.plugins.module_utils.ec2_model import (
    ENI,
    Call,
    Fate,
    Model,
    Timeline,
)
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

A, B, C = "i-a", "i-b", "i-c"
CALL_TIMEOUT = 3.0
ERRORS = ("RequestLimitExceeded", "Unavailable", "InternalError", "IncorrectState")
ACTED = ("ok", "Timeout", "InternalError")  # after these, EC2 has or may have acted


@dataclass(frozen=True)
class Weather:
    """How likely each kind of trouble is, per call; seconds for the rest."""

    seed: int
    lost: float
    dropped: float
    error: float
    slow: float
    old: float
    max_age: float

    def fates(self) -> Fates:
        return Fates(self, random.Random(self.seed))


class Fates:
    def __init__(self, weather: Weather, rng: random.Random) -> None:
        self.weather, self.rng = weather, rng

    def __call__(self, caller: str, action: str) -> Fate:
        weather, rng = self.weather, self.rng
        out, back = rng.uniform(0.01, 0.2), rng.uniform(0.01, 0.2)
        if rng.random() < weather.slow:
            out = rng.uniform(0.2, 8)
        age = rng.uniform(0, weather.max_age) if rng.random() < weather.old else 0.0
        code = rng.choice(ERRORS) if rng.random() < weather.error else None
        if action == DESCRIBE and code == "IncorrectState":
            code = "RequestLimitExceeded"
        return Fate(
            out=out,
            back=back,
            error=ApiError(code) if code else None,
            lost=rng.random() < weather.lost,
            dropped=rng.random() < weather.dropped,
            age=age,
        )


@dataclass(frozen=True)
class Plan:
    """One mover: its name is the caller in the model's log."""

    name: str
    instance_id: Optional[str]
    from_instance_id: Optional[str]
    force: str
    grace: float
    seconds: float
    starts_at: float
    wait: bool


LIKELY = st.sampled_from([0.0, 0.0, 0.1, 0.4])
WEATHER = st.builds(
    Weather,
    seed=st.integers(0, 2**32),
    lost=LIKELY,
    dropped=LIKELY,
    error=LIKELY,
    slow=LIKELY,
    old=LIKELY,
    max_age=st.sampled_from([0.5, 3.0, 10.0]),
)


def plans(name: str, starts_at: st.SearchStrategy[float]) -> st.SearchStrategy[Plan]:
    return st.builds(
        Plan,
        name=st.just(name),
        instance_id=st.sampled_from([name, name, name, None]),
        from_instance_id=st.sampled_from([None, None, A]),
        force=st.sampled_from(["on_timeout", "on_timeout", "never", "always"]),
        grace=st.sampled_from([0.5, 5.0]),
        seconds=st.sampled_from([1.0, 10.0, 60.0]),
        starts_at=starts_at,
        wait=st.sampled_from([True, True, False]),
    )


MODELS = st.fixed_dictionaries(
    {
        "holder": st.sampled_from([A, A, B, C, None]),
        "attach_delay": st.sampled_from([0.0, 2.0, 20.0]),
        "detach_delay": st.sampled_from([0.0, 2.5, 20.0]),
        "force_delay": st.sampled_from([0.0, 0.5, 5.0]),
        "stuck": st.booleans(),
        "taken_indexes": st.sampled_from([(0,), (0, 1)]),
    }
)
Ending = Union[Outcome, MoveError]


def live(model: Model, *movers: Plan) -> dict[str, Ending]:
    timeline, endings = Timeline(), {}

    def mover(own: Plan) -> None:
        timeline.sleep(own.starts_at)
        wanted = Wanted(
            ENI,
            own.instance_id,
            from_instance_id=own.from_instance_id,
            force=own.force,
            detach_grace=own.grace,
            wait=own.wait,
        )
        client, start = model.client(timeline, own.name), timeline.now()
        rng = random.Random(own.name)
        try:
            endings[own.name] = move(client, timeline, wanted, start + own.seconds, call_timeout=CALL_TIMEOUT, rng=rng)
        except MoveError as error:
            endings[own.name] = error
        assert timeline.now() <= start + own.seconds + 1e-6, "it outlived its deadline"

    timeline.run(*[lambda own=own: mover(own) for own in movers])
    for own in movers:
        check_calls(own, [call for call in model.calls if call.caller == own.name])
        check_ending(own, endings[own.name], model)
    check_history(model)
    return endings


def check_calls(own: Plan, calls: list[Call]) -> None:
    """Each write follows a read of its own, and does only what that read allows."""
    forced: dict[str, Call] = {}
    detaching_since: dict[str, float] = {}
    first_target: Optional[str] = None
    for number, call in enumerate(calls):
        if call.read is not None and call.read.held and call.read.held.status == "detaching":
            detaching_since.setdefault(call.read.held.attachment_id, call.ended)
        if call.action == DESCRIBE:
            continue
        read = calls[number - 1].read
        assert read is not None, "a write without a fresh read"
        if call.action == ATTACH:
            assert (read.status, read.held) == ("available", None), "an attach of what was not read as free"
            assert call.arguments["instance_id"] == own.instance_id
            continue
        target = call.arguments["attachment_id"]
        assert read.held is not None, "a detach of what was read as free"
        assert read.held.attachment_id == target, "a detach of what was not read last"
        first_target = first_target or target
        assert target == first_target, "a detach of somebody's attachment that is newer than the race"
        assert own.from_instance_id in (None, read.holder)
        assert read.holder != own.instance_id or read.held.status == "detaching", "taken from the wanted instance"
        if call.arguments["force"]:
            check_force(own, call, detaching_since.get(target), forced.get(target))
            if call.result in ACTED:
                forced[target] = call
        elif call.result == "ok":
            detaching_since.setdefault(target, call.ended)


def check_force(own: Plan, call: Call, since: Optional[float], before: Optional[Call]) -> None:
    assert own.force != "never"
    if own.force == "on_timeout":
        assert since is not None, "Force without a polite detach"
        assert call.sent >= since + own.grace - 1e-6, "Force before the grace"
    if before is not None:
        assert before.result != "ok", "Force twice"
        assert call.sent >= before.ended + own.grace - 1e-6, "a Force of unknown fate repeated before another grace"


def check_ending(own: Plan, ending: Ending, model: Model) -> None:
    real = {interface for _at, interface in model.history}
    if isinstance(ending, MoveError):
        assert ending.last_seen is None or ending.last_seen in real
        assert ending.last_seen is None or str(ending.last_seen) in str(ending)
        return
    assert ending.interface in real
    holder = ending.interface.holder
    if own.instance_id is not None:
        assert holder == own.instance_id
        assert ending.interface.held is not None
        assert ending.interface.held.status == "attached" or not own.wait
    elif own.wait:
        assert holder is None or (own.from_instance_id is not None and holder != own.from_instance_id)


def check_history(model: Model) -> None:
    """Between two attachments the interface was nobody's: never two holders."""
    before = None
    for _at, interface in model.history:
        held = interface.held
        if held and before and held.attachment_id != before.attachment_id:
            raise AssertionError(f"{held} came while {before} stood")
        before = held


PROFILE = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@PROFILE
@given(weather=WEATHER, world=MODELS, one=plans(B, st.just(0.0)), two=plans(C, st.floats(0, 10)))
def test_two_movers_in_any_weather(weather: Weather, world: dict, one: Plan, two: Plan) -> None:
    endings = live(Model(fate=weather.fates(), **world), one, two)
    event(", ".join(sorted("done" if isinstance(ending, Outcome) else ending.code for ending in endings.values())))


@PROFILE
@given(weather=WEATHER, world=MODELS, one=plans(B, st.just(0.0)))
def test_one_mover_in_any_weather(weather: Weather, world: dict, one: Plan) -> None:
    live(Model(fate=weather.fates(), **world), one)


@PROFILE
@given(weather=WEATHER, world=MODELS, grace=st.sampled_from([0.5, 5.0]))
def test_a_lone_takeover_succeeds_in_weather_that_passes(weather: Weather, world: dict, grace: float) -> None:
    fates = weather.fates()
    left = [12]  # troubled calls

    def fate(caller: str, action: str) -> Fate:
        left[0] -= 1
        # Old reads alone could show a holder of long ago for ever; a read that old is not in this promise.
        return fates(caller, action) if left[0] > 0 else Fate()

    takeover = Plan(B, B, None, "on_timeout", grace, 240.0, 0.0, True)
    ending = live(Model(fate=fate, **world), takeover)[B]
    assert isinstance(ending, Outcome), ending


@pytest.mark.parametrize("seed", range(100))
def test_a_race_has_one_winner(seed: int) -> None:
    rng = random.Random(seed)
    model = Model(fate=lambda caller, action: Fate(rng.uniform(0.01, 0.2), rng.uniform(0.01, 0.2)), stuck=seed % 2 == 1)
    racers = [Plan(name, name, None, "on_timeout", 5.0, 60.0, 0.0, True) for name in (B, C)]
    endings = live(model, *racers)
    winners = [name for name, ending in endings.items() if isinstance(ending, Outcome)]
    assert len(winners) == 1
    loser = endings[C if winners == [B] else B]
    assert isinstance(loser, MoveError)
    assert loser.code == "LostRace"
    assert winners[0] in loser.reason
    assert model.interface.holder == winners[0]
    assert [call.action for call in model.writes() if call.result == "ok"].count(ATTACH) == 1
    assert DETACH in model.actions()
