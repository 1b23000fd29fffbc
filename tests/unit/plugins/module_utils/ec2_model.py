# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A small EC2 with one interface, on a virtual clock: what the engine's tests run against.

It answers as EC2 does (one attachment, attach refused while in use, detach by attachment id, states that take time),
and can be slow, deny, lose replies before or after the effect, and answer with old reads.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import threading
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Optional, Protocol

from ansible_collections.evernat.aws.plugins.module_utils._eni_move import (
    ATTACH,
    DESCRIBE,
    DETACH,
    ApiError,
    Attachment,
    Interface,
)

ENI = "eni-1"
FULL = "AttachmentLimitExceeded"


class VirtualClock:
    """Time for one mover: sleeping moves it on."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.time += seconds


class Timeline:
    """One virtual time for several movers in threads of their own; one runs at a time, the earliest sleeper next."""

    def __init__(self) -> None:
        self.time = 1000.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, threading.Semaphore]] = []
        self._scheduler = threading.Semaphore(0)
        self._failures: list[BaseException] = []

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        wake = threading.Semaphore(0)
        heapq.heappush(self._sleepers, (self.time + seconds, next(self._order), wake))
        self._scheduler.release()
        wake.acquire()

    def run(self, *movers: Callable[[], None]) -> None:
        """Run the movers side by side to their ends; raises what any of them raised."""
        threads = [threading.Thread(target=self._mover, args=(mover,), daemon=True) for mover in movers]
        for thread in threads:
            thread.start()
            self._scheduler.acquire()  # it sleeps or is over
        while self._sleepers:
            self.time, _turn, wake = heapq.heappop(self._sleepers)
            wake.release()
            self._scheduler.acquire()
        for thread in threads:
            thread.join()
        if self._failures:
            raise self._failures[0]

    def _mover(self, mover: Callable[[], None]) -> None:
        try:
            mover()
        except BaseException as error:
            self._failures.append(error)
        finally:
            self._scheduler.release()


class HasTime(Protocol):
    def now(self) -> float: ...

    def sleep(self, seconds: float) -> None: ...


@dataclass(frozen=True)
class Call:
    """A call as its caller lived it: `arrived` says whether EC2 ever acted on it, `read` is a describe's answer."""

    caller: str
    action: str
    sent: float
    ended: float
    result: str
    arguments: dict[str, Any] = field(default_factory=dict)
    read: Optional[Interface] = None


@dataclass(frozen=True)
class Fate:
    """What happens to one call: seconds to EC2 and back, an error instead of the call, a lost reply, an old read."""

    out: float = 0.05
    back: float = 0.05
    error: Optional[ApiError] = None
    lost: bool = False
    dropped: bool = False
    age: float = 0.0


class Model:
    """The interface, its history and its calls. `fate(caller, action)` is asked for each call."""

    def __init__(
        self,
        holder: Optional[str] = "i-a",
        attach_delay: float = 2.0,
        detach_delay: float = 2.5,
        force_delay: float = 0.5,
        stuck: bool = False,
        fate: Callable[[str, str], Fate] = lambda caller, action: Fate(),
        taken_indexes: tuple[int, ...] = (0,),
        full: bool = False,
    ) -> None:
        self.attach_delay, self.detach_delay, self.force_delay = attach_delay, detach_delay, force_delay
        self.stuck = stuck
        self.fate = fate
        self.taken_indexes = taken_indexes
        self.full = full
        self.calls: list[Call] = []
        self.ids = itertools.count(1)
        self.pending: list[tuple[float, int, Callable[[], None]]] = []
        self.order = itertools.count()
        self.interface = Interface(ENI, "available", availability_zone="eu-west-1a")
        if holder is not None:
            self._hold(holder, 1, "attached")
        self.history: list[tuple[float, Interface]] = [(float("-inf"), self.interface)]

    def _hold(self, instance_id: str, index: int, status: str) -> str:
        attachment = Attachment(f"eni-attach-{next(self.ids)}", instance_id, index, status)
        self.interface = replace(self.interface, status="in-use", attachment=attachment)
        return attachment.attachment_id

    def set(self, at: float, **changes: Any) -> None:
        self.interface = replace(self.interface, **changes)
        self.history.append((at, self.interface))

    def later(self, at: float, effect: Callable[[], None]) -> None:
        heapq.heappush(self.pending, (at, next(self.order), effect))

    def advance(self, now: float) -> None:
        while self.pending and self.pending[0][0] <= now:
            heapq.heappop(self.pending)[2]()

    def read(self, now: float, age: float) -> Interface:
        return next(interface for at, interface in reversed(self.history) if at <= now - age)

    def attach(self, now: float, instance_id: str, index: int) -> str:
        if self.interface.status != "available":
            raise ApiError("InvalidNetworkInterface.InUse", f"Interface: [{ENI}] in use.")
        if index in self.taken_indexes:
            message = f"Instance '{instance_id}' already has an interface attached at device index '{index}'."
            raise ApiError("InvalidParameterValue", message)
        if self.full:
            raise ApiError(FULL, "too many interfaces")
        made = self._hold(instance_id, index, "attaching")
        self.history.append((now, self.interface))
        self.later(now + self.attach_delay, lambda: self._attached(made, now + self.attach_delay))
        return made

    def _attached(self, attachment_id: str, at: float) -> None:
        held = self.interface.attachment
        if held and held.attachment_id == attachment_id and held.status == "attaching":
            self.set(at, attachment=replace(held, status="attached"))

    def detach(self, now: float, attachment_id: str, force: bool) -> None:
        held = self.interface.attachment
        if held is None or held.attachment_id != attachment_id:
            raise ApiError("InvalidAttachmentID.NotFound", f"The attachment '{attachment_id}' does not exist")
        self.set(now, status="detaching", attachment=replace(held, status="detaching"))
        if force or not self.stuck:
            at = now + (self.force_delay if force else self.detach_delay)
            self.later(at, lambda: self._detached(attachment_id, at))

    def _detached(self, attachment_id: str, at: float) -> None:
        if self.interface.attachment and self.interface.attachment.attachment_id == attachment_id:
            self.set(at, status="available", attachment=None)

    def client(self, clock: HasTime, caller: str = "mover") -> ModelClient:
        return ModelClient(self, clock, caller)

    def actions(self, caller: Optional[str] = None) -> list[str]:
        return [call.action for call in self.calls if caller in (None, call.caller)]

    def writes(self, caller: Optional[str] = None) -> list[Call]:
        return [call for call in self.calls if call.action != DESCRIBE and caller in (None, call.caller)]


