# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The watcher: what it decides, how it writes its attribute, and what its OCF actions make of its daemon."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import time
from typing import Any, Callable

import icmp
import ocf
import pytest
import watch
import watcher
from ansible_collections.evernat.aws.tests.unit.agent.conftest import Recorder


@pytest.mark.parametrize(
    ("here", "silent", "way_open", "value"),
    [
        (True, 0, False, watcher.FREE),
        (True, 9, False, watcher.FREE),
        (False, 0, True, watcher.BARRED),
        (False, 0, False, watcher.BARRED),
        (False, 1, True, None),
        (False, 2, False, None),
        (False, 3, True, watcher.FREE),
        (False, 3, False, watcher.BARRED),
        (False, 50, True, watcher.FREE),
    ],
)
def test_the_judgement(here: bool, silent: int, way_open: bool, value: int | None) -> None:
    verdict = watcher.judge(here, silent, 3, lambda: way_open)
    assert (None if verdict is None else verdict.value) == value


def test_the_way_is_asked_for_only_where_it_matters() -> None:
    def never() -> bool:
        raise AssertionError("no connection is needed to tell this")

    for here, silent in ((True, 9), (False, 0), (False, 2)):
        watcher.judge(here, silent, 3, never)


class FakeChild:
    """An attrd_updater: `code` None while it runs."""

    def __init__(self, command: list[str], code: int | None) -> None:
        self.command = command
        self.code = code
        self.killed = False

    def poll(self) -> int | None:
        return self.code

    def kill(self) -> None:
        self.killed = True

    def wait(self) -> None:
        pass


class Updates:
    """In the place of subprocess.Popen."""

    def __init__(self) -> None:
        self.children: list[FakeChild] = []
        self.code: int | None = 0

    def __call__(self, command: list[str], **options: Any) -> FakeChild:
        self.children.append(FakeChild(command, self.code))
        return self.children[-1]


@pytest.fixture
def updates(monkeypatch: pytest.MonkeyPatch) -> Updates:
    made = Updates()
    monkeypatch.setattr(watcher.subprocess, "Popen", made)
    return made


def attribute_of(log: Recorder) -> tuple[watcher.Attribute, list[float]]:
    now = [100.0]
    return watcher.Attribute("barred", log, lambda: now[0]), now  # type: ignore[arg-type]


def test_the_attribute_is_written_only_when_it_changes(updates: Updates, log: Recorder) -> None:
    attribute, _unused = attribute_of(log)
    for value in (1, 1, 1, 0, 0):
        attribute.set(watcher.Verdict(value, "so"))
        attribute.work()
        attribute.work()
    assert [child.command for child in updates.children] == [
        ["attrd_updater", "--name", "barred", "--update", "1"],
        ["attrd_updater", "--name", "barred", "--update", "0"],
    ]
    assert attribute.written == 0
    assert [fields["value"] for _unused, fields in log.lines] == [1, 0]


def test_a_write_that_fails_is_tried_again_and_logged_once(updates: Updates, log: Recorder) -> None:
    attribute, now = attribute_of(log)
    updates.code = 1
    attribute.set(watcher.Verdict(1, "so"))
    for _unused in range(100):
        attribute.work()
        now[0] += 0.25
    assert 20 <= len(updates.children) <= 26
    assert len(log.lines) == 1
    assert attribute.written is None
    updates.code = 0
    for _unused in range(10):
        attribute.work()
        now[0] += 0.25
    assert attribute.written == 1


def test_a_write_that_hangs_is_ended(updates: Updates, log: Recorder) -> None:
    attribute, now = attribute_of(log)
    updates.code = None
    attribute.set(watcher.Verdict(1, "so"))
    attribute.work()
    now[0] += watcher.UPDATE_SECONDS + 0.1
    attribute.work()
    assert updates.children[0].killed
    assert attribute.written is None


