# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""start and stop of ocf:evernat:eni. What to detach, attach or force is decided by the engine (_eni_move.py) alone.

start: guard against a leak, get the attachment, wait for the link in this kernel, configure, verify. Meanwhile the
replica of the other host's connections is committed to the kernel, so that the link finds them there.
stop: ask EC2 for the detach and serve until the link leaves, each for a bounded time. Then take the ENI out of service
in this kernel, come what may, and give the attachment back, if it was not, as far as EC2 can be reached.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from typing import TYPE_CHECKING, Any, Callable, Protocol

import ec2
import holder
import host
import ocf
import replica
from _eni_move import ApiError, MonotonicClock, MoveError, Wanted, move
from ocf import Call, Deadline, Failure, Lock

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from _eni_move import Attachment, Clock, Interface, Outcome

LOCK = "/run/evernat-eni-{}.lock"
STOP_LOCK_SECONDS = 5.0
STOP_ASK_SECONDS = 2.0  # what a stop waits for EC2's answers while it still serves
STOP_API_SECONDS = 5.0  # a stop is over locally by then; the next holder can detach as well
GIVE_BACK_SHARE, GIVE_BACK_MAX = 0.2, 10.0  # what a start keeps of its time to undo its own attach
LOOK_SECONDS = 3.0
VERIFY_INTERVAL = 0.05
PHASES = ("describe", "detach", "attach", "link", "connections", "configure")


class Client(Protocol):
    """EC2, as `ec2.Ec2` is it."""

    def describe(self, interface_id: str, timeout: float) -> Interface: ...

    def attach(self, interface_id: str, instance_id: str, device_index: int, timeout: float) -> str: ...

    def detach(self, attachment_id: str, force: bool, timeout: float) -> None: ...

    def attached_for(self, attachment_id: str) -> float | None: ...

    def may_attach(self, interface_id: str, instance_id: str, device_index: int, timeout: float) -> None: ...

    def may_detach(self, attachment_id: str, timeout: float) -> None: ...


class Tools:
    """What start and stop work with; tests put their own in its place."""

    def __init__(self, settings: Mapping[str, Any], answers: Callable[[], bool] | None = None) -> None:
        metadata = ec2.Metadata()
        endpoint = settings["endpoint"] or ocf.ec2_endpoint(str(settings["region"]))
        server = ec2.HttpServer(endpoint, "the EC2 endpoint")
        server.open_early(LOOK_SECONDS)  # while the metadata service is asked
        self.client: Client = ec2.Ec2(str(settings["region"]), server, metadata.credentials)
        self.clock: Clock = MonotonicClock()
        self.instance_id: Callable[[float], str] = lambda timeout: (
            settings["instance_id"] or ec2.find_instance_id(metadata, timeout)
        )
        self.answers = answers or (lambda: holder.answers(settings["mac_address"], settings["private_ip"]))
        self.is_alone: Callable[[float], bool] = is_alone_in_partition
        self.commit: Callable[[], replica.Commit] = replica.Commit
        self.ask_conntrackd: Callable[[Sequence[str]], None] = replica.run_in_background


def start(call: Call, tools: Tools | None = None, answers: Callable[[], bool] | None = None) -> int:
    """Bring the ENI here and into service. Returns 0, or raises Failure with code 1.

    answers: tells whether another host answers on the ENI's address.
    """
    with Lock(LOCK.format(call.settings["interface_id"]), call.deadline.part(call.deadline.left() / 2)) as locked:
        if not locked:
            call.log("warning", action="start", reason="no lock: another start or stop may be under way")
        try:
            return _Start(call, tools or Tools(call.settings, answers)).run()
        except host.HostError as error:
            raise Failure(str(error)) from error


def stop(call: Call, tools: Tools | None = None) -> int:
    """Detach the ENI, if this host holds it, and take it out of service here. 0 once it is out of service locally."""
    with Lock(LOCK.format(call.settings["interface_id"]), call.deadline.part(STOP_LOCK_SECONDS)) as locked:
        if not locked:
            call.log("warning", action="stop", reason="no lock: another start or stop may be under way")
        leave = _Leave(call, tools)
        leave.while_serving()
        _stop_locally(call)
        leave.afterwards()
        call.log("notice", action="stop", rc=0, eni=call.settings["interface_id"], seconds=call.deadline.spent())
    return ocf.OCF_SUCCESS


