# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The engine's loop against a small EC2 on a virtual clock: one mover, chosen faults."""

from __future__ import annotations

import random
from typing import Any, Callable, Optional

import pytest
from ansible_collections.evernat.aws.plugins.module_utils._eni_move import (
    ATTACH,
    DESCRIBE,
    DETACH,
    ApiError,
    Attachment,
    MonotonicClock,
    MoveError,
    Outcome,
    Wanted,
    move,
)
from ansible_collections.evernat.aws.tests.unit.plugins.module_utils.ec2_model import (
    ENI,
    FULL,
    Fate,
    Model,
    VirtualClock,
)

A, B, C = "i-a", "i-b", "i-c"
MOVE = [DESCRIBE, DETACH, DESCRIBE, ATTACH, DESCRIBE]


class Faults:
    """The fates of the next calls per action, in order; calls beyond the list go well."""

    def __init__(self, **fates: list[Fate]) -> None:
        actions = {"describe": DESCRIBE, "attach": ATTACH, "detach": DETACH}
        self.fates = {actions[name]: list(listed) for name, listed in fates.items()}

    def __call__(self, caller: str, action: str) -> Fate:
        return self.fates[action].pop(0) if self.fates.get(action) else Fate()


def error(code: str, message: str = "") -> Fate:
    return Fate(error=ApiError(code, message, "req-7"))


LOST, DROPPED = Fate(lost=True), Fate(dropped=True)
THROTTLED, BROKEN = error("RequestLimitExceeded"), error("InternalError")


def run(
    model: Model,
    instance_id: Optional[str] = B,
    seconds: float = 120,
    clock: Optional[VirtualClock] = None,
    **options: Any,
) -> Outcome:
    clock = clock or VirtualClock()
    own = {
        name: options.pop(name) for name in ("may_take", "on_event", "call_timeout", "seen", "read") if name in options
    }
    wanted = Wanted(ENI, instance_id, **options)
    return move(model.client(clock), clock, wanted, clock.now() + seconds, rng=random.Random(1), **own)


def compact(actions: list[str]) -> list[str]:
    """The calls, repeated ones once."""
    return [action for at, action in enumerate(actions) if at == 0 or action != actions[at - 1]]


def forces(model: Model) -> list[bool]:
    return [call.arguments["force"] for call in model.calls if call.action == DETACH]


def test_a_plain_move() -> None:
    model = Model()
    outcome = run(model)
    assert compact(model.actions()) == MOVE
    assert forces(model) == [False]
    assert outcome.interface.holder == B
    assert outcome.previous_instance_id == A
    assert outcome.changed
    assert not outcome.forced
    assert [(action.action, action.result) for action in outcome.actions] == [(DETACH, "ok"), (ATTACH, "ok")]
    assert outcome.actions[1].attachment_id == "eni-attach-2"


def test_phases_add_up_to_the_duration_and_polling_costs_little() -> None:
    outcome = run(Model(attach_delay=2.0, detach_delay=2.5))
    assert set(outcome.phases) == {"describe", "detach", "attach"}
    assert sum(outcome.phases.values()) == pytest.approx(outcome.duration)
    assert 2.5 <= outcome.phases["detach"] <= 3.2
    assert 2.0 <= outcome.phases["attach"] <= 2.7


def test_nothing_to_do_writes_nothing() -> None:
    model = Model(holder=B)
    outcome = run(model)
    assert model.actions() == [DESCRIBE]
    assert not outcome.changed
    assert outcome.previous_instance_id == B


def test_a_free_interface_is_attached_at_the_first_free_index() -> None:
    model = Model(holder=None, taken_indexes=(0, 1, 2))
    outcome = run(model, seconds=10)
    assert [call.arguments["device_index"] for call in model.writes()] == [1, 2, 3]
    assert outcome.interface.held is not None
    assert outcome.interface.held.device_index == 3
    assert outcome.duration < 4  # no pause between indexes


def test_a_chosen_index_that_is_taken_is_an_error() -> None:
    model = Model(holder=None, taken_indexes=(0, 1))
    with pytest.raises(MoveError, match="device index 1 of i-b is taken") as caught:
        run(model, device_index=1)
    assert caught.value.code == "IndexTaken"
    assert [action.result for action in caught.value.actions] == ["InvalidParameterValue"]


