# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The actions of ocf:evernat:eni: every branch, with a host, a client and a clock of the tests' own."""

from __future__ import annotations

import dataclasses
from typing import Any, Callable

import eni
import holder
import host
import ocf
import pytest
import takeover
from _eni_move import ApiError, Attachment, Interface
from ansible_collections.evernat.aws.tests.unit.agent.conftest import Recorder

ENI = "eni-0123456789abcdef0"
MAC = "02:00:00:00:00:01"
ME, PEER = "i-0aaaaaaaaaaaaaaaa", "i-0bbbbbbbbbbbbbbbb"
API_ERRORS = [
    "UnauthorizedOperation",
    "AuthFailure",
    "RequestLimitExceeded",
    "InternalError",
    "Unavailable",
    "Timeout",
    "ConnectionError",
    "BadAnswer",
    "NoCredentials",
    "InvalidNetworkInterfaceID.NotFound",
    "OperationNotPermitted",
]


class FakeClock:
    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += max(seconds, 0.001)


class FakeHost:
    """The kernel of this host, in the place of `host`'s functions."""

    def __init__(self) -> None:
        self.link: object = None
        self.configured = False
        self.missing: list[str] = []
        self.found: list[str] = []  # faults that remain after configuring
        self.lesser: list[str] = []
        self.unreadable = False
        self.steps: list[str] = []

    def look(self, wanted: host.Wanted) -> Any:
        if self.unreadable:
            raise host.HostError("the kernel's state could not be read: Cannot allocate memory")
        return self

    def is_stopped(self, view: Any, wanted: host.Wanted) -> bool:
        return not self.link or not self.configured

    def faults(self, view: Any, wanted: host.Wanted) -> list[str]:
        return self.found if self.configured else ["link ens6 is down"]

    def missing_for_start(self, wanted: host.Wanted) -> list[str]:
        return self.missing

    def warnings(self, view: Any, wanted: host.Wanted) -> list[str]:
        return self.lesser

    def prepare(self, wanted: host.Wanted) -> None:
        self.steps.append("prepare")

    def configure(self, wanted: host.Wanted) -> None:
        self.steps.append("configure")
        self.configured = True

    def tear_down(self, wanted: host.Wanted) -> bool:
        if self.unreadable:
            raise host.HostError("the link could not be taken down: Operation not permitted")
        self.steps.append("tear_down")
        self.configured = False
        return True

    def wait_for_link(self, mac: str, deadline: ocf.Deadline) -> object:
        self.steps.append("wait_for_link")
        return self if self.link else None

    def wait_until_gone(self, mac: str | None, deadline: ocf.Deadline) -> bool:
        self.steps.append("wait_until_gone")
        return True

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        names = "look is_stopped faults missing_for_start warnings prepare configure tear_down"
        for name in [*names.split(), "wait_for_link", "wait_until_gone"]:
            monkeypatch.setattr(host, name, getattr(self, name))
        monkeypatch.setattr(takeover, "_stop_locally", self.stop_locally)

    def stop_locally(self, call: ocf.Call) -> None:
        self.tear_down(host.Wanted(call.settings))


class FakeEc2:
    """One interface. `errors` maps an action to the errors of its next calls; a detach needs `polite` reads to end."""

    def __init__(self, machine: FakeHost, holder: str | None) -> None:
        self.machine = machine
        self.errors: dict[str, list[str]] = {}
        self.calls: list[str] = []
        self.age = 3600.0
        self.stuck = False
        self.plugs = True
        self.check = False
        self.interface = Interface(ENI, "available", mac_address=MAC, private_ip="10.0.1.100")
        if holder:
            self._hold(holder)

    def _hold(self, instance_id: str, status: str = "attached") -> None:
        attachment = Attachment(f"eni-attach-{instance_id}", instance_id, 1, status)
        self.interface = dataclasses.replace(self.interface, status="in-use", attachment=attachment)

    def _called(self, name: str) -> None:
        self.calls.append(name)
        errors = self.errors.get(name.split()[0], [])
        if errors:
            raise ApiError(errors.pop(0), "says the test")

    def describe(self, interface_id: str, timeout: float) -> Interface:
        self._called("describe")
        seen = self.interface
        if seen.attachment and seen.attachment.status == "detaching" and not self.stuck:
            self.interface = dataclasses.replace(seen, status="available", attachment=None)
        return dataclasses.replace(seen, source_dest_check=self.check)

    def attach(self, interface_id: str, instance_id: str, device_index: int, timeout: float) -> str:
        self._called(f"attach {instance_id} {device_index}")
        self._hold(instance_id, "attaching")
        self.machine.link = ENI if self.plugs and instance_id == ME else None
        return f"eni-attach-{instance_id}"

    def detach(self, attachment_id: str, force: bool, timeout: float) -> None:
        self._called("detach force" if force else "detach")
        held = self.interface.attachment
        assert held is not None
        assert held.attachment_id == attachment_id
        if held.instance_id == ME:
            self.machine.link = None
        if force:
            self.interface = dataclasses.replace(self.interface, status="available", attachment=None)
        else:
            self.interface = dataclasses.replace(
                self.interface, attachment=dataclasses.replace(held, status="detaching")
            )

    def attached_for(self, attachment_id: str) -> float | None:
        return self.age

    def may_attach(self, interface_id: str, instance_id: str, device_index: int, timeout: float) -> None:
        self._called("may_attach")

    def may_detach(self, attachment_id: str, timeout: float) -> None:
        self._called("may_detach")


