# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Move an Elastic Network Interface (ENI) between EC2 instances. This module util is PRIVATE to the collection.

One source for the Ansible module and for the OCF agent: standard library only, Python 3.9 or later.

EC2's attachment is the arbiter. Detach names an attachment id, attach is refused while the interface is in use. So
"detach the attachment I read, attach only when free" is a compare-and-swap: of two movers exactly one wins.
`plan()` decides the next step from one read of the interface, without I/O. `move()` reads, plans and carries out
one step at a time until the wanted state is reached, the plan refuses, or the deadline passes. Each write follows a
fresh read, so an error or a lost reply never leads to a blind repeat. `predict()` is the plan for check mode.
All times are seconds on the clock's own monotonic scale.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Optional, Protocol, Union

# A read after a write comes at most a twentieth of the time waited so far too late. EC2 refills 20 filtered describes a
# second per account and region (bucket 100): a wait of 20 s costs about 65, never more than 10 in a second.
POLL_SHARE = 1 / 20
POLL_MIN, POLL_MAX = 0.1, 1.0  # from the start of one read to the start of the next
POLL_JITTER = 0.1
BACKOFF_MIN = 0.3
BACKOFF_MAX = 2.0
SETTLE = 5.0  # how long a read may lag behind a write that EC2 accepted
ATTACH_RESERVE = 2.0  # no interface is taken from a holder when less is left for giving it a new one
MAX_DEVICE_INDEX = 31

DESCRIBE = "DescribeNetworkInterfaces"
ATTACH = "AttachNetworkInterface"
DETACH = "DetachNetworkInterface"

# The reply is lost: EC2 may or may not have acted.
_LOST = frozenset({"Timeout", "ConnectionError", "BadAnswer", "RequestTimeout", "InternalError", "InternalFailure"})
# EC2 did not act, and may when asked again.
_BUSY = frozenset(
    {
        "RequestLimitExceeded",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "Unavailable",
        "ServiceUnavailable",
    }
)
# The read that led to the write was old: read again.
_STALE = frozenset(
    {
        "InvalidNetworkInterface.InUse",
        "InvalidAttachmentID.NotFound",
        "IncorrectState",
        "IncorrectInstanceState",
    }
)


class ApiError(Exception):
    """A call failed: `code` is EC2's, or "Timeout", "ConnectionError", "BadAnswer" when no usable answer came."""

    def __init__(self, code: str, message: str = "", request_id: str = "") -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code
        self.message = message
        self.request_id = request_id

    @property
    def lost(self) -> bool:
        """True if EC2 may have acted although the call failed."""
        return self.code in _LOST

    @property
    def busy(self) -> bool:
        return self.code in _BUSY

    @property
    def stale(self) -> bool:
        """True if EC2 refused because the interface is not as it was read."""
        return self.code in _STALE or (self.code == "InvalidParameterValue" and " in use" in self.message.lower())

    @property
    def index_taken(self) -> bool:
        return self.code == "InvalidParameterValue" and "at device index" in self.message.lower()


@dataclass(frozen=True)
class Attachment:
    """An interface's attachment; `status` is attaching, attached, detaching or detached."""

    attachment_id: str
    instance_id: str
    device_index: int
    status: str
    delete_on_termination: bool = False

    def __str__(self) -> str:
        return (
            f"{self.status} {'from' if self.status in ('detaching', 'detached') else 'to'} {self.instance_id} "
            f"({self.attachment_id}, device index {self.device_index})"
        )


@dataclass(frozen=True)
class Interface:
    """One read of a network interface; `status` is available, associated, attaching, in-use or detaching."""

    interface_id: str
    status: str
    attachment: Optional[Attachment] = None
    mac_address: str = ""
    private_ip: str = ""
    subnet_id: str = ""
    availability_zone: str = ""
    source_dest_check: Optional[bool] = None
    requester_managed: bool = False

    @property
    def held(self) -> Optional[Attachment]:
        """The attachment, unless it is over."""
        if self.attachment is None or self.attachment.status == "detached":
            return None
        return self.attachment

    @property
    def holder(self) -> Optional[str]:
        """The id of the instance that holds the interface, None if nobody does."""
        return self.held.instance_id if self.held else None

    def __str__(self) -> str:
        return f"{self.interface_id} is {self.held or self.status}"


