# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The few operations on cgroup v2 that a host needs; v1 controllers beside it (hybrid) do no harm.

The one that may be v1's is `cpu`: a controller serves one hierarchy, and the machine has decided which.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from lab.hosts.errors import HostError
from lab.hosts.wait import wait_until

PARENT = "evernat-lab"
CPU_V1 = Path("/sys/fs/cgroup/cpu")
PERIOD = 100_000  # microseconds


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


def throttle(group: Path, share: float, timeout: float) -> None:
    """Let all of `group` together have only this share of one CPU; 0 ends it. On v1 that binds real-time ones, too."""
    if CPU_V1.is_dir():
        _throttle_v1(group, share, timeout)
        return
    for parent in (group.parent.parent.parent, group.parent.parent, group.parent):
        _write(parent / "cgroup.subtree_control", "+cpu")
    _write(group / "cpu.max", f"{round(share * PERIOD) if share else 'max'} {PERIOD}")


def _throttle_v1(group: Path, share: float, timeout: float) -> None:
    """v1 has a tree of its own, in which the processes of `group` are moved to a group made for this, and back."""
    limited = _limited_v1(group)
    if share:
        limited.mkdir(exist_ok=True)
        quota = str(round(share * PERIOD))
        for name, value in (("cfs", "quota"), ("rt", "runtime")):
            _write(limited / f"cpu.{name}_period_us", str(PERIOD))
            _write(limited / f"cpu.{name}_{value}_us", quota)
    target, source = (limited, group) if share else (CPU_V1, limited)

    def all_moved() -> bool:
        for pid in pids(source):
            with contextlib.suppress(ProcessLookupError):
                (target / "cgroup.procs").write_text(str(pid))
        return set(pids(source)) <= set(pids(limited)) if share else not pids(limited)

    if share or limited.is_dir():
        wait_until(f"every process in {source} is in {target}", all_moved, timeout, lambda: str(pids(source)))
    if not share:
        _remove(limited, timeout)


def _limited_v1(group: Path) -> Path:
    return CPU_V1 / f"{PARENT}-{group.parent.name}-{group.name}"


def cpu_seconds(group: Path) -> float:
    """CPU time that everything in `group` and below has used so far."""
    usage = next(line for line in (group / "cpu.stat").read_text().splitlines() if line.startswith("usage_usec "))
    return int(usage.split()[1]) / 1e6


def remove(group: Path, timeout: float) -> None:
    """Remove `group` and all below it, and its throttle. Nothing may run in it any more."""
    for tree in (group, _limited_v1(group)):
        _remove(tree, timeout)


def _remove(group: Path, timeout: float) -> None:
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
    for limited in CPU_V1.glob(f"{PARENT}-{group.name}-*"):
        _remove(limited, timeout)
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