def test_an_instance_that_is_full_is_an_error() -> None:
    with pytest.raises(MoveError, match=f"{ATTACH} was refused: {FULL}") as caught:
        run(Model(holder=None, full=True))
    assert caught.value.code == FULL


def test_force_once_after_the_grace() -> None:
    model, clock = Model(stuck=True), VirtualClock()
    outcome = run(model, clock=clock, detach_grace=5)
    assert forces(model) == [False, True]
    polite, forced = (call for call in model.calls if call.action == DETACH)
    assert 5 <= forced.sent - polite.ended < 5.2
    assert outcome.forced
    assert outcome.interface.holder == B


def test_force_at_once_for_a_dead_holder() -> None:
    model = Model(stuck=True)
    run(model, force="always")
    assert forces(model) == [True]


def test_never_forced_ends_at_the_deadline_and_says_what_is_stuck() -> None:
    model, clock = Model(stuck=True), VirtualClock()
    with pytest.raises(MoveError) as caught:
        run(model, clock=clock, seconds=30, force="never")
    assert clock.now() == pytest.approx(1030)
    assert forces(model) == [False]
    assert caught.value.code == "Timeout"
    assert str(caught.value) == (
        "gave up after 30.0 s, waiting for eni-1: it is still detaching. "
        "Last seen: eni-1 is detaching from i-a (eni-attach-1, device index 1)."
    )


def test_the_grace_of_a_detach_begun_by_somebody_else_is_counted_from_its_first_sight() -> None:
    model, clock = Model(stuck=True), VirtualClock()
    model.detach(clock.now(), "eni-attach-1", force=False)
    run(model, clock=clock, detach_grace=4)
    assert forces(model) == [True]
    seen = model.calls[0].ended
    assert 4 <= next(call.sent for call in model.calls if call.action == DETACH) - seen < 4.2


TROUBLE = [THROTTLED, BROKEN, error("Unavailable"), DROPPED, LOST]
TROUBLES = [(action, fate) for action in ("describe", "attach", "detach") for fate in TROUBLE]
TROUBLES += [(action, error("IncorrectState")) for action in ("attach", "detach")]


@pytest.mark.parametrize(("action", "fate"), TROUBLES)
@pytest.mark.parametrize("times", [1, 4])
def test_trouble_is_outlived(action: str, fate: Fate, times: int) -> None:
    model = Model(fate=Faults(**{action: [fate] * times}))
    outcome = run(model)
    assert outcome.interface.holder == B
    assert sum(call.result == "ok" for call in model.writes()) >= 1
    assert not any(forces(model))
    for before, call in zip(model.calls, model.calls[1:]):
        assert call.action == DESCRIBE or before.action == DESCRIBE, "a write without a fresh read"


def test_a_lost_reply_to_an_attach_that_took_effect_is_success() -> None:
    model = Model(holder=None, fate=Faults(attach=[LOST]))
    outcome = run(model)
    assert [call.result for call in model.writes()] == ["Timeout"]
    assert outcome.interface.holder == B
    assert outcome.changed


def test_a_lost_attach_and_an_old_read_are_success_too() -> None:
    model = Model(holder=None, fate=Faults(attach=[LOST], describe=[Fate(), Fate(age=4), Fate(age=4)]))
    outcome = run(model)
    assert [call.result for call in model.writes()] == ["Timeout", "InvalidNetworkInterface.InUse"]
    assert outcome.interface.holder == B


@pytest.mark.parametrize("options", [{}, {"device_index": 1}])
@pytest.mark.parametrize(
    "answer", [error(FULL), error("InvalidParameterValue", "has an interface attached at device index '1'")]
)
def test_what_a_lost_attach_of_our_own_fills_is_no_failure(options: dict[str, Any], answer: Fate) -> None:
    faults = Faults(attach=[LOST, answer], describe=[Fate(), Fate(age=4)])
    assert run(Model(holder=None, fate=faults), **options).interface.holder == B