def validate(call: Call, tools: Tools | None = None) -> int:
    """Level 10: is this host prepared, and may its role attach and detach? Changes nothing (DryRun)."""
    tools = tools or Tools(call.settings)
    interface_id = call.settings["interface_id"]
    try:
        missing = host.missing_for_start(host.Wanted(call.settings))
        if missing:
            raise Failure("; ".join(missing))
        instance_id = tools.instance_id(call.deadline.left())
        interface = tools.client.describe(interface_id, call.deadline.left())
        _check_interface(interface, call.settings)
        _permitted(
            lambda: tools.client.may_attach(
                interface_id, instance_id, call.settings["device_index"], call.deadline.left()
            )
        )
        held = interface.held
        if held is not None:
            _permitted(lambda: tools.client.may_detach(held.attachment_id, call.deadline.left()))
    except (ApiError, host.HostError) as error:
        raise Failure(str(error)) from error
    return ocf.OCF_SUCCESS


class HolderGuard:
    """Asked by the engine before each detach: may this attachment be ended?

    Never while its holder answers on the ENI's address. Nor while the attachment is younger than the hold-down: a host
    that is just bringing the ENI into service does not answer yet.
    """

    def __init__(
        self,
        own_id: str,
        holddown: float,
        answers: Callable[[], bool],
        attached_for: Callable[[str], float | None],
        is_dead: bool,
        clock: Clock,
        deadline: float,
    ) -> None:
        self._own_id = own_id
        self._holddown = holddown
        self._answers = answers
        self._attached_for = attached_for
        self._is_dead = is_dead
        self._clock = clock
        self._deadline = deadline
        self._approved: set[str] = set()

    def __call__(self, attachment: Attachment) -> bool | str:
        known = attachment.attachment_id in self._approved or attachment.instance_id == self._own_id
        if not known and not self._is_dead:
            while True:
                if self._answers():
                    return "it answers on the interface's address"
                age = self._attached_for(attachment.attachment_id)
                left = 0.0 if age is None else self._holddown - age
                if left <= 0:
                    break
                if self._clock.now() + left > self._deadline:
                    return f"it was attached less than {self._holddown:.0f} s ago"
                self._clock.sleep(min(left, 1.0))
        self._approved.add(attachment.attachment_id)
        return True