class Client(Protocol):
    """EC2. Each call is given the seconds it may take, and raises ApiError."""

    def describe(self, interface_id: str, timeout: float) -> Interface: ...

    def attach(self, interface_id: str, instance_id: str, device_index: int, timeout: float) -> str: ...

    def detach(self, attachment_id: str, force: bool, timeout: float) -> None: ...


class Clock(Protocol):
    def now(self) -> float: ...

    def sleep(self, seconds: float) -> None: ...


class MonotonicClock:
    """The machine's own monotonic clock."""

    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass(frozen=True)
class Wanted:
    """The state to reach.

    instance_id: who shall hold the interface, None for nobody.
    device_index: where a new attachment goes, None for the first free one from 1.
    used_indexes: device indexes that the caller knows to be taken on the instance.
    from_instance_id: act only if this instance holds it; if nobody shall hold it, "not held by this one" is enough.
    force: "never", "on_timeout" (once, when a polite detach took longer than the grace) or "always" (at once: the
        holder is known to be dead).
    detach_grace: seconds that a polite detach gets before Force.
    wait: False to return as soon as EC2 has taken the last step on, instead of when it is complete.
    """

    interface_id: str
    instance_id: Optional[str] = None
    device_index: Optional[int] = None
    used_indexes: frozenset[int] = frozenset()
    from_instance_id: Optional[str] = None
    force: str = "on_timeout"
    detach_grace: float = 5.0
    wait: bool = True

    def __post_init__(self) -> None:
        if self.force not in ("never", "on_timeout", "always"):
            raise ValueError(f"force is {self.force!r}, not one of never, on_timeout, always")
        if self.device_index is not None and self.device_index < 1:
            raise ValueError(f"device index {self.device_index} cannot be used: 0 is the instance's primary interface")


@dataclass(frozen=True)
class Facts:
    """What a move has learnt so far, beside the latest read.

    now, left: the time, and the seconds left until the deadline.
    aimed_id: the attachment of the first read ("" if it was free), None before it. Only this one is ever ended:
        a newer one belongs to somebody who won the race.
    detaching_since: per attachment id, when its detach was accepted or first seen.
    forced: ids that Force was sent for; force_lost: those of them whose reply was lost, with the time.
    gone: attachment ids whose end was read: another read that shows one is old.
    saw_from: whether from_instance_id was seen as the holder.
    attach_accepted_at: when EC2 accepted our attach.
    attach_lost_at: when the reply to our attach was lost.
    seen_id, seen_reads: the attachment that was read last, and how many times in a row.
    """

    now: float = 0.0
    left: float = float("inf")
    aimed_id: Optional[str] = None
    detaching_since: Mapping[str, float] = field(default_factory=dict)
    forced: frozenset[str] = frozenset()
    force_lost: Mapping[str, float] = field(default_factory=dict)
    gone: frozenset[str] = frozenset()
    saw_from: bool = False
    taken_indexes: frozenset[int] = frozenset()
    attach_accepted_at: Optional[float] = None
    attach_lost_at: Optional[float] = None
    seen_id: Optional[str] = None
    seen_reads: int = 0


@dataclass(frozen=True)
class Done:
    """The wanted state is reached."""


@dataclass(frozen=True)
class Detach:
    attachment_id: str
    force: bool


@dataclass(frozen=True)
class Attach:
    device_index: int


@dataclass(frozen=True)
class Wait:
    """Read again after a pause; `until`: a time at which waiting longer would be wrong."""

    why: str
    until: Optional[float] = None


@dataclass(frozen=True)
class Refuse:
    """The wanted state cannot be reached, or must not be."""

    code: str
    reason: str


Step = Union[Done, Detach, Attach, Wait, Refuse]


@dataclass(frozen=True)
class Action:
    """A write: `result` is "ok", "predicted" or the code of its error."""

    action: str
    result: str
    instance_id: str
    attachment_id: Optional[str] = None
    device_index: Optional[int] = None
    force: Optional[bool] = None

    @property
    def may_have_acted(self) -> bool:
        return self.result in _LOST or self.result in ("ok", "predicted")


@dataclass(frozen=True)
class Outcome:
    """A move that reached its end.

    interface: the last read; before: the first.
    duration, phases: seconds; a phase is "describe" (until the first answer), "detach" or "attach".
    """

    interface: Interface
    before: Interface
    actions: tuple[Action, ...]
    duration: float
    phases: Mapping[str, float]

    @property
    def previous_instance_id(self) -> Optional[str]:
        return self.before.holder

    @property
    def forced(self) -> bool:
        return any(action.force and action.may_have_acted for action in self.actions)

    @property
    def changed(self) -> bool:
        return self.before.holder != self.interface.holder or any(action.may_have_acted for action in self.actions)


