# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Named network namespaces: make, list, delete; and the batch tools `ip` and `nft` inside them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from lab.netns import FOLDER, enter

COMMAND_SECONDS = 20.0  # ip and nft answer in milliseconds; this bounds a hung one


class NamespaceError(Exception):
    """A namespace, or a tool inside it, did not do what was asked."""


def path(namespace: str) -> Path:
    return FOLDER / namespace


def names(prefix: str) -> list[str]:
    """The named namespaces that begin with `prefix`, sorted."""
    if not FOLDER.is_dir():
        return []
    return sorted(entry.name for entry in FOLDER.iterdir() if entry.name.startswith(prefix))


def create(namespaces: Iterable[str]) -> None:
    """Make them all, in one process."""
    _run(["ip", "-batch", "-"], "".join(f"netns add {name}\n" for name in namespaces))


def delete(namespaces: Iterable[str]) -> None:
    """Delete them all, in one process. Links inside go with them as soon as no process holds the namespace."""
    lines = "".join(f"netns del {name}\n" for name in namespaces)
    if lines:
        _run(["ip", "-batch", "-"], lines)


def ip(namespace: str, lines: Iterable[str]) -> None:
    """Carry out ip(8) commands in order, in one process. Raises NamespaceError at the first that fails."""
    text = "".join(f"{line}\n" for line in lines)
    if text:
        _run(["ip", "-n", namespace, "-batch", "-"], text)


def nft(namespace: str, ruleset: str) -> None:
    """Load a ruleset; nft makes it all or nothing."""
    _run(["ip", "netns", "exec", namespace, "nft", "-f", "-"], ruleset)


def sysctl(namespace: str, values: Mapping[str, int]) -> None:
    """Write values below /proc/sys/net, which shows the namespace of the task that looks."""

    def write() -> None:
        for name, value in values.items():
            with contextlib.suppress(FileNotFoundError):  # not every kernel has every switch
                Path("/proc/sys/net", name).write_text(f"{value}\n")

    enter(namespace, write)


def processes(namespaces: Iterable[str]) -> list[int]:
    """Ids of the processes that live in one of the namespaces, this one never."""
    inodes = {path(name).stat().st_ino for name in namespaces if path(name).exists()}
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):  # gone meanwhile
                if (entry / "ns" / "net").stat().st_ino in inodes:
                    found.append(int(entry.name))
    return found


def kill_processes(namespaces: Iterable[str], seconds: float = 5.0) -> None:
    """SIGKILL everything that lives in the namespaces. NamespaceError if something is still there after `seconds`."""
    spaces = list(namespaces)
    deadline = time.monotonic() + seconds
    while pids := processes(spaces):
        if time.monotonic() > deadline:
            raise NamespaceError(f"still in the namespaces {spaces} {seconds} s after SIGKILL: processes {pids}")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _run(argv: list[str], text: str) -> None:
    try:
        done = subprocess.run(argv, input=text, text=True, capture_output=True, timeout=COMMAND_SECONDS, check=False)
    except FileNotFoundError as error:
        raise NamespaceError(f"{argv[0]} is missing: install iproute2 and nftables") from error
    except subprocess.TimeoutExpired as error:
        raise NamespaceError(f"{' '.join(argv)} did not end within {COMMAND_SECONDS} s") from error
    if done.returncode != 0:
        raise NamespaceError(f"{' '.join(argv)} failed: {done.stderr.strip()}\nits input was:\n{text}")