class ModelClient:
    def __init__(self, model: Model, clock: HasTime, caller: str) -> None:
        self.model, self.clock, self.caller = model, clock, caller

    def describe(self, interface_id: str, timeout: float) -> Interface:
        assert interface_id == ENI
        answer: Interface = self._call(DESCRIBE, timeout, {}, self.model.read)
        return answer

    def attach(self, interface_id: str, instance_id: str, device_index: int, timeout: float) -> str:
        assert interface_id == ENI
        arguments = {"instance_id": instance_id, "device_index": device_index}
        made: str = self._call(
            ATTACH, timeout, arguments, lambda now, age: self.model.attach(now, instance_id, device_index)
        )
        return made

    def detach(self, attachment_id: str, force: bool, timeout: float) -> None:
        arguments = {"attachment_id": attachment_id, "force": force}
        self._call(DETACH, timeout, arguments, lambda now, age: self.model.detach(now, attachment_id, force))

    def _call(self, action: str, timeout: float, arguments: dict[str, Any], act: Callable[[float, float], Any]) -> Any:
        assert timeout > 0
        sent = self.clock.now()
        try:
            answer = self._carry_out(action, timeout, act, sent)
        except ApiError as error:
            self._log(action, sent, error.code, arguments, None)
            raise
        self._log(action, sent, "ok", arguments, answer if action == DESCRIBE else None)
        return answer

    def _log(self, action: str, sent: float, result: str, arguments: dict[str, Any], read: Optional[Interface]) -> None:
        self.model.calls.append(Call(self.caller, action, sent, self.clock.now(), result, arguments, read))

    def _carry_out(self, action: str, timeout: float, act: Callable[[float, float], Any], sent: float) -> Any:
        fate = self.model.fate(self.caller, action)
        if fate.dropped:
            self._time_out(timeout)
        if fate.out >= timeout:  # it arrives after its caller gave up
            self.model.later(sent + fate.out, lambda: _quietly(act, sent + fate.out, fate.age))
            self._time_out(timeout)
        self.clock.sleep(fate.out)
        now = self.clock.now()
        self.model.advance(now)
        try:
            if fate.error is not None:
                raise fate.error
            answer = act(now, fate.age)
        except ApiError:
            self._reply(fate, timeout)
            raise
        self._reply(fate, timeout)
        return answer

    def _reply(self, fate: Fate, timeout: float) -> None:
        if fate.lost or fate.out + fate.back > timeout:
            self._time_out(timeout - fate.out)
        self.clock.sleep(fate.back)

    def _time_out(self, seconds: float) -> None:
        self.clock.sleep(seconds)
        raise ApiError("Timeout", "no answer in time")


def _quietly(act: Callable[[float, float], Any], at: float, age: float) -> None:
    with contextlib.suppress(ApiError):  # nobody is left to hear it
        act(at, age)