@pytest.mark.parametrize("code", [None, 1])
def test_a_write_of_unknown_fate_is_made_good_though_the_verdict_went_back(
    updates: Updates, log: Recorder, code: int | None
) -> None:
    """Pacemaker may have heard the 1: it would stay for ever if 0 were taken for written."""
    attribute, now = attribute_of(log)
    attribute.set(watcher.Verdict(0, "so"))
    attribute.work()
    attribute.work()
    updates.code = code
    attribute.set(watcher.Verdict(1, "not so"))
    attribute.work()
    attribute.set(watcher.Verdict(0, "so"))
    updates.code = 0
    for _unused in range(30):
        now[0] += 0.25
        attribute.work()
    assert [child.command[-1] for child in updates.children] == ["0", "1", "0"]
    assert attribute.written == 0


def test_the_heartbeat_tells_no_value_while_one_is_being_written(updates: Updates, log: Recorder) -> None:
    """The monitor would take what Pacemaker has just heard for a loss, and write the old value over it."""
    attribute, _unused = attribute_of(log)
    attribute.set(watcher.Verdict(1, "so"))
    attribute.work()
    attribute.work()
    assert attribute.settled == 1
    updates.code = None
    attribute.set(watcher.Verdict(0, "not so"))
    attribute.work()
    assert attribute.settled is None
    updates.children[-1].code = 0
    attribute.work()
    assert attribute.settled == 0


def test_a_verdict_that_changed_meanwhile_is_written_next(updates: Updates, log: Recorder) -> None:
    attribute, _unused = attribute_of(log)
    updates.code = None
    attribute.set(watcher.Verdict(1, "so"))
    attribute.work()
    attribute.set(watcher.Verdict(0, "not so"))
    updates.children[0].code = updates.code = 0
    attribute.work()
    attribute.work()
    assert [child.command[-1] for child in updates.children] == ["1", "0"]
    assert attribute.written == 0


def test_no_attrd_updater_is_logged_once(monkeypatch: pytest.MonkeyPatch, log: Recorder) -> None:
    def missing(*arguments: Any, **options: Any) -> None:
        raise FileNotFoundError(2, "No such file or directory", "attrd_updater")

    monkeypatch.setattr(watcher.subprocess, "Popen", missing)
    attribute, now = attribute_of(log)
    attribute.set(watcher.Verdict(1, "so"))
    for _unused in range(20):
        attribute.work()
        now[0] += 1.0
    assert len(log.lines) == 1


def way_to(port: int) -> tuple[watcher.Way, list[float]]:
    now = [100.0]
    way = watcher.Way("127.0.0.1", port, lambda: now[0])
    way.refresh()
    until = time.monotonic() + 5
    while not way._addresses and time.monotonic() < until:
        time.sleep(0.01)
    return way, now


def test_the_way_is_open_while_something_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        way, now = way_to(listener.getsockname()[1])
        assert way.is_open()
    assert way.is_open()  # what is known holds for a while
    now[0] += watcher.WAY_OPEN_SECONDS + 0.1
    assert not way.is_open()