def test_a_lost_force_is_repeated_only_after_another_grace() -> None:
    model = Model(stuck=True, fate=Faults(detach=[Fate(), DROPPED]))
    run(model, detach_grace=6)
    assert forces(model) == [False, True, True]
    _polite, first, second = (call for call in model.calls if call.action == DETACH)
    assert second.sent - first.ended >= 6


def test_a_lost_force_that_took_effect_is_not_repeated() -> None:
    model = Model(stuck=True, fate=Faults(detach=[Fate(), LOST]))
    run(model)
    assert forces(model) == [False, True]


def test_a_throttled_force_is_sent_again() -> None:
    model = Model(stuck=True, fate=Faults(detach=[Fate(), THROTTLED]))
    run(model)
    assert forces(model) == [False, True, True]


def test_an_accepted_attach_that_does_not_show_yet_is_not_repeated() -> None:
    model = Model(holder=None, fate=Faults(describe=[Fate()] + [Fate(age=3)] * 5))
    run(model)
    assert len(model.writes()) == 1


def test_an_old_read_of_the_detached_attachment_is_not_acted_on() -> None:
    faults = Faults(describe=[Fate()] * 8 + [Fate(age=9)] * 3)
    model = Model(detach_delay=1, attach_delay=9, fate=faults)
    run(model, detach_grace=2)
    assert forces(model) == [False]


def test_an_old_read_before_the_attachment_does_not_hide_it_for_good() -> None:
    clock = VirtualClock()
    model = Model(holder=None, stuck=True)
    model.attach(clock.now(), A, 1)
    clock.sleep(3)
    model.advance(clock.now())
    model.fate = Faults(describe=[Fate(), Fate(), Fate(age=60)])
    outcome = run(model, clock=clock)
    assert outcome.interface.holder == B
    assert forces(model) == [False, True]


def test_one_old_read_of_an_earlier_holder_is_no_lost_race() -> None:
    clock, model = VirtualClock(), Model(holder=C)
    clock.sleep(10)
    model.set(clock.now(), status="available", attachment=None)
    model.attach(clock.now(), A, 1)
    clock.sleep(5)
    model.advance(clock.now())
    model.fate = Faults(describe=[Fate(), Fate(age=60)])
    assert run(model, clock=clock).interface.holder == B


def test_a_refused_write_is_read_again_not_repeated() -> None:
    clock, model = VirtualClock(), Model(holder=None)
    model.attach(clock.now(), A, 1)
    model.detach(clock.now() + 1, "eni-attach-1", force=True)
    model.advance(clock.now() + 2)
    clock.sleep(3)
    model.fate = Faults(describe=[Fate(age=2.6)])
    run(model, clock=clock)
    assert [call.action for call in model.calls][:4] == [DESCRIBE, DETACH, DESCRIBE, ATTACH]
    assert model.calls[1].result == "InvalidAttachmentID.NotFound"
    assert model.calls[2].sent == model.calls[1].ended  # at once


def race(model: Model, clock: VirtualClock, at: str, times: int = 1) -> Callable[[str, str], Fate]:
    """Somebody attaches the interface to C just before the mover's call `at` reaches EC2."""
    left = [times]

    def fate(caller: str, action: str) -> Fate:
        if action == at and left[0]:
            left[0] -= 1
            model.set(clock.now(), status="available", attachment=None)
            model.attach(clock.now(), C, 1)
        return Fate()

    return fate


@pytest.mark.parametrize(("at", "instance_id"), [(DETACH, B), (ATTACH, B), (DETACH, None)])
def test_a_lost_race_names_the_winner_and_leaves_it_alone(at: str, instance_id: Optional[str]) -> None:
    clock, model = VirtualClock(), Model()
    model.fate = race(model, clock, at)
    with pytest.raises(MoveError, match=r"lost the race for eni-1: it is attach(ing|ed) to i-c") as caught:
        run(model, instance_id, clock=clock)
    assert caught.value.code == "LostRace"
    assert caught.value.last_seen is not None
    assert caught.value.last_seen.holder == C
    assert model.interface.holder == C
    assert {call.arguments.get("attachment_id") for call in model.writes()} <= {"eni-attach-1", None}


