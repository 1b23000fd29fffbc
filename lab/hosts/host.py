# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host: systemd as PID 1 of namespaces of its own, on a disk that is a layer over an image.

It has power (a cgroup of processes), a disk (an overlay that outlives the power) and a place in the network (a named
network namespace, which its owner makes, and which outlives the host). Times are seconds.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import subprocess
import tarfile
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.hosts import cgroup
from lab.hosts.errors import HostError, HostTimeout
from lab.hosts.wait import wait_until

BOOT_SCRIPT = Path(__file__).with_name("boot.sh")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OWN_NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd")  # and the cgroup one, see run()
PRIVATE_MOUNTS = ("unshare", "--mount", "--propagation", "private")
WITHHELD = "-sys_time,-sys_module,-sys_rawio"  # capabilities: the clock and the kernel are the machine's
POWER_CUT_TIMEOUT = 10.0  # seconds


@dataclass(frozen=True)
class File:
    """A file for a host's disk; `owner` is the uid and the gid."""

    content: str | bytes
    mode: int = 0o644
    owner: int = 0


class Host:
    """One host. Its state lies in `state_root`/`key`: another process can act on it by the same arguments.

    `netns` is the name of a network namespace that exists before boot; `image` a folder that image.ensure() returned.
    """

    def __init__(self, key: str, image: Path, state_root: Path, netns: str, hostname: str) -> None:
        self.key = key
        self.image = image
        self.netns = netns
        self.hostname = hostname
        self.state = state_root / key
        self.disk = self.state / "upper"  # what the host has written: read it when the power is off
        self._cgroups = cgroup.base(state_root)
        self._supervisor: subprocess.Popen[bytes] | None = None  # the parent of the host's PID 1: it reaps it

    def boot(self, files: Mapping[str, str | bytes | File] | None = None, timeout: float = 10.0) -> None:
        """Power on: returns when the host's init has started (wait_running waits for the rest).

        `files` (absolute path: content) are put onto the disk before that; other files stay as the last boot left them.
        Raises HostError if it is on already or does not start.
        """
        if self.is_on():
            raise HostError(f"host {self.key} is already on")
        self.power_cut()  # clears what the last boot left, if that host ended by itself
        group = self._new_cgroup()
        (self.state / "pid").unlink(missing_ok=True)
        (self.state / "boot_id").write_text(f"{uuid.uuid4()}\n")  # the kernel's own is the machine's, the same for ever
        self._supervisor = self._start(group, _archive({**(files or {}), "/etc/hostname": f"{self.hostname}\n"}))
        try:
            wait_until(f"host {self.key} starts its init", self._init_has_started, timeout, self._console)
        except HostError:
            self.power_cut()
            raise

    def wait_running(self, timeout: float = 60.0, allow_degraded: bool = False) -> None:
        """Wait until systemd says `running`. Raises HostError that names the failed units, unless `allow_degraded`."""
        state = ""

        def is_settled() -> bool:
            nonlocal state
            state = self.run(["systemctl", "is-system-running"], timeout=timeout).stdout.strip()
            return state in ("running", "degraded")

        wait_until(f"host {self.key} is running", is_settled, timeout, lambda: state or "no answer", interval=0.1)
        if state == "degraded" and not allow_degraded:
            failed = self.run(["systemctl", "--failed", "--plain", "--no-legend"]).stdout.strip()
            raise HostError(f"host {self.key} is degraded: {failed}")

    def run(
        self, argv: Sequence[str], input: str | None = None, timeout: float = 30.0, check: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as root on the host, in all its namespaces and its cgroup: a power cut kills it.

        Raises HostError if the host is off, or with `check` if the command fails; HostTimeout after `timeout`.
        """
        # The command enters the host's cgroup; nsenter itself stays outside, and reaps it after a power cut.
        # The cgroup namespace comes last: from inside it, a process outside cannot be moved in.
        enter = (
            "echo 0 >/sys/fs/cgroup/cgroup.procs && "
            f'exec nsenter --target 1 --cgroup -- setpriv --bounding-set={WITHHELD} -- "$@"'
        )
        process = subprocess.Popen(
            ["nsenter", "--target", str(self.init_pid()), *OWN_NAMESPACES, "--", "/bin/sh", "-c", enter, "sh", *argv],
            stdin=subprocess.PIPE if input is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8"},
        )
        with process:
            try:
                out, err = process.communicate(input, timeout)
            except subprocess.TimeoutExpired:
                _end(process)
                raise HostTimeout(f"host {self.key}: {' '.join(argv)} took longer than {timeout:g} s") from None
            except BaseException:  # Ctrl-C: do not wait for the command
                _end(process)
                raise
        if check and process.returncode:
            raise HostError(
                f"host {self.key}: {' '.join(argv)} ended with code {process.returncode}: {(err or out).strip()}"
            )
        return subprocess.CompletedProcess(list(argv), process.returncode, out, err)

    def power_cut(self) -> None:
        """SIGKILL for every process at once; the disk stays. Its links are the network's business: cut those first."""
        group = self._current_cgroup()
        if group is not None and group.is_dir():
            cgroup.kill(group, POWER_CUT_TIMEOUT)
            # Never boot in a cgroup that was killed: systemd 257 clones its services into theirs, and some die at once.
            cgroup.remove(group, POWER_CUT_TIMEOUT)
        self._reap()

    def shutdown(self, timeout: float = 30.0) -> bool:
        """Ask systemd to power off; after `timeout` cut the power. Returns whether it went by itself."""
        went = True
        if self.is_on():
            os.kill(self.init_pid(), signal.SIGRTMIN + 4)  # systemd: start poweroff.target
            try:
                wait_until(
                    f"host {self.key} powers off", lambda: not self.is_on(), timeout, lambda: f"alive: {self.pids()}"
                )
            except HostTimeout:
                went = False
        self.power_cut()
        return went

    def freeze(self, timeout: float = 5.0) -> None:
        """Stop every process of the host. Its kernel goes on: it forwards, and answers pings."""
        cgroup.freeze(self._cgroup_in_use(), True, timeout)

    def thaw(self, timeout: float = 5.0) -> None:
        """End a freeze."""
        cgroup.freeze(self._cgroup_in_use(), False, timeout)

    def throttle(self, share: float, timeout: float = 5.0) -> None:
        """Let all processes of the host together have only this share of one CPU, until it is 0 again."""
        cgroup.throttle(self._cgroup_in_use(), share, timeout)

    def is_on(self) -> bool:
        """Whether the host's init is alive."""
        return self._init_pid() is not None

    def init_pid(self) -> int:
        """The machine's pid of the host's PID 1. Raises HostError if the host is off."""
        pid = self._init_pid()
        if pid is None:
            raise HostError(f"host {self.key} is off")
        return pid

    def pids(self) -> list[int]:
        """The machine's pids of everything that runs on the host; empty if it is off."""
        group = self._current_cgroup()
        return cgroup.pids(group) if group is not None else []

    def cpu_seconds(self) -> float:
        """CPU time that all processes of this boot have used. Raises HostError if the host is off."""
        return cgroup.cpu_seconds(self._cgroup_in_use())

    def daemon_pid(self, name: str) -> int:
        """The machine's pid of the daemon `name`: of several, the one that systemd started. HostError if none runs."""
        init = self.init_pid()
        named = [pid for pid in self.pids() if _comm(pid) == name[:15]]
        for pid in sorted(named, key=lambda pid: _parent(pid) != init):
            return pid
        raise HostError(f"host {self.key} runs no {name}")

    def journal(self, *options: str) -> str:
        """The output of journalctl with `options` over all boots, whether the power is on or off."""
        # The image's own journalctl reads the disk's files; the mount that shows them to it is seen by nobody else.
        show = (
            'mount --bind "$1/var/log/journal" "$2/var/log/journal" && image=$2 && shift 2 && exec chroot "$image" "$@"'
        )
        read = ["journalctl", "--quiet", "--no-pager", "--directory=/var/log/journal", *options]
        done = subprocess.run(
            [*PRIVATE_MOUNTS, "sh", "-c", show, "sh", str(self.disk), str(self.image), *read],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=30,
            env={"PATH": PATH, "LANG": "C.UTF-8"},
        )
        if done.returncode:
            raise HostError(f"the journal of host {self.key} cannot be read: {done.stderr.strip()}")
        return done.stdout

    def destroy(self) -> None:
        """Cut the power and remove the disk and all other traces. The network namespace stays."""
        self.power_cut()
        if self.state.exists():
            shutil.rmtree(self.state)

    def _start(self, group: Path, archive: bytes) -> subprocess.Popen[bytes]:
        # Into the cgroup first, then the cgroup namespace: that makes this cgroup the root that the host sees.
        enter = 'echo 0 >"$0" && exec unshare --cgroup sh "$@"'
        argv = ["nsenter", f"--net=/run/netns/{self.netns}"]
        argv += [*PRIVATE_MOUNTS, "--uts", "--ipc", "--pid", "--fork", "--kill-child"]
        argv += ["sh", "-c", enter, str(group / "cgroup.procs")]
        argv += [str(BOOT_SCRIPT), str(self.image), str(self.state), self.hostname, WITHHELD]
        with (self.state / "console.log").open("wb") as console:
            # A session of its own: Ctrl-C on the terminal is not a power cut.
            process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=console, stderr=console, start_new_session=True
            )
        assert process.stdin is not None
        try:
            process.stdin.write(archive)
            process.stdin.close()
        except BrokenPipeError:
            pass  # it ended early: the wait for its init tells why
        return process

    def _init_has_started(self) -> bool:
        if self._supervisor is not None and self._supervisor.poll() is not None:
            raise HostError(f"host {self.key} did not start: {self._console()}")
        pid = self._init_pid()
        return pid is not None and _comm(pid) == "systemd"

    def _init_pid(self) -> int | None:
        try:
            pid = int((self.state / "pid").read_text())
        except (FileNotFoundError, ValueError):
            return None
        return pid if pid in self.pids() else None  # the number may be somebody else's by now

    def _console(self) -> str:
        return (self.state / "console.log").read_text(errors="replace").strip() or "nothing on the console"

    def _new_cgroup(self) -> Path:
        """A cgroup that no boot has used: its number goes up by one each time."""
        last = self._current_cgroup()
        group = self._cgroups / f"{self.key}.{int(last.suffix[1:]) + 1 if last else 1}"
        self.state.mkdir(parents=True, exist_ok=True)
        (self.state / "cgroup").write_text(str(group))
        group.mkdir(parents=True)
        return group

    def _current_cgroup(self) -> Path | None:
        try:
            return Path((self.state / "cgroup").read_text())
        except FileNotFoundError:
            return None

    def _cgroup_in_use(self) -> Path:
        self.init_pid()
        group = self._current_cgroup()
        assert group is not None
        return group

    def _reap(self) -> None:
        if self._supervisor is not None:
            try:
                self._supervisor.wait(POWER_CUT_TIMEOUT)
            except subprocess.TimeoutExpired:
                raise HostTimeout(
                    f"host {self.key}: its init is not gone {POWER_CUT_TIMEOUT:g} s after a power cut"
                ) from None
            self._supervisor = None


