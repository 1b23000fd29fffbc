# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The engine's decisions, one read at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Optional

import pytest
from ansible_collections.evernat.aws.plugins.module_utils._eni_move import (
    ATTACH,
    DETACH,
    ApiError,
    Attach,
    Attachment,
    Detach,
    Done,
    Facts,
    Interface,
    MoveError,
    Refuse,
    Step,
    Wait,
    Wanted,
    plan,
    predict,
)

A, B, C = "i-a", "i-b", "i-c"


def held(by: str, status: str = "attached", attachment_id: str = "eni-attach-1", index: int = 1) -> Interface:
    interface_status = "detaching" if status == "detaching" else "in-use"
    return Interface("eni-1", interface_status, Attachment(attachment_id, by, index, status))


FREE = Interface("eni-1", "available")


def to(instance_id: Optional[str], **options: Any) -> Wanted:
    return Wanted("eni-1", instance_id, **options)


def detaching_since(at: float, **more: Any) -> dict[str, Any]:
    return {"aimed_id": "eni-attach-1", "detaching_since": {"eni-attach-1": at}, **more}


EXACT: list[tuple[str, Interface, Wanted, dict[str, Any], Step]] = [
    ("held by the wanted one", held(B), to(B), {}, Done()),
    ("held by the wanted one, at another index", held(B, index=3), to(B, device_index=1), {}, Done()),
    ("arriving, not to be waited for", held(B, "attaching"), to(B, wait=False), {}, Done()),
    ("held by another", held(A), to(B), {}, Detach("eni-attach-1", False)),
    ("held by another, polite only", held(A), to(B, force="never"), {}, Detach("eni-attach-1", False)),
    ("held by a dead one", held(A), to(B, force="always"), {}, Detach("eni-attach-1", True)),
    ("leaving a dead one", held(A, "detaching"), to(B, force="always"), {}, Detach("eni-attach-1", True)),
    ("free", FREE, to(B), {}, Attach(1)),
    ("free, attachment over", replace(held(A, "detached"), status="available"), to(B), {}, Attach(1)),
    ("free, index chosen", FREE, to(B, device_index=4), {}, Attach(4)),
    ("free, first index known to be taken", FREE, to(B, used_indexes=frozenset({0, 1})), {}, Attach(2)),
    ("free, first indexes found to be taken", FREE, to(B), {"taken_indexes": frozenset({1, 2})}, Attach(3)),
    ("grace over", held(A, "detaching"), to(B), detaching_since(5, now=10), Detach("eni-attach-1", True)),
    (
        "detach accepted, not shown, grace over",
        held(A),
        to(B),
        detaching_since(5, now=10),
        Detach("eni-attach-1", True),
    ),
    (
        "Force's reply lost long ago",
        held(A, "detaching"),
        to(B),
        detaching_since(0, now=11, forced=frozenset({"eni-attach-1"}), force_lost={"eni-attach-1": 6}),
        Detach("eni-attach-1", True),
    ),
    (
        "another attachment's grace over",
        held(A),
        to(B),
        {"detaching_since": {"eni-attach-0": 0}, "now": 99},
        Detach("eni-attach-1", False),
    ),
    ("attach accepted, never shown", FREE, to(B), {"attach_accepted_at": 1, "now": 6}, Attach(1)),
    ("from: held by it", held(A), to(B, from_instance_id=A), {}, Detach("eni-attach-1", False)),
    ("from: left it during the move", FREE, to(B, from_instance_id=A), {"saw_from": True}, Attach(1)),
    ("from: there already", held(B), to(B, from_instance_id=A), {}, Done()),
    ("nobody: free", FREE, to(None), {}, Done()),
    ("nobody: held", held(A), to(None), {}, Detach("eni-attach-1", False)),
    ("nobody: leaving, not to be waited for", held(A, "detaching"), to(None, wait=False), {}, Done()),
    ("nobody: accepted, not to be waited for", held(A), to(None, wait=False), detaching_since(1, now=1), Done()),
    ("nobody, from: held by another", held(B), to(None, from_instance_id=A), {}, Done()),
    ("nobody, from: held by it", held(A), to(None, from_instance_id=A), {}, Detach("eni-attach-1", False)),
    ("nobody, from: held by nobody", FREE, to(None, from_instance_id=A), {}, Done()),
    ("little time left, nothing to take", FREE, to(B), {"left": 0.5}, Attach(1)),
    ("little time left, nobody wanted", held(A), to(None), {"left": 0.5}, Detach("eni-attach-1", False)),
]


@pytest.mark.parametrize(
    ("interface", "wanted", "facts", "step"), [case[1:] for case in EXACT], ids=[c[0] for c in EXACT]
)
def test_step(interface: Interface, wanted: Wanted, facts: dict[str, Any], step: Step) -> None:
    assert plan(interface, wanted, Facts(**facts)) == step


