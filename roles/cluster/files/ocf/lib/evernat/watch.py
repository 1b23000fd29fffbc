# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The OCF agent ocf:evernat:watch, a clone: runs the watcher's daemon (watcher.py) on each host of a cluster.

The daemon holds a lock on its file in /run and writes a heartbeat into it. So the kernel tells whether it lives and
which process it is, and the heartbeat whether it still works.
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import time

import ocf
from ocf import Action, Agent, Call, Deadline, Failure, Parameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

FILE = "/run/evernat-{}.watch"
REPLICA = "replica"  # the second attribute's name
BEAT_MAX_AGE = 3.0
BEAT_PATIENCE = 1.5  # after a thaw, the daemon's next heartbeat may come just after us
TERM_SECONDS = 2.0
POLL = 0.05
ATTRD_SECONDS = 5.0
_FLOCK = "hhqqi4x"  # struct flock: type, whence, start, length, pid


class Beat:
    """The heartbeat: when (monotonic seconds), and the attributes' values; None for one that is not settled."""

    def __init__(self, at: float, value: int | None, replica: int | None) -> None:
        self.at = at
        self.value = value
        self.replica = replica

    def age(self) -> float:
        return time.monotonic() - self.at


def monitor(call: Call) -> int:
    """0, or 7 where no daemon runs; raises Failure if it hangs. Puts attributes right that Pacemaker has lost."""
    path = _path(call)
    if lock_holder(path) is None:
        return ocf.OCF_NOT_RUNNING
    beat = _fresh_beat(path, call.deadline.part(BEAT_PATIENCE))
    if beat is None:
        raise Failure(f"the watcher hangs: no heartbeat for {BEAT_MAX_AGE:.0f} s")
    if not call.is_probe:
        _assert_attribute(call, call.settings["attribute"], lambda beat: beat.value)
        _assert_attribute(call, REPLICA, lambda beat: beat.replica)
    return ocf.OCF_SUCCESS


def start(call: Call) -> int:
    """Start the daemon, and wait until its first answer is Pacemaker's attribute."""
    path = _path(call)
    if lock_holder(path) is not None:
        if _fresh_beat(path, call.deadline.part(BEAT_PATIENCE)) is not None:
            return ocf.OCF_SUCCESS
        _end_daemon(path, call.deadline)
    began = time.monotonic()
    _spawn(call, path)
    while call.deadline.left() > 0:
        beat = read_beat(path)
        if beat is not None and beat.at >= began and beat.value is not None and lock_holder(path) is not None:
            return ocf.OCF_SUCCESS
        time.sleep(POLL)
    running = lock_holder(path) is not None
    _end_daemon(path, Deadline(TERM_SECONDS + 1.0))
    name = call.settings["attribute"]
    why = f"it could not write the attribute {name}" if running else "it did not run"
    raise Failure(f"the watcher was not ready within {call.deadline.spent():.0f} s: {why}")


def stop(call: Call) -> int:
    """End the daemon, and delete its attributes: a stale 1 would bar a takeover."""
    _end_daemon(_path(call), call.deadline)
    _delete(call, call.settings["attribute"])
    _delete(call, REPLICA)  # also where replication has just been switched off
    return ocf.OCF_SUCCESS


def validate_all(call: Call) -> int:
    """The parameters' syntax is checked before any action."""
    return ocf.OCF_SUCCESS


def lock_holder(path: str) -> int | None:
    """The process that holds the daemon's lock, by the kernel; None if nobody does. Raises Failure."""
    query = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Failure(f"{path} cannot be read: {error}") from error
    try:
        kind, _unused, _unused, _unused, pid = struct.unpack(_FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, query))
    except OSError as error:
        raise Failure(f"the lock of {path} cannot be read: {error}") from error
    finally:
        os.close(file)
    return None if kind == fcntl.F_UNLCK else pid


def read_beat(path: str) -> Beat | None:
    """The last heartbeat; None if there is none yet."""
    try:
        with open(path) as file:
            at, *values = file.read().split()
        value, replica = (int(text) if text.isdigit() else None for text in [*values, "-"][:2])
        return Beat(float(at), value, replica)
    except (OSError, ValueError):
        return None


def write_beat(file: int, value: int | None, replica: int | None) -> None:
    values = " ".join("-" if each is None else str(each) for each in (value, replica))
    os.pwrite(file, f"{time.monotonic():020.3f} {values}\n".encode(), 0)


def _path(call: Call) -> str:
    return FILE.format(call.settings["attribute"])


def _fresh_beat(path: str, deadline: Deadline) -> Beat | None:
    while True:
        beat = read_beat(path)
        if beat is not None and beat.age() < BEAT_MAX_AGE:
            return beat
        if deadline.left() <= 0:
            return None
        time.sleep(POLL)


def _end_daemon(path: str, deadline: Deadline) -> None:
    """SIGTERM, then SIGKILL to its process group, so that no write of the attribute comes late. Raises Failure."""
    polite = deadline.part(min(TERM_SECONDS, deadline.left() / 2))
    told = 0
    while True:
        pid = lock_holder(path)
        if pid is None:
            return
        if told != pid:
            told = pid
            _signal(pid, signal.SIGTERM)
        elif polite.left() <= 0:
            _signal(-pid, signal.SIGKILL)
        if deadline.left() <= 0:
            raise Failure(f"the watcher (process {pid}) could not be ended within {deadline.spent():.0f} s")
        time.sleep(POLL)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        if pid < 0 and os.getpgid(-pid) != -pid:
            pid = -pid  # not a group's leader yet: it is only just starting
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _assert_attribute(call: Call, name: str, value_in: Callable[[Beat], int | None]) -> None:
    """Pacemaker's attribute daemon forgets transient attributes: when it is restarted alone, when a cut ring heals."""
    value = _last_value(call, value_in)
    if value is None:
        return
    known, output = _attrd(["--name", name, "--query"], call.deadline)
    if known and f'value="{value}"' in output:
        return
    is_still = _last_value(call, value_in) == value
    if is_still and _attrd(["--name", name, "--update", str(value)], call.deadline)[0]:
        call.log("notice", action="monitor", attribute=name, value=value, why="Pacemaker had lost it")