def purge(state_root: Path, timeout: float = 10.0) -> None:
    """Remove everything that hosts of `state_root` left, also if the run that made them was killed half-way.

    That is: every process in their cgroups, the cgroups, and the folder. Their mounts end with the processes.
    """
    cgroup.purge(state_root, timeout)
    if state_root.exists():
        shutil.rmtree(state_root)


def _archive(files: Mapping[str, str | bytes | File]) -> bytes:
    """A tar of `files` (absolute path: content)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, entry in files.items():
            if not path.startswith("/"):
                raise HostError(f"the path of a host's file must be absolute, not {path!r}")
            file = entry if isinstance(entry, File) else File(entry)
            content = file.content.encode() if isinstance(file.content, str) else file.content
            info = tarfile.TarInfo(path.lstrip("/"))
            info.size, info.mode, info.mtime = len(content), file.mode, time.time()
            info.uid = info.gid = file.owner
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _end(nsenter: subprocess.Popen[str]) -> None:
    """Kill what nsenter started, frozen or not, and let nsenter reap it; kill nsenter itself if it does not end."""
    for process in Path("/proc").glob("[0-9]*"):
        if _parent(int(process.name)) == nsenter.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process.name), signal.SIGKILL)
    try:
        nsenter.wait(2)
    except subprocess.TimeoutExpired:
        nsenter.kill()