class MoveError(Exception):
    """The wanted state was not reached.

    code: EC2's, or Timeout, LostRace, NotHeldBy, HolderAlive, IndexTaken.
    last_seen: the last read, None if there was none; actions, phases, duration as in Outcome.
    """

    def __init__(
        self,
        reason: str,
        code: str,
        last_seen: Optional[Interface] = None,
        actions: tuple[Action, ...] = (),
        duration: float = 0.0,
        phases: Optional[Mapping[str, float]] = None,
    ) -> None:
        super().__init__(reason if last_seen is None else f"{reason}. Last seen: {last_seen}.")
        self.reason = reason
        self.code = code
        self.last_seen = last_seen
        self.actions = actions
        self.duration = duration
        self.phases = dict(phases or {})


def plan(interface: Interface, wanted: Wanted, facts: Facts) -> Step:
    """Decide the next step from a read of the interface. Pure."""
    held = interface.held
    if held is None:
        return _plan_free(interface, wanted, facts)
    if held.attachment_id in facts.gone:
        return Wait(f"an old answer still shows it {held}")
    if held.instance_id == wanted.instance_id and held.status != "detaching":
        if held.status == "attached" or not wanted.wait:
            return Done()
        return Wait("the attachment is not complete")
    if wanted.instance_id is None and wanted.from_instance_id not in (None, held.instance_id):
        return Done()
    if facts.aimed_id not in (None, held.attachment_id):
        if facts.seen_reads < 2:  # one read may be old, and show a holder of long ago
            return Wait(f"somebody else seems to have it: {held}")
        return Refuse("LostRace", f"lost the race for {interface.interface_id}: it is {held}")
    if wanted.from_instance_id not in (None, held.instance_id):
        return Refuse("NotHeldBy", f"{interface.interface_id} is {held}, not held by {wanted.from_instance_id}")
    return _plan_detach(held, wanted, facts)


def _plan_free(interface: Interface, wanted: Wanted, facts: Facts) -> Step:
    if wanted.instance_id is None:
        if interface.status == "available" or not wanted.wait or wanted.from_instance_id is not None:
            return Done()
        return Wait(f"it is {interface.status}")
    if wanted.from_instance_id is not None and not facts.saw_from:
        return Refuse("NotHeldBy", f"nobody holds {interface.interface_id}, {wanted.from_instance_id} neither")
    if interface.status != "available":
        return Wait(f"it is {interface.status}")
    if facts.attach_accepted_at is not None and facts.now < facts.attach_accepted_at + SETTLE:
        return Wait("the attach that EC2 accepted does not show yet", facts.attach_accepted_at + SETTLE)
    index = _choose_index(wanted, facts)
    if index is None:
        return Refuse("IndexTaken", f"{wanted.instance_id} has no free device index for {interface.interface_id}")
    return Attach(index)


def _choose_index(wanted: Wanted, facts: Facts) -> Optional[int]:
    taken = facts.taken_indexes | wanted.used_indexes
    choice = range(1, MAX_DEVICE_INDEX + 1) if wanted.device_index is None else (wanted.device_index,)
    return next((index for index in choice if index not in taken), None)


def _plan_detach(held: Attachment, wanted: Wanted, facts: Facts) -> Step:
    since = facts.detaching_since.get(held.attachment_id)
    begun = since is not None or held.status == "detaching"
    if begun and wanted.instance_id is None and not wanted.wait:
        return Done()
    if not begun and wanted.instance_id is not None and facts.left < ATTACH_RESERVE:
        return Refuse("Timeout", f"too little time is left ({facts.left:.1f} s) to take it from {held.instance_id}")
    if held.attachment_id in facts.forced:
        return _plan_forced(held, wanted, facts)
    if wanted.force == "always":
        return Detach(held.attachment_id, force=True)
    if not begun:
        return Detach(held.attachment_id, force=False)
    if wanted.force == "never":
        return Wait(f"it is still {held.status}")
    grace_end = (facts.now if since is None else since) + wanted.detach_grace
    if facts.now >= grace_end:
        return Detach(held.attachment_id, force=True)
    return Wait(f"it is still {held.status}", grace_end)