class FakeCommit:
    """The replica's commit; notes in the host's steps when it was begun and waited for."""

    def __init__(self, machine: FakeHost, error: str) -> None:
        machine.steps.append("commit")
        self._machine = machine
        self.flows = 20480
        self.seconds = None if error else 0.19
        self.whole = True
        self.error = error

    def join(self, deadline: ocf.Deadline) -> None:
        self._machine.steps.append("joined")

    def afterwards(self) -> list[str]:
        return ["-f external"]


class Bench:
    """All of it together."""

    def __init__(self, settings: dict[str, Any], log: Recorder, holder: str | None) -> None:
        self.host = FakeHost()
        self.ec2 = FakeEc2(self.host, holder)
        self.clock = FakeClock()
        self.log = log
        self.settings = settings
        self.probes: list[bool] = []
        self.alone = False
        self.id_errors: list[str] = []
        self.tools = takeover.Tools.__new__(takeover.Tools)
        self.tools.client = self.ec2
        self.tools.clock = self.clock
        self.tools.instance_id = self._instance_id
        self.tools.answers = lambda: self.probes.pop(0) if self.probes else False
        self.tools.is_alone = lambda timeout: self.alone
        self.commit_error = ""
        self.tools.commit = lambda: FakeCommit(self.host, self.commit_error)  # type: ignore[assignment,return-value]
        self.tools.ask_conntrackd = self.host.steps.extend

    def _instance_id(self, timeout: float) -> str:
        if self.id_errors:
            raise ApiError(self.id_errors.pop(0), "no metadata service")
        return ME

    def call(self, action: str, seconds: float = 60.0, **environ: str) -> ocf.Call:
        return ocf.Call(action, environ, self.settings, ocf.Deadline(seconds, self.clock.now), self.log)  # type: ignore[arg-type]

    def start(self, seconds: float = 60.0) -> int:
        return takeover.start(self.call("start", seconds), self.tools)

    def stop(self, seconds: float = 60.0) -> int:
        return takeover.stop(self.call("stop", seconds), self.tools)

    def writes(self) -> list[str]:
        return [call for call in self.ec2.calls if call != "describe"]