class _Start:
    def __init__(self, call: Call, tools: Tools) -> None:
        self.call = call
        self.settings = call.settings
        self.tools = tools
        self.wanted = host.Wanted(call.settings)
        self.began = tools.clock.now()
        left = call.deadline.left()
        self.give_back_seconds = min(GIVE_BACK_MAX, left * GIVE_BACK_SHARE)
        self.until = call.deadline.part(left - self.give_back_seconds)
        self.instance_id: str | None = None
        self.outcome: Outcome | None = None
        self.commit: replica.Commit | None = None
        self.phases: dict[str, float] = {}
        self.last_error = ""

    def run(self) -> int:
        view = host.look(self.wanted)
        if view.link is not None and not host.faults(view, self.wanted):
            self.call.log("info", action="start", rc=0, eni=self.settings["interface_id"], already="running")
            return ocf.OCF_SUCCESS
        missing = host.missing_for_start(self.wanted)
        if missing:
            raise Failure(f"this host cannot forward: {'; '.join(missing)}")
        host.prepare(self.wanted)
        if self.settings["replication"]:
            self.commit = self.tools.commit()
        if view.link is None or not self._attachment_is_ours():
            self._move_here()
        self._wait_for_link()
        self._wait_for_connections()
        self._configure()
        self._log_success()
        self._tidy_up_replica()
        return ocf.OCF_SUCCESS

    def _attachment_is_ours(self) -> bool:
        """The link is here already. Is it here to stay? Local truth counts where EC2 cannot be asked."""
        try:
            own_id = self._own_id(LOOK_SECONDS)
            held = self.tools.client.describe(self.settings["interface_id"], LOOK_SECONDS).held
        except (ApiError, Failure) as error:
            self.call.log("warning", action="start", reason=f"the link is here, but EC2 could not be asked: {error}")
            return True
        return held is not None and held.instance_id == own_id and held.status != "detaching"

    def _move_here(self) -> None:
        own_id = self._own_id(self.until.left())
        fenced = bool(self.settings["fencing"]) and self.tools.is_alone(self.until.left())
        wanted = Wanted(
            interface_id=self.settings["interface_id"],
            instance_id=own_id,
            used_indexes=frozenset(range(1, self.settings["device_index"])),
            force="always" if fenced else "on_timeout",
            detach_grace=float(self.settings["detach_grace"]),
            wait=False,  # the link in this kernel is what counts, not the API's `attached`
        )
        end = self.tools.clock.now() + self.until.left()
        guard = HolderGuard(
            own_id,
            float(self.settings["holddown"]),
            self.tools.answers,
            self.tools.client.attached_for,
            fenced,
            self.tools.clock,
            end,
        )
        try:
            self.outcome = move(self.tools.client, self.tools.clock, wanted, end, self._log_event, guard)
        except MoveError as error:
            raise Failure(self._explain(error)) from error
        self.phases.update(self.outcome.phases)

    def _own_id(self, timeout: float) -> str:
        """This host's instance id, asked for until the time is up. Raises Failure."""
        end = self.tools.clock.now() + timeout
        while self.instance_id is None:
            left = end - self.tools.clock.now()
            try:
                self.instance_id = self.tools.instance_id(min(LOOK_SECONDS, max(left, 0.1)))
            except ApiError as error:
                if end - self.tools.clock.now() <= 1.0:
                    raise Failure(f"this host's instance id could not be found out: {error}") from error
                self.tools.clock.sleep(0.5)
        return self.instance_id

    def _wait_for_link(self) -> None:
        began = self.tools.clock.now()
        link = host.wait_for_link(str(self.wanted.mac), self.until)
        self.phases["link"] = waited = self.tools.clock.now() - began
        if link is None:
            given_back = self._give_back()
            raise Failure(
                f"{self.settings['interface_id']} is attached, but no link with the MAC {self.wanted.mac} came within"
                f" {waited:.1f} s; {given_back}"
            )

    def _wait_for_connections(self) -> None:
        """A packet that came before its connection is there would begin another one, from another port."""
        if self.commit is None:
            return
        began = self.tools.clock.now()
        self.commit.join(self.until.part(self.until.left() / 2))
        self.phases["connections"] = self.tools.clock.now() - began
        if self.commit.error:
            self.call.log("warning", action="start", commit="failed", reason=self.commit.error)

    def _tidy_up_replica(self) -> None:
        if self.commit is None:
            return
        try:
            self.tools.ask_conntrackd(self.commit.afterwards())
        except replica.ReplicaError as error:
            self.call.log("warning", action="start", reason=str(error))

    def _give_back(self) -> str:
        """End our own attachment: the ENI is no use here, and must not be kept from others."""
        try:
            interface_id = self.settings["interface_id"]
            give_back(self.tools, interface_id, str(self.instance_id), self.call.deadline, self._log_event)
        except (MoveError, ApiError) as error:
            return f"it could not be detached again: {error}"
        return "it was detached again"

    def _configure(self) -> None:
        """Configure and verify, again if a tool or a renamed link came between. Never leaves half of it up."""
        began = self.tools.clock.now()
        try:
            while True:
                host.configure(self.wanted)
                found = host.faults(host.look(self.wanted), self.wanted)
                if not found:
                    break
                if self.call.deadline.left() <= VERIFY_INTERVAL:
                    raise Failure("; ".join(found))
                time.sleep(VERIFY_INTERVAL)
        except BaseException:
            host.tear_down(self.wanted)
            raise
        self.phases["configure"] = self.tools.clock.now() - began

    def _log_success(self) -> None:
        outcome = self.outcome
        self.call.log(
            "notice",
            action="start",
            rc=0,
            eni=self.settings["interface_id"],
            instance=self.instance_id,
            previous=outcome and outcome.previous_instance_id,
            attachment=outcome and outcome.interface.held and outcome.interface.held.attachment_id,
            forced=str(bool(outcome and outcome.forced)).lower(),
            **{phase: self.phases.get(phase, 0.0) for phase in PHASES},
            flows=self.commit and self.commit.flows,
            commit=self.commit and self.commit.seconds,
            whole=self.commit and str(self.commit.whole).lower(),
            seconds=self.tools.clock.now() - self.began,
        )

    def _log_event(self, event: dict[str, Any]) -> None:
        if event["event"] == "call" and event["result"] != "ok":
            self.last_error = f"{event['action']} answered {event['result']}"
        log_event(self.call, event)

    def _explain(self, error: MoveError) -> str:
        """The reason, with the API's last error where the engine's own words leave it out."""
        if not self.last_error or self.last_error.split()[-1] in error.reason:
            return str(error)
        return f"{self.last_error}; {error}"