@pytest.mark.parametrize("holder", [A, None])
def test_a_holder_newer_than_the_callers_own_read_is_left_alone(holder: Optional[str]) -> None:
    clock, model = VirtualClock(), Model(holder=holder)
    seen = model.interface
    model.set(clock.now(), status="available", attachment=None)
    model.attach(clock.now(), C, 1)
    with pytest.raises(MoveError, match="lost the race") as caught:
        run(model, clock=clock, seen=seen)
    assert not model.writes()
    assert caught.value.last_seen is not None
    assert caught.value.last_seen.holder == C


def test_what_somebody_else_did_for_us_is_success() -> None:
    clock, model = VirtualClock(), Model()

    def fate(caller: str, action: str) -> Fate:
        if action == DETACH:
            model.set(clock.now(), status="available", attachment=None)
            model.attach(clock.now(), B, 1)
        return Fate()

    model.fate = fate
    outcome = run(model, clock=clock)
    assert outcome.interface.holder == B
    assert outcome.changed


@pytest.mark.parametrize(
    ("answer", "text"), [(False, "must not be detached"), ("it answers", "stays with i-a: it answers")]
)
def test_a_guard_keeps_a_living_holder(answer: Any, text: str) -> None:
    asked: list[Attachment] = []
    model = Model()

    def may_take(held: Attachment) -> Any:
        asked.append(held)
        return answer

    with pytest.raises(MoveError, match=text) as caught:
        run(model, may_take=may_take)
    assert caught.value.code == "HolderAlive"
    assert [held.instance_id for held in asked] == [A]
    assert model.actions() == [DESCRIBE]


def test_the_guard_is_asked_again_before_force() -> None:
    answers = [True, "it is back"]
    model = Model(stuck=True)
    with pytest.raises(MoveError, match="it is back"):
        run(model, may_take=lambda held: answers.pop(0))
    assert forces(model) == [False]


@pytest.mark.parametrize(("holder", "from_instance_id"), [(C, A), (None, A)])
def test_from_another_holder_writes_nothing(holder: Optional[str], from_instance_id: str) -> None:
    model = Model(holder=holder)
    with pytest.raises(MoveError) as caught:
        run(model, from_instance_id=from_instance_id)
    assert caught.value.code == "NotHeldBy"
    assert not model.writes()


def test_from_the_holder_moves() -> None:
    assert run(Model(), from_instance_id=A).interface.holder == B


def test_detach() -> None:
    clock, model = VirtualClock(), Model()
    outcome = run(model, None, clock=clock)
    assert outcome.interface.status == "available"
    assert outcome.previous_instance_id == A
    assert set(outcome.phases) == {"describe", "detach"}
    assert not run(model, None, clock=clock).changed


def test_detach_from_one_that_lost_it_is_success() -> None:
    model = Model(holder=C)
    outcome = run(model, None, from_instance_id=A)
    assert not outcome.changed
    assert not model.writes()


@pytest.mark.parametrize("instance_id", [B, None])
def test_without_wait_the_last_step_is_only_begun(instance_id: Optional[str]) -> None:
    model = Model(attach_delay=60, detach_delay=3 if instance_id else 60)
    outcome = run(model, instance_id, wait=False, seconds=20)
    assert outcome.interface.held is not None
    assert outcome.interface.held.status == ("attaching" if instance_id else "detaching")
    assert outcome.changed


@pytest.mark.parametrize("action", ["describe", "attach", "detach"])
@pytest.mark.parametrize(
    "code",
    [
        "UnauthorizedOperation",
        "AuthFailure",
        "ExpiredToken",
        "InvalidNetworkInterfaceID.NotFound",
        "OperationNotPermitted",
    ],
)
def test_what_no_retry_cures_fails_at_once_and_names_the_call(action: str, code: str) -> None:
    clock = VirtualClock()
    model = Model(detach_delay=0, fate=Faults(**{action: [error(code, "no")] * 9}))
    with pytest.raises(MoveError) as caught:
        run(model, clock=clock)
    name = {"describe": DESCRIBE, "attach": ATTACH, "detach": DETACH}[action]
    assert caught.value.reason == f"{name} was refused: {code}: no (request req-7)"
    assert caught.value.code == code
    assert sum(call.result == code for call in model.calls) == 1
    assert clock.now() < 1002