@pytest.fixture
def bench(
    settings: dict[str, Any], log: Recorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> Callable[..., Bench]:
    monkeypatch.setattr(takeover, "LOCK", str(tmp_path / "{}.lock"))
    monkeypatch.setattr(takeover.time, "sleep", lambda seconds: None)

    def make(holder: str | None = None, **changes: Any) -> Bench:
        made = Bench({**settings, **changes}, log, holder)
        made.host.install(monkeypatch)
        return made

    return make


# monitor


@pytest.mark.parametrize("meta", [{}, {"OCF_RESKEY_CRM_meta_interval": "0"}, {"OCF_RESKEY_CRM_meta_interval": "5000"}])
def test_monitor_tells_absent_healthy_broken_and_degraded(
    bench: Callable[..., Bench], meta: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    made = bench()
    call = made.call("monitor", **meta)
    assert eni.monitor(call) == ocf.OCF_NOT_RUNNING
    made.host.link, made.host.configured = ENI, True
    assert eni.monitor(call) == ocf.OCF_SUCCESS
    made.host.found = ["no SNAT rule to 10.0.1.100", "link ens6 is down"]
    with pytest.raises(ocf.Failure, match=r"no SNAT rule to 10.0.1.100; link ens6 is down") as caught:
        eni.monitor(call)
    assert caught.value.code == ocf.OCF_ERR_GENERIC
    made.host.found, made.host.lesser = [], ["no blackhole"]
    assert eni.monitor(call) == ocf.OCF_DEGRADED
    assert capsys.readouterr().err == "ocf-exit-reason:no blackhole\n"
    made.host.unreadable = True
    with pytest.raises(ocf.Failure, match="could not be read") as caught:
        eni.monitor(call)
    assert caught.value.code == ocf.OCF_ERR_GENERIC
    assert made.ec2.calls == []


def test_a_probe_is_quiet(bench: Callable[..., Bench], capsys: pytest.CaptureFixture[str]) -> None:
    made = bench()
    assert eni.monitor(made.call("monitor", OCF_RESKEY_CRM_meta_interval="0")) == ocf.OCF_NOT_RUNNING
    assert made.log.lines == []
    assert capsys.readouterr().err == ""
    assert eni.monitor(made.call("monitor", OCF_RESKEY_CRM_meta_interval="5000")) == ocf.OCF_NOT_RUNNING
    assert made.log.last()["rc"] == ocf.OCF_NOT_RUNNING


# start


def test_start_of_a_free_interface(bench: Callable[..., Bench]) -> None:
    made = bench()
    assert made.start() == ocf.OCF_SUCCESS
    assert made.writes() == [f"attach {ME} 1"]
    assert made.host.steps == ["prepare", "wait_for_link", "configure"]
    line = made.log.last()
    assert (line["action"], line["rc"], line["previous"], line["forced"]) == ("start", 0, None, "false")
    assert {"describe", "detach", "attach", "link", "configure"} <= set(line)


def test_connections_are_there_before_the_link_comes_up(bench: Callable[..., Bench]) -> None:
    made = bench(PEER, replication=True)
    assert made.start() == ocf.OCF_SUCCESS
    assert made.host.steps == ["prepare", "commit", "wait_for_link", "joined", "configure", "-f external"]
    line = made.log.last()
    assert (line["flows"], line["commit"], line["whole"]) == (20480, 0.19, "true")


def test_a_commit_that_fails_does_not_fail_the_start(bench: Callable[..., Bench]) -> None:
    made = bench(PEER, replication=True)
    made.commit_error = "conntrackd: No such file or directory"
    assert made.start() == ocf.OCF_SUCCESS
    assert made.host.configured
    assert ("warning", {"action": "start", "commit": "failed", "reason": made.commit_error}) in made.log.lines
    assert (made.log.last()["rc"], made.log.last()["commit"]) == (0, None)


def test_start_takes_it_from_a_silent_holder(bench: Callable[..., Bench]) -> None:
    made = bench(PEER)
    assert made.start() == ocf.OCF_SUCCESS
    assert made.writes() == ["detach", f"attach {ME} 1"]
    assert made.log.last()["previous"] == PEER


def test_start_is_done_if_it_runs_already(bench: Callable[..., Bench]) -> None:
    made = bench(ME)
    made.host.link, made.host.configured = ENI, True
    assert made.start() == ocf.OCF_SUCCESS
    assert made.ec2.calls == []
    assert made.host.steps == []


def test_start_never_takes_it_from_a_holder_that_answers(bench: Callable[..., Bench]) -> None:
    made = bench(PEER)
    made.probes = [True]
    with pytest.raises(ocf.Failure, match=f"stays with {PEER}: it answers") as caught:
        made.start()
    assert caught.value.code == ocf.OCF_ERR_GENERIC
    assert made.writes() == []


def test_start_forces_a_detach_once_after_the_grace(bench: Callable[..., Bench]) -> None:
    made = bench(PEER, detach_grace=5)
    made.ec2.stuck = True
    assert made.start() == ocf.OCF_SUCCESS
    assert made.writes() == ["detach", "detach force", f"attach {ME} 1"]
    assert made.log.last()["forced"] == "true"


def test_an_answer_after_the_polite_detach_does_not_leave_it_in_between(bench: Callable[..., Bench]) -> None:
    made = bench(PEER)
    made.ec2.stuck = True
    made.probes = [False, True, True]
    assert made.start() == ocf.OCF_SUCCESS
    assert "detach force" in made.writes()


@pytest.mark.parametrize(
    ("fencing", "alone", "first"), [(True, True, "detach force"), (True, False, "detach"), (False, True, "detach")]
)
def test_a_fenced_holder_is_not_waited_for(bench: Callable[..., Bench], fencing: bool, alone: bool, first: str) -> None:
    made = bench(PEER, fencing=fencing)
    made.alone = alone
    assert made.start() == ocf.OCF_SUCCESS
    assert made.writes()[0] == first


def test_start_waits_for_the_end_of_the_holddown(bench: Callable[..., Bench]) -> None:
    made = bench(PEER, holddown=10)
    began = made.clock.now()
    made.ec2.attached_for = lambda attachment_id: made.clock.now() - began + 4.0  # type: ignore[method-assign]
    assert made.start() == ocf.OCF_SUCCESS
    assert made.clock.now() - began >= 6.0


def test_a_holder_that_comes_to_life_during_the_holddown_keeps_it(bench: Callable[..., Bench]) -> None:
    made = bench(PEER, holddown=10)
    made.ec2.age = 1.0
    made.probes = [False, False, True]
    with pytest.raises(ocf.Failure, match="it answers"):
        made.start()
    assert made.writes() == []


def test_an_attachment_of_unknown_age_is_no_fresh_one(bench: Callable[..., Bench]) -> None:
    made = bench(PEER, holddown=300)
    made.ec2.attached_for = lambda attachment_id: None  # type: ignore[method-assign]
    assert made.start() == ocf.OCF_SUCCESS


@pytest.mark.parametrize("age", [0.0, 1.0])
def test_a_holddown_beyond_the_deadline_is_a_refusal(bench: Callable[..., Bench], age: float) -> None:
    made = bench(PEER, holddown=300)
    made.ec2.age = age
    with pytest.raises(ocf.Failure, match="attached less than 300 s ago"):
        made.start()
    assert made.writes() == []


def test_the_holder_is_asked_while_the_rest_is_loaded() -> None:
    clock, asked = FakeClock(), []

    def ask() -> bool:
        asked.append(clock.now())
        return len(asked) == 1

    answer = holder.EarlyAnswer(ask, clock.now)
    assert answer()
    assert asked == [1000.0]
    assert not answer()
    assert len(asked) == 2


def test_an_early_answer_of_long_ago_is_asked_for_again() -> None:
    clock, heard = FakeClock(), [False, True]
    answer = holder.EarlyAnswer(lambda: heard.pop(0), clock.now)
    answer._thread.join()  # type: ignore[union-attr]
    clock.sleep(holder.ANSWER_HOLDS)
    assert answer()


def test_the_next_free_device_index_is_taken(bench: Callable[..., Bench]) -> None:
    made = bench(device_index=2)
    made.ec2.errors["attach"] = ["InvalidParameterValue"]

    def taken(name: str) -> None:
        made.ec2.calls.append(name)
        if name == f"attach {ME} 2":
            raise ApiError(
                "InvalidParameterValue", f"Instance '{ME}' already has an interface attached at device index '2'."
            )

    made.ec2._called = taken  # type: ignore[method-assign]
    assert made.start() == ocf.OCF_SUCCESS
    assert made.writes() == [f"attach {ME} 2", f"attach {ME} 3"]


def test_a_lost_reply_to_an_attach_that_took_effect(bench: Callable[..., Bench]) -> None:
    made = bench()
    attach = made.ec2.attach

    def lost(*arguments: Any) -> str:
        attach(*arguments)
        raise ApiError("ConnectionError", "reset")

    made.ec2.attach = lost  # type: ignore[method-assign]
    assert made.start() == ocf.OCF_SUCCESS
    assert made.writes() == [f"attach {ME} 1"]


def test_start_refuses_where_the_host_cannot_forward(bench: Callable[..., Bench]) -> None:
    made = bench(PEER)
    made.host.missing = ["no SNAT rule to 10.0.1.100"]
    with pytest.raises(ocf.Failure, match="cannot forward: no SNAT rule"):
        made.start()
    assert made.ec2.calls == []


def test_a_link_that_never_comes_is_given_back(bench: Callable[..., Bench]) -> None:
    made = bench()
    made.ec2.plugs = False
    with pytest.raises(ocf.Failure, match=r"attached, but no link with the MAC .* it was detached again"):
        made.start()
    assert made.writes() == [f"attach {ME} 1", "detach"]
    assert "configure" not in made.host.steps


def test_a_link_that_never_comes_and_cannot_be_given_back(bench: Callable[..., Bench]) -> None:
    made = bench()
    made.ec2.plugs = False
    made.ec2.errors["detach"] = ["UnauthorizedOperation"]
    with pytest.raises(ocf.Failure, match=r"could not be detached again: .*UnauthorizedOperation"):
        made.start()


def test_a_configuration_that_does_not_hold_is_taken_down(bench: Callable[..., Bench]) -> None:
    made = bench()
    made.host.found = ["rp_filter is strict on ens6"]
    takeover.time.sleep = made.clock.sleep  # restored by the fixture's monkeypatch
    with pytest.raises(ocf.Failure, match="rp_filter is strict"):
        made.start()
    assert made.host.steps[-1] == "tear_down"


def test_sigterm_while_configuring_leaves_nothing_up(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench()

    def interrupted(wanted: host.Wanted) -> None:
        raise ocf.Terminated

    monkeypatch.setattr(host, "configure", interrupted)
    with pytest.raises(ocf.Terminated):
        made.start()
    assert made.host.steps[-1] == "tear_down"


@pytest.mark.parametrize("code", ["Timeout", "UnauthorizedOperation", "RequestLimitExceeded"])
def test_a_link_that_is_here_is_configured_even_if_ec2_cannot_be_asked(bench: Callable[..., Bench], code: str) -> None:
    made = bench(ME)
    made.host.link = ENI
    made.ec2.errors["describe"] = [code] * 100
    assert made.start() == ocf.OCF_SUCCESS
    assert made.writes() == []


def test_a_link_that_is_here_is_configured_even_without_metadata_service(bench: Callable[..., Bench]) -> None:
    made = bench(ME)
    made.host.link = ENI
    made.id_errors = ["Timeout"] * 100
    assert made.start() == ocf.OCF_SUCCESS
    assert made.ec2.calls == []


def test_a_link_that_is_just_leaving_is_attached_anew(bench: Callable[..., Bench]) -> None:
    made = bench()
    made.ec2._hold(ME, "detaching")
    made.host.link = ENI
    assert made.start() == ocf.OCF_SUCCESS
    assert made.writes() == [f"attach {ME} 1"]


def test_an_instance_id_that_comes_late_is_waited_for(bench: Callable[..., Bench]) -> None:
    made = bench()
    made.id_errors = ["Timeout"] * 3
    assert made.start() == ocf.OCF_SUCCESS


def test_no_instance_id_is_a_failure_with_a_reason(bench: Callable[..., Bench]) -> None:
    made = bench()
    made.id_errors = ["ConnectionError"] * 1000
    with pytest.raises(ocf.Failure, match="instance id could not be found out: ConnectionError") as caught:
        made.start()
    assert caught.value.code == ocf.OCF_ERR_GENERIC


# stop


def test_stop_detaches_without_force_serves_until_the_link_leaves_and_takes_it_down(
    bench: Callable[..., Bench],
) -> None:
    made = bench(ME)
    made.host.link, made.host.configured = ENI, True
    detach = made.ec2.detach

    def note(attachment_id: str, force: bool, timeout: float) -> None:
        made.host.steps.append("detach")
        detach(attachment_id, force, timeout)

    made.ec2.detach = note  # type: ignore[method-assign]
    assert made.stop() == ocf.OCF_SUCCESS
    assert made.host.steps == ["detach", "wait_until_gone", "tear_down"]
    assert made.writes() == ["detach"]


def test_stop_never_forces(bench: Callable[..., Bench]) -> None:
    made = bench(ME)
    made.ec2.stuck = True
    assert made.stop() == ocf.OCF_SUCCESS
    assert made.writes() == ["detach"]


def test_stop_leaves_another_hosts_attachment_alone(bench: Callable[..., Bench]) -> None:
    made = bench(PEER)
    assert made.stop() == ocf.OCF_SUCCESS
    assert made.writes() == []


def test_stop_fails_if_the_link_stays_up(bench: Callable[..., Bench]) -> None:
    made = bench(ME)
    made.host.unreadable = True
    with pytest.raises((ocf.Failure, host.HostError), match="could not be taken down"):
        made.stop()


def test_stop_does_not_wait_long_for_ec2_before_it_has_done_its_part(bench: Callable[..., Bench]) -> None:
    made = bench(ME)
    made.host.link, made.host.configured = ENI, True
    given = []

    def describe(interface_id: str, timeout: float) -> Interface:
        given.append((timeout, made.host.configured))
        made.clock.sleep(timeout)
        raise ApiError("Timeout", "says the test")

    made.ec2.describe = describe  # type: ignore[method-assign]
    assert made.stop() == ocf.OCF_SUCCESS
    assert sum(timeout for timeout, serves in given if serves) <= takeover.STOP_ASK_SECONDS
    assert not given[-1][1]
    assert made.host.steps == ["tear_down"]


def test_stop_without_metadata_service(bench: Callable[..., Bench]) -> None:
    made = bench(ME)
    made.id_errors = ["ConnectionError"] * 2
    assert made.stop() == ocf.OCF_SUCCESS
    assert made.host.steps == ["tear_down"]
    assert any(fields.get("detach") == "failed" for _unused, fields in made.log.lines)


def test_stop_spends_little_on_an_api_that_is_away(bench: Callable[..., Bench]) -> None:
    made = bench(ME)
    made.ec2.errors["describe"] = ["Timeout"] * 1000
    began = made.clock.now()
    assert made.stop() == ocf.OCF_SUCCESS
    assert made.clock.now() - began <= takeover.STOP_ASK_SECONDS + takeover.STOP_API_SECONDS + 0.1


def test_stop_with_parameters_that_are_no_use(bench: Callable[..., Bench]) -> None:
    made = bench(ME, interface_id=None, mac_address=None, private_ip=None, subnet=None, region=None)
    assert made.stop() == ocf.OCF_SUCCESS
    assert made.ec2.calls == []


# no error of AWS's is ever "not running", or reason enough to ban the resource


@pytest.mark.parametrize("code", API_ERRORS)
@pytest.mark.parametrize("action", ["describe", "attach", "detach"])
def test_an_api_error_is_a_soft_failure_of_start(bench: Callable[..., Bench], action: str, code: str) -> None:
    made = bench(PEER)
    made.ec2.errors[action] = [code] * 1000
    with pytest.raises(ocf.Failure) as caught:
        made.start()
    assert caught.value.code == ocf.OCF_ERR_GENERIC
    assert code in caught.value.reason


@pytest.mark.parametrize("code", API_ERRORS)
@pytest.mark.parametrize("action", ["describe", "detach"])
def test_an_api_error_never_fails_a_stop(bench: Callable[..., Bench], action: str, code: str) -> None:
    made = bench(ME)
    made.host.link, made.host.configured = ENI, True
    made.ec2.errors[action] = [code] * 1000
    assert made.stop() == ocf.OCF_SUCCESS
    assert made.host.steps == ["tear_down"]


@pytest.mark.parametrize("code", API_ERRORS)
def test_an_api_error_is_nothing_to_monitor(bench: Callable[..., Bench], code: str) -> None:
    made = bench(ME)
    made.host.link, made.host.configured = ENI, True
    made.ec2.errors["describe"] = [code] * 1000
    assert eni.monitor(made.call("monitor")) == ocf.OCF_SUCCESS
    assert made.ec2.calls == []


# validate-all


def test_validate_all_level_0_looks_at_nothing(bench: Callable[..., Bench]) -> None:
    made = bench()
    assert eni.validate_all(made.call("validate-all")) == ocf.OCF_SUCCESS
    assert made.ec2.calls == []


def test_validate_all_level_10_asks_for_the_rights(bench: Callable[..., Bench]) -> None:
    made = bench(PEER)
    assert takeover.validate(made.call("validate-all"), made.tools) == ocf.OCF_SUCCESS
    assert made.ec2.calls == ["describe", "may_attach", "may_detach"]


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (lambda made: made.host.missing.append("net.ipv4.ip_forward is 0"), "ip_forward is 0"),
        (lambda made: made.ec2.errors.update(may_attach=["UnauthorizedOperation"]), "UnauthorizedOperation"),
        (lambda made: made.ec2.errors.update(may_detach=["UnauthorizedOperation"]), "UnauthorizedOperation"),
        (lambda made: made.settings.update(mac_address="02:00:00:00:00:02"), "parameter mac_address"),
        (lambda made: made.settings.update(private_ip="10.0.1.101"), "parameter private_ip"),
        (lambda made: setattr(made.ec2, "check", True), "source/destination check"),
    ],
)
def test_validate_all_level_10_tells_what_is_wrong(
    bench: Callable[..., Bench], prepare: Callable[[Bench], None], reason: str
) -> None:
    made = bench(PEER)
    prepare(made)
    with pytest.raises(ocf.Failure, match=reason):
        takeover.validate(made.call("validate-all"), made.tools)