def _last_value(call: Call, value_in: Callable[[Beat], int | None]) -> int | None:
    beat = read_beat(_path(call))
    return None if beat is None else value_in(beat)


def _delete(call: Call, name: str) -> None:
    while not _attrd(["--name", name, "--delete"], call.deadline)[0]:
        if call.deadline.left() < call.deadline.spent():
            call.log("warning", action="stop", attribute=name, reason="it could not be deleted")
            break
        time.sleep(0.2)


def _attrd(arguments: Sequence[str], deadline: Deadline) -> tuple[bool, str]:
    import subprocess

    try:
        done = subprocess.run(
            ["attrd_updater", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=max(0.1, min(ATTRD_SECONDS, deadline.left())),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False, ""
    return done.returncode == 0, done.stdout.decode(errors="replace")


def _spawn(call: Call, path: str) -> None:
    """Fork the daemon, away from Pacemaker's pipes, in a session of its own."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        os.setsid()
        if os.fork() == 0:
            os.setpgid(0, 0)  # so that its children can be ended with it
            _detach_from_caller()
            _run_daemon(call, path)
    except BaseException as error:  # there is nobody to raise it to
        call.log("error", action="start", reason=f"{type(error).__name__}: {error}")
    finally:
        os._exit(0)


def _detach_from_caller() -> None:
    os.chdir("/")
    os.umask(0o077)
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.closerange(3, 256)
    with open("/proc/self/comm", "w") as file:
        file.write("evernat-watch")


def _run_daemon(call: Call, path: str) -> None:
    import watcher

    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    settings = call.settings
    name, port = endpoint_address(settings)
    daemon = watcher.Watcher(
        settings["mac_address"],
        settings["private_ip"],
        settings["interval_ms"] / 1000,
        settings["probes"],
        watcher.Way(name, port),
        watcher.Attribute(settings["attribute"], call.log),
        lambda value, replica: write_beat(file, value, replica),
        _follow_replica(call) if settings["replication"] else None,
    )

    def end(number: int, frame: object) -> None:
        daemon.stopping = True

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    daemon.run()


def _follow_replica(call: Call) -> Any:
    import replica
    import watcher

    follower = replica.Follower()
    follower.start()
    return watcher.Replica(follower, watcher.Attribute(REPLICA, call.log))


def endpoint_address(settings: Mapping[str, Any]) -> tuple[str, int]:
    """Name and port of the EC2 endpoint."""
    url = settings["endpoint"] or ocf.ec2_endpoint(settings["region"])
    scheme, _unused, rest = url.partition("://")
    name, _unused, port = rest.partition("/")[0].partition(":")
    return name, int(port) if port else 443 if scheme == "https" else 80


def _word(text: str) -> str:
    if not text.isascii() or not text.replace("-", "").replace("_", "").isalnum():
        raise ValueError("not a name of letters, digits, - and _")
    return text


AGENT = Agent(
    name="watch",
    version="0.1.0",
    shortdesc="Bars a host from an Elastic Network Interface that is served elsewhere",
    longdesc="""Asks the address of an Elastic Network Interface (ENI) by the primary link a few times a second, and
keeps a transient node attribute: 1 while the ENI answers from another host, or is silent while this host has no way to
the EC2 endpoint, else 0. With a location rule on it, hosts whose cluster ring is cut do not fight for the ENI. Run it
as a clone.""",
    parameters=[
        Parameter("mac_address", "MAC address", "MAC address of the ENI.", ocf.mac, required=True),
        Parameter("private_ip", "Private address", "Primary private IPv4 address of the ENI.", ocf.ipv4, required=True),
        Parameter("region", "Region", "AWS region.", ocf.region, required=True),
        Parameter(
            "endpoint",
            "EC2 endpoint",
            "URL of the EC2 API, to which a TCP connection must be possible."
            " Empty: the region's own, https://ec2.REGION.amazonaws.com",
            ocf.http_url,
        ),
        Parameter("attribute", "Attribute", "Name of the node attribute.", _word, default="barred", unique=True),
        Parameter(
            "interval_ms",
            "Probe interval",
            "Time between two probes, in milliseconds. One that is not answered is followed by the next within 100 ms.",
            ocf.integer(50, 10000),
            kind="integer",
            default="250",
        ),
        Parameter(
            "probes",
            "Probes",
            "Number of unanswered probes in a row after which the ENI counts as silent.",
            ocf.integer(1, 100),
            kind="integer",
            default="3",
        ),
        Parameter(
            "replication",
            "Connections are replicated",
            "True where conntrackd runs on both hosts. The node attribute replica then tells whether this host has all"
            " connections of the other one: 1, or 0.",
            ocf.boolean,
            kind="boolean",
            default="false",
        ),
    ],
    actions=[
        Action("start", 20, start),
        Action("stop", 20, stop),
        Action("monitor", 20, monitor, interval=5),
        Action("validate-all", 20, validate_all),
    ],
)