@pytest.mark.parametrize("fate", [THROTTLED, DROPPED, Fate(out=600)])
@pytest.mark.parametrize("action", ["describe", "attach", "detach"])
def test_trouble_without_end_ends_at_the_deadline(action: str, fate: Fate) -> None:
    clock = VirtualClock()
    model = Model(fate=Faults(**{action: [fate] * 200}))
    with pytest.raises(MoveError) as caught:
        run(model, clock=clock, seconds=20)
    assert caught.value.code == "Timeout"
    assert clock.now() <= 1020.01
    assert len(model.calls) < 60


def test_backoff_grows_to_two_seconds() -> None:
    model = Model(fate=Faults(describe=[THROTTLED] * 99))
    with pytest.raises(MoveError):
        run(model, seconds=60)
    pauses = [after.sent - before.ended for before, after in zip(model.calls, model.calls[1:])][:-1]
    assert all(0.3 - 1e-6 <= pause <= 2 + 1e-6 for pause in pauses)
    assert max(pauses) > 1.5


def reads_while_it_is_stuck(seconds: float, **fates: list[Fate]) -> list[tuple[float, float]]:
    """Per read after the detach: seconds since the detach, and until the next read was sent."""
    model = Model(stuck=True, fate=Faults(**fates))
    with pytest.raises(MoveError):
        run(model, seconds=seconds, force="never")
    detached = next(call.ended for call in model.calls if call.action == DETACH)
    reads = [call.sent - detached for call in model.calls if call.action == DESCRIBE and call.sent >= detached]
    return [(before, after - before) for before, after in zip(reads, reads[1:])][:-1]


def test_reads_are_as_dense_as_the_wait_is_short() -> None:
    reads = reads_while_it_is_stuck(60)
    for waited, interval in reads:
        assert 0.1 - 1e-6 <= interval <= min(1.0, max(0.1, (waited + 0.1) / 20)) * 1.1 + 1e-6
    assert reads[-1][1] >= 1.0
    assert sum(waited < 20 for waited, _interval in reads) <= 70


def test_a_throttled_api_is_asked_once_a_second_from_then_on() -> None:
    reads = reads_while_it_is_stuck(30, describe=[Fate(), Fate(), THROTTLED])
    assert all(interval >= 1.0 for _waited, interval in reads[2:])


def test_a_call_gets_no_more_than_what_is_left() -> None:
    clock = VirtualClock()
    with pytest.raises(MoveError):
        run(Model(fate=Faults(describe=[DROPPED] * 9)), clock=clock, seconds=4, call_timeout=3)
    assert clock.now() == pytest.approx(1004)


def test_nothing_is_taken_when_no_time_is_left_to_give_it_back() -> None:
    model = Model(fate=Faults(describe=[DROPPED]))
    text = r"too little time is left .* after waiting for DescribeNetworkInterfaces to succeed"
    with pytest.raises(MoveError, match=text):
        run(model, seconds=4, call_timeout=2)
    assert not model.writes()


def test_events_tell_each_call_and_decision() -> None:
    events: list[dict[str, Any]] = []
    run(Model(fate=Faults(detach=[error("RequestLimitExceeded", "slow down")])), on_event=events.append)
    calls = [event for event in events if event["event"] == "call"]
    decisions = [event["step"] for event in events if event["event"] == "decision"]
    assert calls[1]["result"] == "RequestLimitExceeded"
    assert calls[1]["request_id"] == "req-7"
    assert calls[1]["message"] == "slow down"
    assert all(event["at"] >= 0 and event["seconds"] >= 0 for event in calls)
    assert compact(decisions) == ["detach", "wait", "attach", "wait", "done"]


def test_the_machines_own_clock() -> None:
    clock = MonotonicClock()
    before = clock.now()
    clock.sleep(0.01)
    assert clock.now() - before >= 0.01