def _plan_forced(held: Attachment, wanted: Wanted, facts: Facts) -> Step:
    lost_at = facts.force_lost.get(held.attachment_id)
    if lost_at is None:
        return Wait(f"it is still {held.status}, although Force was accepted")
    # Nobody knows whether EC2 heard that Force. A whole grace later the attachment still stands: it did not.
    again_at = lost_at + max(wanted.detach_grace, SETTLE)
    if facts.now >= again_at:
        return Detach(held.attachment_id, force=True)
    return Wait(f"it is still {held.status}, and the reply to Force was lost", again_at)


def predict(interface: Interface, wanted: Wanted) -> tuple[Interface, tuple[Action, ...]]:
    """What a move would come to if all went well: the interface afterwards, and the writes. Raises MoveError."""
    actions: list[Action] = []
    facts = Facts(saw_from=wanted.from_instance_id is not None and wanted.from_instance_id == interface.holder)
    while True:
        step = plan(interface, replace(wanted, wait=True), facts)
        held = interface.held
        if isinstance(step, Refuse):
            raise MoveError(step.reason, step.code, interface)
        if isinstance(step, Attach):
            actions.append(
                Action(ATTACH, "predicted", str(wanted.instance_id), device_index=step.device_index, force=None)
            )
            new = Attachment("", str(wanted.instance_id), step.device_index, "attached")
            interface = replace(interface, status="in-use", attachment=new)
        elif isinstance(step, Detach) and held is not None:
            actions.append(
                Action(DETACH, "predicted", held.instance_id, step.attachment_id, held.device_index, step.force)
            )
            interface = replace(interface, status="available", attachment=None)
        elif isinstance(step, Wait) and held is not None and held.status == "attaching":
            interface = replace(interface, status="in-use", attachment=replace(held, status="attached"))
        elif isinstance(step, Wait):
            interface = replace(interface, status="available", attachment=None)
        else:
            return interface, tuple(actions)


def move(
    client: Client,
    clock: Clock,
    wanted: Wanted,
    deadline: float,
    on_event: Optional[Callable[[dict[str, Any]], None]] = None,
    may_take: Optional[Callable[[Attachment], Union[bool, str]]] = None,
    call_timeout: float = 3.0,
    rng: Optional[random.Random] = None,
    seen: Optional[Interface] = None,
) -> Outcome:
    """Bring the interface to the wanted state, or raise MoveError; ends by `deadline` (on the clock's scale).

    may_take is asked before each detach, with the attachment to be ended: True, or a reason (or False) why not.
    call_timeout caps the seconds of one call. on_event gets a dict for every call and every decision.
    seen is a read that the caller has decided by: an attachment newer than that one is not ended.
    """
    mover = _Mover(client, clock, wanted, deadline, on_event, may_take, call_timeout, rng or random.Random())
    return mover.run(seen)