def test_a_name_service_that_hangs_does_not_hold_up_the_watcher(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def hang(*arguments: Any) -> list[Any]:
        calls.append(arguments)
        time.sleep(1.0)
        return []

    monkeypatch.setattr(watcher.socket, "getaddrinfo", hang)
    now = [100.0]
    way = watcher.Way("ec2.example", 443, lambda: now[0])
    began = time.monotonic()
    for _unused in range(20):
        way.refresh()
        assert not way.is_open()
        now[0] += 10.0
    assert time.monotonic() - began < 0.5
    assert len(calls) == 1


def test_echo_packets() -> None:
    packet = icmp.request(b"8 bytes!", 7)
    assert icmp.checksum(packet) == 0
    reply = b"\x45" + b"\0" * 19 + b"\0" + packet[1:]
    assert icmp.is_reply(reply, b"8 bytes!")
    assert not icmp.is_reply(reply, b"9 bytes!")
    assert not icmp.is_reply(b"\x45" + b"\0" * 19 + packet, b"8 bytes!")
    assert not icmp.is_reply(reply[:25], b"8 bytes!")
    assert not icmp.is_reply(b"", b"8 bytes!")


class Rounds(watcher.Watcher):
    """A watcher whose observations are scripted: (here, answered)."""

    def __init__(self, script: list[tuple[Any, bool]], attribute: Any) -> None:
        way: Any = type("Open", (), {"refresh": lambda self: None, "is_open": lambda self: True})()
        super().__init__("02:00:00:00:00:01", "10.0.1.100", 0.0, 3, way, attribute, lambda value: None)
        self.script = script

    def _is_here(self) -> Any:
        return self.script[0][0]

    def _answered(self, until: float) -> bool:
        return self.script[0][1]


def test_a_watchers_day() -> None:
    verdicts: list[int] = []
    keep = {"set": lambda self, verdict: verdicts.append(verdict.value), "work": lambda self: None}
    attribute: Any = type("Keep", (), keep)()
    script = [
        (False, True),  # elsewhere
        (False, False),
        (False, False),
        (False, True),  # two probes were lost
        (False, False),
        (False, False),
        (False, False),  # silent
        (None, False),  # the kernel did not tell: nothing changes
        (True, False),  # taken over
        (False, False),  # given away: not silent yet
    ]
    made = Rounds(script, attribute)
    while made.script:
        made.round(time.monotonic())
        made.script.pop(0)
    assert verdicts == [1, 1, 0, 0]


class VirtualTime:
    """In the place of the module `time`."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class SlowEcho:
    """An echo that answers some of its requests, by number; keeps when each was sent."""

    def __init__(self, answered: set[int], clock: VirtualTime) -> None:
        self._answers = answered
        self._clock = clock
        self.sent: list[float] = []

    def send(self) -> None:
        self.sent.append(self._clock.now)

    def answered(self, seconds: float) -> bool:
        if len(self.sent) in self._answers:
            return True
        self._clock.sleep(seconds)
        return False

    def drain(self) -> bool:
        return False


def test_a_probe_that_is_not_answered_is_followed_by_the_next_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, verdicts = VirtualTime(), []
    keep = {"settled": None, "set": lambda self, verdict: verdicts.append(verdict.value), "work": lambda self: None}
    attribute: Any = type("Keep", (), {**keep, "close": lambda self: None})()
    way: Any = type("Open", (), {"refresh": lambda self: None, "is_open": lambda self: True})()

    def beat(value: int | None, replica: int | None) -> None:
        made.stopping = len(echo.sent) == 6

    made = watcher.Watcher("02:00:00:00:00:01", "10.0.1.100", 0.25, 3, way, attribute, beat)
    echo = SlowEcho({1, 2}, clock)
    monkeypatch.setattr(watcher, "time", clock)
    monkeypatch.setattr(made, "_is_here", lambda: False)
    monkeypatch.setattr(made, "_open_echo", lambda: echo)
    made.run()
    gaps = [round(after - before, 3) for before, after in zip(echo.sent, echo.sent[1:])]
    assert gaps == [0.25, 0.25, 0.1, 0.1, 0.25]
    assert verdicts == [1, 1, 0, 0]


def test_who_serves_is_not_forgotten_for_one_probe_that_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = [(True, False), (False, False), (False, True), (False, False), (False, True), *[(False, False)] * 3]
    attribute: Any = type("Keep", (), {"set": lambda self, verdict: None, "work": lambda self: None})()
    way: Any = type("Open", (), {"refresh": lambda self: None, "is_open": lambda self: True})()
    made = watcher.Watcher("02:00:00:00:00:01", "10.0.1.100", 0.25, 3, way, attribute, lambda value: None)
    told: list[bool] = []
    made.replica = type("Told", (), {"work": lambda self, here, answers: told.append(answers)})()  # type: ignore[assignment]
    for here, answered in rounds:
        monkeypatch.setattr(made, "_is_here", lambda here=here: here)
        monkeypatch.setattr(made, "_answered", lambda until, answered=answered: answered)
        made.round(time.monotonic())
    assert told == [False, False, True, True, True, True, True, False]


# the OCF actions


@pytest.fixture
def call(log: Recorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Callable[..., ocf.Call]:
    monkeypatch.setattr(watch, "FILE", str(tmp_path / "{}.watch"))
    monkeypatch.setattr(watch, "BEAT_PATIENCE", 0.2)
    settings = {
        "mac_address": "02:00:00:00:00:01",
        "private_ip": "10.0.1.100",
        "region": "eu-west-1",
        "endpoint": None,
        "attribute": "barred",
        "interval_ms": 250,
        "probes": 3,
        "replication": True,
    }

    def make(action: str, seconds: float = 10.0, **environ: str) -> ocf.Call:
        return ocf.Call(action, environ, settings, ocf.Deadline(seconds), log)  # type: ignore[arg-type]

    return make


@pytest.fixture
def daemon(tmp_path: Any) -> Any:
    """A process that holds the lock and has written a heartbeat of a given age."""
    children = []

    def make(age: float = 0.0, value: str = "1", stubborn: bool = False) -> int:
        path = str(tmp_path / "barred.watch")
        ready, tell = os.pipe()
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)
            signal.signal(signal.SIGTERM, signal.SIG_IGN if stubborn else signal.SIG_DFL)
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.lockf(file, fcntl.LOCK_EX)
            os.write(file, f"{time.monotonic() - age:020.3f} {value}\n".encode())
            os.write(tell, b"x")
            time.sleep(30)
            os._exit(0)
        os.read(ready, 1)
        children.append(child)
        return child

    yield make
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


class Attrd:
    """In the place of attrd_updater: what it was asked, and what it knows."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.value: str | None = "1"
        self.away = False

    def __call__(self, arguments: list[str], deadline: ocf.Deadline) -> tuple[bool, str]:
        self.asked.append(tuple(arguments[1:]))
        if self.away:
            return False, ""
        if arguments[2] == "--update":
            self.value = arguments[3]
        if arguments[2] == "--query":
            return self.value is not None, f'name="barred" host="a" value="{self.value}"\n'
        return True, ""


@pytest.fixture
def attrd(monkeypatch: pytest.MonkeyPatch) -> Attrd:
    made = Attrd()
    monkeypatch.setattr(watch, "_attrd", made)
    return made


def test_monitor_without_a_daemon(call: Callable[..., ocf.Call], attrd: Attrd) -> None:
    assert watch.monitor(call("monitor")) == ocf.OCF_NOT_RUNNING
    assert attrd.asked == []


def test_monitor_after_the_daemon_was_killed(call: Callable[..., ocf.Call], daemon: Any, attrd: Attrd) -> None:
    child = daemon()
    assert watch.lock_holder(watch._path(call("monitor"))) == child
    os.kill(child, signal.SIGKILL)
    until = time.monotonic() + 5
    while watch.monitor(call("monitor")) != ocf.OCF_NOT_RUNNING:
        assert time.monotonic() < until


def test_monitor_of_a_daemon_that_hangs(call: Callable[..., ocf.Call], daemon: Any, attrd: Attrd) -> None:
    daemon(age=100.0)
    with pytest.raises(ocf.Failure, match="hangs"):
        watch.monitor(call("monitor"))


def test_monitor_asserts_the_replicas_attribute_too(
    call: Callable[..., ocf.Call], daemon: Any, attrd: Attrd, log: Recorder
) -> None:
    daemon(value="- 1")
    attrd.value = None
    assert watch.monitor(call("monitor")) == ocf.OCF_SUCCESS
    assert attrd.asked == [("replica", "--query"), ("replica", "--update", "1")]
    assert log.last()["why"] == "Pacemaker had lost it"


def test_monitor_asserts_an_attribute_that_was_lost(
    call: Callable[..., ocf.Call], daemon: Any, attrd: Attrd, log: Recorder
) -> None:
    daemon(value="1")
    assert watch.monitor(call("monitor")) == ocf.OCF_SUCCESS
    assert attrd.asked == [
        (
            "barred",
            "--query",
        )
    ]
    for lost in (None, "0"):
        attrd.value = lost
        attrd.asked.clear()
        assert watch.monitor(call("monitor")) == ocf.OCF_SUCCESS
        assert attrd.asked == [
            (
                "barred",
                "--query",
            ),
            ("barred", "--update", "1"),
        ]
        assert attrd.value == "1"
    attrd.away = True
    assert watch.monitor(call("monitor")) == ocf.OCF_SUCCESS


def test_a_probe_touches_no_attribute(call: Callable[..., ocf.Call], daemon: Any, attrd: Attrd) -> None:
    daemon()
    assert watch.monitor(call("monitor", OCF_RESKEY_CRM_meta_interval="0")) == ocf.OCF_SUCCESS
    assert attrd.asked == []


def test_start_of_what_runs_already(
    call: Callable[..., ocf.Call], daemon: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon()
    monkeypatch.setattr(watch, "_spawn", lambda call, path: pytest.fail("a second daemon"))
    assert watch.start(call("start")) == ocf.OCF_SUCCESS


def test_start_replaces_a_daemon_that_hangs(
    call: Callable[..., ocf.Call], daemon: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hung = daemon(age=100.0)
    monkeypatch.setattr(watch, "_spawn", lambda call, path: daemon())
    assert watch.start(call("start")) == ocf.OCF_SUCCESS
    assert watch.lock_holder(watch._path(call("start"))) not in (None, hung)


@pytest.mark.parametrize(("runs", "reason"), [(False, "did not run"), (True, "could not write the attribute barred")])
def test_start_of_a_daemon_that_is_not_ready_in_time(
    call: Callable[..., ocf.Call], daemon: Any, monkeypatch: pytest.MonkeyPatch, runs: bool, reason: str
) -> None:
    monkeypatch.setattr(watch, "_spawn", lambda call, path: daemon(value="-") if runs else None)
    with pytest.raises(ocf.Failure, match=reason):
        watch.start(call("start", 0.5))
    assert watch.lock_holder(watch._path(call("start"))) is None


@pytest.mark.parametrize("stubborn", [False, True])
def test_stop_ends_the_daemon_and_deletes_the_attribute(
    call: Callable[..., ocf.Call], daemon: Any, attrd: Attrd, monkeypatch: pytest.MonkeyPatch, stubborn: bool
) -> None:
    monkeypatch.setattr(watch, "TERM_SECONDS", 0.3)
    daemon(stubborn=stubborn)
    assert watch.stop(call("stop")) == ocf.OCF_SUCCESS
    assert watch.lock_holder(watch._path(call("stop"))) is None
    assert attrd.asked == [("barred", "--delete"), ("replica", "--delete")]
    assert watch.stop(call("stop")) == ocf.OCF_SUCCESS


def test_stop_without_pacemaker_ends_in_time(call: Callable[..., ocf.Call], attrd: Attrd, log: Recorder) -> None:
    attrd.away = True
    began = time.monotonic()
    assert watch.stop(call("stop", 1.0)) == ocf.OCF_SUCCESS
    assert time.monotonic() - began < 1.0
    assert log.last()["reason"] == "it could not be deleted"


def test_heartbeats(tmp_path: Any) -> None:
    path = tmp_path / "beat"
    assert watch.read_beat(str(path)) is None
    path.write_text("nonsense")
    assert watch.read_beat(str(path)) is None
    with open(path, "w") as file:
        for value, replica in ((None, None), (1, None), (0, 1), (1, 0)):
            watch.write_beat(file.fileno(), value, replica)
            beat = watch.read_beat(str(path))
            assert beat is not None
            assert (beat.value, beat.replica) == (value, replica)
            assert beat.age() < 1.0


@pytest.mark.parametrize(
    ("endpoint", "address"),
    [
        (None, ("ec2.eu-west-1.amazonaws.com", 443)),
        ("http://10.0.0.1:8080/path", ("10.0.0.1", 8080)),
        ("https://vpce-1.ec2.eu-west-1.vpce.amazonaws.com", ("vpce-1.ec2.eu-west-1.vpce.amazonaws.com", 443)),
        ("http://ec2.example", ("ec2.example", 80)),
    ],
)
def test_the_endpoints_address(endpoint: str | None, address: tuple[str, int]) -> None:
    assert watch.endpoint_address({"region": "eu-west-1", "endpoint": endpoint}) == address
