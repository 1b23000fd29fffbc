# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The few operations on cgroup v2 that a host needs; v1 controllers beside it (hybrid) do no harm."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from lab.hosts.errors import HostError
from lab.hosts.wait import wait_until

PARENT = "evernat-lab"


def base(state_root: Path) -> Path:
    """The cgroup that holds all hosts of a state root. It need not exist."""
    return _v2_root() / PARENT / str(state_root.resolve()).strip("/").replace("/", "-")


def pids(group: Path) -> list[int]:
    """The machine's pids of everything in `group` and below, without zombies; empty if it is gone."""
    found: list[int] = []
    for folder, _, _ in os.walk(group):
        try:
            found += [int(line) for line in (Path(folder) / "cgroup.procs").read_text().split()]
        except OSError:  # a service that ended took its cgroup along (ENOENT, ENODEV)
            continue
    return sorted(set(found))


def kill(group: Path, timeout: float) -> None:
    """SIGKILL for everything in `group` at once, frozen or not; returns when nothing of it runs any more."""
    _write(group / "cgroup.kill", "1")
    wait_until(
        f"every process in {group} is dead",
        lambda: _events(group).get("populated") == "0",
        timeout,
        lambda: f"alive: {pids(group)}",
        interval=0.002,
    )


def freeze(group: Path, frozen: bool, timeout: float) -> None:
    """Stop (or resume) every process in `group`; returns when the kernel says it is done."""
    state = "1" if frozen else "0"
    _write(group / "cgroup.freeze", state)
    wait_until(
        f"{group} has frozen={state}",
        lambda: _events(group).get("frozen") == state,
        timeout,
        lambda: str(_events(group)),
        interval=0.002,
    )


def remove(group: Path, timeout: float) -> None:
    """Remove `group` and all below it. Nothing may run in it any more."""
    deadline = time.monotonic() + timeout
    while group.is_dir():
        try:
            for folder, _, _ in os.walk(group, topdown=False):
                Path(folder).rmdir()
        except OSError as error:  # busy for an instant after its last process died
            if time.monotonic() > deadline:
                raise HostError(f"cgroup {group} could not be removed within {timeout} s: {error}") from error
            time.sleep(0.005)


def purge(state_root: Path, timeout: float) -> None:
    """Kill and remove all that hosts of `state_root` left in cgroups."""
    group = base(state_root)
    if group.is_dir():
        kill(group, timeout)
        remove(group, timeout)
    with contextlib.suppress(OSError):  # other state roots may still be in use
        group.parent.rmdir()


def _v2_root() -> Path:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(where)
    raise HostError("cgroup v2 is not mounted on this machine: hosts need it (kernel 5.14 or later, for cgroup.kill)")


def _events(group: Path) -> dict[str, str]:
    return dict(line.split() for line in (group / "cgroup.events").read_text().splitlines())


def _write(path: Path, value: str) -> None:
    try:
        path.write_text(value)
    except OSError as error:
        raise HostError(f"cannot write {value} to {path}: {error.strerror}") from error