WAITS: list[tuple[str, Interface, Wanted, dict[str, Any], Optional[float]]] = [
    ("arriving", held(B, "attaching"), to(B), {}, None),
    ("leaving the wanted one", held(B, "detaching"), to(B), {"now": 1.0}, 6.0),
    ("within the grace", held(A, "detaching"), to(B), detaching_since(1, now=3), 6.0),
    ("within the grace, seen by nobody before", held(A, "detaching"), to(B, detach_grace=2), {"now": 3.0}, 5.0),
    ("never forced", held(A, "detaching"), to(B, force="never"), detaching_since(1, now=99), None),
    ("forced once", held(A), to(B), detaching_since(1, now=99, forced=frozenset({"eni-attach-1"})), None),
    (
        "forced, reply lost",
        held(A),
        to(B, detach_grace=7),
        detaching_since(1, now=9, forced=frozenset({"eni-attach-1"}), force_lost={"eni-attach-1": 8}),
        15.0,
    ),
    ("neither held nor free", Interface("eni-1", "detaching"), to(B), {}, None),
    ("attach accepted, not shown yet", FREE, to(B), {"attach_accepted_at": 1, "now": 3}, 6.0),
    ("old read after its end", held(A), to(B), {"gone": frozenset({"eni-attach-1"})}, None),
    ("another holder, read once", held(C), to(B), {"aimed_id": "x", "seen_reads": 1}, None),
    ("nobody: leaving", held(A, "detaching"), to(None, force="never"), {}, None),
    ("nobody: neither held nor free", Interface("eni-1", "detaching"), to(None), {}, None),
]


@pytest.mark.parametrize(
    ("interface", "wanted", "facts", "until"), [case[1:] for case in WAITS], ids=[c[0] for c in WAITS]
)
def test_wait(interface: Interface, wanted: Wanted, facts: dict[str, Any], until: Optional[float]) -> None:
    step = plan(interface, wanted, Facts(**facts))
    assert isinstance(step, Wait)
    assert step.until == until


RIVAL = {"aimed_id": "eni-attach-0", "seen_reads": 2}
REFUSALS: list[tuple[str, Interface, Wanted, dict[str, Any], str, str]] = [
    ("lost race", held(C), to(B), RIVAL, "LostRace", "it is attached to i-c (eni-attach-1"),
    ("taken away again", held(B, "detaching"), to(B), RIVAL, "LostRace", "detaching from i-b"),
    ("nobody: lost race", held(C), to(None), RIVAL, "LostRace", "i-c"),
    ("from: held by another", held(C), to(B, from_instance_id=A), {}, "NotHeldBy", "not held by i-a"),
    ("from: held by nobody", FREE, to(B, from_instance_id=A), {}, "NotHeldBy", "nobody holds eni-1, i-a neither"),
    ("chosen index taken", FREE, to(B, device_index=1, used_indexes=frozenset({1})), {}, "IndexTaken", "i-b"),
    ("no index left", FREE, to(B, used_indexes=frozenset(range(40))), {}, "IndexTaken", "no free device index"),
    ("no time for an attach", held(A), to(B), {"left": 1.5}, "Timeout", "too little time is left (1.5 s)"),
]


@pytest.mark.parametrize(
    ("interface", "wanted", "facts", "code", "text"), [case[1:] for case in REFUSALS], ids=[c[0] for c in REFUSALS]
)
def test_refusal(interface: Interface, wanted: Wanted, facts: dict[str, Any], code: str, text: str) -> None:
    step = plan(interface, wanted, Facts(**facts))
    assert isinstance(step, Refuse)
    assert step.code == code
    assert text in step.reason


@pytest.mark.parametrize(
    ("interface", "wanted", "actions", "holder"),
    [
        (held(A), to(B), [(DETACH, A, False), (ATTACH, B, None)], B),
        (held(A), to(B, force="always"), [(DETACH, A, True), (ATTACH, B, None)], B),
        (held(A, "detaching"), to(B), [(ATTACH, B, None)], B),
        (held(B), to(B), [], B),
        (held(B, "attaching"), to(B), [], B),
        (held(A), to(B, from_instance_id=A), [(DETACH, A, False), (ATTACH, B, None)], B),
        (held(A), to(None, wait=False), [(DETACH, A, False)], None),
        (held(B), to(None, from_instance_id=A), [], B),
        (FREE, to(None), [], None),
        (FREE, to(B), [(ATTACH, B, None)], B),
    ],
)
def test_prediction(interface: Interface, wanted: Wanted, actions: list[Any], holder: Optional[str]) -> None:
    after, predicted = predict(interface, wanted)
    assert [(action.action, action.instance_id, action.force) for action in predicted] == actions
    assert after.holder == holder
    assert all(action.result == "predicted" for action in predicted)


def test_prediction_refuses_as_the_move_would() -> None:
    with pytest.raises(MoveError, match="not held by i-c") as caught:
        predict(held(A), to(B, from_instance_id=C))
    assert caught.value.code == "NotHeldBy"


@pytest.mark.parametrize(
    ("options", "text"),
    [({"force": "maybe"}, "force is 'maybe'"), ({"device_index": 0}, "0 is the instance's primary interface")],
)
def test_wanted_refuses_nonsense(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        to(B, **options)


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        ("Timeout", "", "lost"),
        ("BadAnswer", "", "lost"),
        ("InternalError", "", "lost"),
        ("RequestLimitExceeded", "", "busy"),
        ("Unavailable", "", "busy"),
        ("IncorrectState", "", "stale"),
        ("InvalidAttachmentID.NotFound", "", "stale"),
        ("InvalidParameterValue", "Interface: [eni-1] in use.", "stale"),
        (
            "InvalidParameterValue",
            "Instance 'i-b' already has an interface attached at device index '1'.",
            "index_taken",
        ),
        ("InvalidParameterValue", "Value (x) for parameter instanceId is invalid.", None),
        ("UnauthorizedOperation", "", None),
        ("InvalidNetworkInterfaceID.NotFound", "", None),
    ],
)
def test_error_class(code: str, message: str, kind: Optional[str]) -> None:
    error = ApiError(code, message)
    assert [name for name in ("lost", "busy", "stale", "index_taken") if getattr(error, name)] == (
        [kind] if kind else []
    )