class _Mover:
    def __init__(
        self,
        client: Client,
        clock: Clock,
        wanted: Wanted,
        deadline: float,
        on_event: Optional[Callable[[dict[str, Any]], None]],
        may_take: Optional[Callable[[Attachment], Union[bool, str]]],
        call_timeout: float,
        rng: random.Random,
    ) -> None:
        self.client = client
        self.clock = clock
        self.wanted = wanted
        self.deadline = deadline
        self.on_event = on_event or (lambda event: None)
        self.may_take = may_take or (lambda attachment: True)
        self.call_timeout = call_timeout
        self.rng = rng
        self.start = clock.now()
        self.facts = Facts()
        self.first: Optional[Interface] = None
        self.last: Optional[Interface] = None
        self.actions: list[Action] = []
        self.errors: dict[str, int] = {}  # per action, in a row
        self.waiting_for = f"the first answer to {DESCRIBE}"
        self.write_at = self.start
        self.read_at = self.start  # when the last read was sent
        self.throttled = False
        self.first_at: Optional[float] = None
        self.detach_began: Optional[float] = None
        self.attach_began: Optional[float] = None

    def run(self, seen: Optional[Interface]) -> Outcome:
        if seen is not None:
            self.first = self.last = seen
            self._learn(seen)
        while True:
            interface = self._read()
            if interface is None:
                continue
            self._learn(interface)
            step = plan(interface, self.wanted, self._now_facts())
            self._event("decision", step=type(step).__name__.lower(), state=str(interface), **_plain(step))
            if isinstance(step, Done):
                return self._outcome(interface)
            if isinstance(step, Refuse):
                spent = f" after waiting for {self.waiting_for}" if step.code == "Timeout" else ""
                raise self._error(step.reason + spent, step.code)
            if isinstance(step, Wait):
                self.waiting_for = f"{interface.interface_id}: {step.why}"
                self._pause(self._poll_delay(), step.until)
            elif isinstance(step, Detach):
                self._detach(interface, step)
            else:
                self._attach(interface, step)

    def _read(self) -> Optional[Interface]:
        """One read; None after an error that another read may cure."""
        self.read_at = self.clock.now()
        try:
            interface = self._call(DESCRIBE, lambda left: self.client.describe(self.wanted.interface_id, left))
        except ApiError as error:
            if not (error.lost or error.busy):
                raise self._error(_refused(DESCRIBE, error), error.code) from error
            self._back_off(DESCRIBE, error)
            return None
        self._note(interface)
        return interface

    def _note(self, interface: Interface) -> None:
        if self.first is None:
            self.first = interface
        if self.first_at is None:
            self.first_at = self.clock.now()
        self.last = interface

    def _detach(self, interface: Interface, step: Detach) -> None:
        held = interface.held
        if held is None or held.attachment_id != step.attachment_id:
            raise AssertionError("a detach names the attachment that was just read")
        answer = self.may_take(held)
        if answer is not True:
            why = answer if isinstance(answer, str) else "the holder must not be detached"
            raise self._error(f"{interface.interface_id} stays with {held.instance_id}: {why}", "HolderAlive")
        if self.detach_began is None:
            self.detach_began = self.clock.now()
        action = Action(DETACH, "", held.instance_id, held.attachment_id, held.device_index, step.force)
        try:
            self._call(DETACH, lambda left: self.client.detach(step.attachment_id, step.force, left))
        except ApiError as error:
            if step.force and error.lost:
                self._note_force(held.attachment_id, lost=True)
            self._failed(action, error)
            return
        self._accepted(action)
        self._begin_grace(held.attachment_id)
        if step.force:
            self._note_force(held.attachment_id, lost=False)

    def _note_force(self, attachment_id: str, lost: bool) -> None:
        fates = {key: at for key, at in self.facts.force_lost.items() if key != attachment_id}
        if lost:
            fates[attachment_id] = self.clock.now()
        self._know(forced=self.facts.forced | {attachment_id}, force_lost=fates)

    def _attach(self, interface: Interface, step: Attach) -> None:
        instance_id = str(self.wanted.instance_id)
        if self.attach_began is None:
            self.attach_began = self.clock.now()
        action = Action(ATTACH, "", instance_id, None, step.device_index)
        try:
            attachment_id = self._call(
                ATTACH,
                lambda left: self.client.attach(interface.interface_id, instance_id, step.device_index, left),
            )
        except ApiError as error:
            self._attach_failed(action, step, error)
            return
        self._accepted(replace(action, attachment_id=attachment_id))
        self._know(attach_accepted_at=self.clock.now(), attach_lost_at=None)

    def _attach_failed(self, action: Action, step: Attach, error: ApiError) -> None:
        now, lost_at = self.clock.now(), self.facts.attach_lost_at
        # An attach of ours whose reply was lost may be what takes the index or fills the instance.
        perhaps_ours = lost_at is not None and now < lost_at + SETTLE
        if error.lost:
            self._know(attach_lost_at=now)
        if error.stale:
            self._know(gone=frozenset())  # the answer that showed it free was the old one
        if error.index_taken and not perhaps_ours:
            self._index_taken(action, step, error)
            return
        full = error.index_taken or error.code == "AttachmentLimitExceeded"
        self._failed(action, error, curable=full and perhaps_ours)

    def _index_taken(self, action: Action, step: Attach, error: ApiError) -> None:
        self._record(action, error.code)
        self._know(taken_indexes=self.facts.taken_indexes | {step.device_index})
        if self.wanted.device_index is not None:
            reason = f"device index {step.device_index} of {self.wanted.instance_id} is taken"
            raise self._error(reason, "IndexTaken") from error

    def _accepted(self, action: Action) -> None:
        self.write_at = self.clock.now()
        self._record(action, "ok")

    def _failed(self, action: Action, error: ApiError, curable: bool = False) -> None:
        """Note a write that failed; the loop reads again before it writes again."""
        self._record(action, error.code)
        if error.lost or error.busy or error.stale or curable:
            self._back_off(action.action, error)
            return
        raise self._error(_refused(action.action, error), error.code) from error

    def _record(self, action: Action, result: str) -> None:
        self.actions.append(replace(action, result=result))

    def _learn(self, interface: Interface) -> None:
        """Keep what this read tells beyond the present state."""
        held = interface.held
        if self.facts.aimed_id is None:
            self._know(aimed_id=held.attachment_id if held else "")
        if held is None:
            self._know(gone=self.facts.gone | set(self.facts.detaching_since), seen_id=None, seen_reads=0)
            return
        if held.instance_id == self.wanted.from_instance_id:
            self._know(saw_from=True)
        if held.status == "detaching" and held.attachment_id not in self.facts.detaching_since:
            self._begin_grace(held.attachment_id)
        in_a_row = self.facts.seen_reads if held.attachment_id == self.facts.seen_id else 0
        self._know(seen_id=held.attachment_id, seen_reads=in_a_row + 1)

    def _begin_grace(self, attachment_id: str) -> None:
        now = self.clock.now()
        self._know(detaching_since={attachment_id: now, **self.facts.detaching_since})
        if self.detach_began is None:
            self.detach_began = now

    def _know(self, **changes: Any) -> None:
        self.facts = replace(self.facts, **changes)

    def _now_facts(self) -> Facts:
        now = self.clock.now()
        return replace(self.facts, now=now, left=self.deadline - now)

    def _call(self, action: str, call: Callable[[float], Any]) -> Any:
        began = self.clock.now()
        left = self.deadline - began
        if left <= 0:
            raise self._timeout()
        try:
            answer = call(min(self.call_timeout, left))
        except ApiError as error:
            self._event(
                "call",
                action=action,
                result=error.code,
                message=error.message,
                request_id=error.request_id,
                seconds=self.clock.now() - began,
            )
            raise
        self._event("call", action=action, result="ok", seconds=self.clock.now() - began)
        self.errors[action] = 0
        return answer

    def _back_off(self, action: str, error: ApiError) -> None:
        times = self.errors[action] = self.errors.get(action, 0) + 1
        self.throttled = self.throttled or error.busy
        self.waiting_for = f"{action} to succeed, which answered {error}"
        if error.stale and times == 1:
            return  # the cure is a read, now
        top = min(BACKOFF_MAX, BACKOFF_MIN * 2 ** min(times, 10))
        self._pause(self.rng.uniform(BACKOFF_MIN, top), None)

    def _poll_delay(self) -> float:
        """Until the next read is due; a read that took longer than its interval is followed at once."""
        now = self.clock.now()
        waited = POLL_MAX / POLL_SHARE if self.throttled else now - self.write_at
        interval = min(POLL_MAX, max(POLL_MIN, waited * POLL_SHARE))
        interval *= self.rng.uniform(1.0, 1.0 + POLL_JITTER)
        return max(0.0, self.read_at + interval - now)

    def _pause(self, seconds: float, until: Optional[float]) -> None:
        now = self.clock.now()
        if until is not None:
            seconds = min(seconds, max(0.0, until - now))
        left = self.deadline - now
        if left <= 0:
            raise self._timeout()
        self.clock.sleep(min(seconds, left))

    def _timeout(self) -> MoveError:
        spent = self.clock.now() - self.start
        return self._error(f"gave up after {spent:.1f} s, waiting for {self.waiting_for}", "Timeout")

    def _error(self, reason: str, code: str) -> MoveError:
        spent = self.clock.now() - self.start
        return MoveError(reason, code, self.last, tuple(self.actions), spent, self._phases())

    def _outcome(self, interface: Interface) -> Outcome:
        spent = self.clock.now() - self.start
        return Outcome(interface, self.first or interface, tuple(self.actions), spent, self._phases())

    def _phases(self) -> dict[str, float]:
        now = self.clock.now()
        phases = {"describe": (now if self.first_at is None else self.first_at) - self.start}
        if self.detach_began is not None:
            phases["detach"] = (now if self.attach_began is None else self.attach_began) - self.detach_began
        if self.attach_began is not None:
            phases["attach"] = now - self.attach_began
        return phases

    def _event(self, kind: str, **values: Any) -> None:
        self.on_event({"event": kind, "at": self.clock.now() - self.start, **values})


def _refused(action: str, error: ApiError) -> str:
    request = f" (request {error.request_id})" if error.request_id else ""
    return f"{action} was refused: {error}{request}"


def _plain(step: Step) -> dict[str, Any]:
    return {key: value for key, value in vars(step).items() if value is not None}