def log_event(call: Call, event: Mapping[str, Any]) -> None:
    """Writes are always logged, all else for debugging."""
    is_write = event["event"] == "decision" and event["step"] in ("detach", "attach")
    fields = {_field(key): value for key, value in event.items()}
    call.log("notice" if is_write else "debug", action=call.action, **fields)


def _field(key: str) -> str:
    return "call" if key == "action" else key


def give_back(
    tools: Tools,
    interface_id: str,
    own_id: str,
    deadline: Deadline,
    on_event: Callable[[dict[str, Any]], None],
) -> None:
    """Detach the ENI if this instance holds it, never by Force; does not wait for the end. Raises MoveError."""
    wanted = Wanted(interface_id, None, from_instance_id=own_id, force="never", wait=False)
    move(tools.client, tools.clock, wanted, tools.clock.now() + deadline.left(), on_event)


def _stop_locally(call: Call) -> None:
    wanted = host.Wanted(call.settings)
    if wanted.mac is None and wanted.ip is None:
        return  # nothing that could be found was ever started with such parameters
    try:
        host.tear_down(wanted)
        with host.Netlink() as kernel:
            link = host.find_link(wanted.mac, kernel.links())
            kept = [address for address in kernel.addresses() if address.ip == wanted.ip]
    except (host.HostError, OSError) as error:
        raise Failure(str(error)) from error
    if (link is not None and link.up) or kept:
        raise Failure(f"{wanted.ip} or its link is still up, although it was taken down")


class _Leave:
    """A stop's part at EC2. Its errors are logged: out of service here is what counts, the next holder can detach."""

    def __init__(self, call: Call, tools: Tools | None) -> None:
        self.call = call
        self.tools = tools
        self.is_asked = False  # EC2 has taken the detach, or has none to do

    def while_serving(self) -> None:
        """Ask for the detach, and wait until the link leaves: AWS takes seconds for it, the clients are served."""
        with contextlib.suppress(Exception):  # asked again afterwards, with more patience
            tools = self._tools()
            if tools is not None:
                self._detach(tools, self.call.deadline.part(STOP_ASK_SECONDS))
        if self.is_asked:
            host.wait_until_gone(
                self.call.settings["mac_address"], self.call.deadline.part(float(self.call.settings["detach_grace"]))
            )

    def afterwards(self) -> None:
        """The same for an ENI that is out of service here, unless it is done."""
        try:
            tools = self._tools()
            if tools is not None and not self.is_asked:
                self._detach(tools, self.call.deadline.part(STOP_API_SECONDS))
        except Exception as error:
            self.call.log("warning", action="stop", detach="failed", reason=f"{type(error).__name__}: {error}")

    def _detach(self, tools: Tools, deadline: Deadline) -> None:
        own_id = tools.instance_id(min(LOOK_SECONDS, deadline.left()))
        interface_id = self.call.settings["interface_id"]
        give_back(tools, interface_id, own_id, deadline, lambda event: log_event(self.call, event))
        self.is_asked = True

    def _tools(self) -> Tools | None:
        """None where the parameters do not say which interface of which region."""
        settings = self.call.settings
        if settings["interface_id"] is None or settings["region"] is None:
            return None
        self.tools = self.tools or Tools(settings)
        return self.tools


def _permitted(dry_run: Callable[[], None]) -> None:
    try:
        dry_run()
    except ApiError as error:
        if not (error.stale or error.index_taken):  # refused for what is, not for who asks
            raise


def _check_interface(interface: Interface, settings: Mapping[str, Any]) -> None:
    for name, seen in (("mac_address", interface.mac_address), ("private_ip", interface.private_ip)):
        if seen and seen != settings[name]:
            raise Failure(f"parameter {name} is {settings[name]}, but {interface.interface_id} has {seen}")
    if interface.source_dest_check:
        raise Failure(f"the source/destination check of {interface.interface_id} is on: EC2 drops what it forwards")
    if interface.held is not None and interface.held.delete_on_termination:
        raise Failure(f"{interface.interface_id} would be deleted with the instance that holds it")


def is_alone_in_partition(timeout: float) -> bool:
    """Whether this host is the only member of its cluster partition; False if that cannot be told."""
    try:
        done = subprocess.run(
            ["crm_node", "-p"],
            capture_output=True,
            text=True,
            timeout=min(timeout, 5.0),
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and len(done.stdout.split()) == 1
