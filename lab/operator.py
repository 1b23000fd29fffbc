# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The operator: builds and installs the collection as a user would, and runs playbooks from a namespace of its own."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUNDLE = Path(sys.prefix) / "bundle"  # where lab/bootstrap.sh put amazon.aws's tarball
RECAP = re.compile(
    r"^(?P<host>\S+)\s+: ok=(?P<ok>\d+)\s+changed=(?P<changed>\d+)\s+unreachable=(?P<unreachable>\d+)"
    r"\s+failed=(?P<failed>\d+)",
    re.MULTILINE,
)


class PlaybookFailed(Exception):
    """A playbook ended with an error. `run` is what it printed."""

    def __init__(self, name: str, run: PlaybookRun) -> None:
        super().__init__(f"{name} ended with rc {run.rc}. Its last lines:\n{run.tail()}\nAll of it: {run.log}")
        self.run = run


@dataclass(frozen=True)
class PlaybookRun:
    """What one `ansible-playbook` printed, where, and how it ended."""

    rc: int
    output: str
    log: Path
    seconds: float

    @property
    def changed(self) -> int:
        """The sum of `changed=` over all hosts of the recap."""
        return sum(int(match["changed"]) for match in RECAP.finditer(self.output))

    def changed_tasks(self) -> list[str]:
        """The names of the tasks that said `changed`."""
        names: list[str] = []
        task = ""
        for line in self.output.splitlines():
            if line.startswith("TASK ["):
                task = line[6 : line.rindex("]")]
            elif line.startswith("changed:") and task not in names:
                names.append(task)
        return names

    def tail(self, lines: int = 30) -> str:
        return "\n".join(self.output.splitlines()[-lines:])


def install_collection(target: Path, bundle: Path) -> None:
    """Build the collection's tarball and install it, with amazon.aws's, into `target`: no network is needed.

    `bundle` is the folder that holds amazon.aws's tarball.
    """
    work = target / "build"
    work.mkdir(parents=True)
    galaxy = str(Path(sys.executable).parent / "ansible-galaxy")
    environment = {**os.environ, "ANSIBLE_HOME": str(target / "home"), "ANSIBLE_COLLECTIONS_PATH": str(target)}
    build = [galaxy, "collection", "build", "--output-path", str(work), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, text=True, env=environment, timeout=120)
    tarballs = [str(path) for path in (*bundle.glob("amazon-aws-*.tar.gz"), *work.glob("evernat-aws-*.tar.gz"))]
    install = [galaxy, "collection", "install", "--offline", "-p", str(target), *tarballs]
    subprocess.run(install, check=True, capture_output=True, text=True, env=environment, timeout=120)


class Operator:
    """Runs commands in the operator's namespace with the operator's credentials.

    `prefix` is what puts a command there, e.g. ["ip", "netns", "exec", NAME]; `environment` holds the AWS_ variables.
    """

    def __init__(
        self, prefix: list[str], environment: Mapping[str, str], work: Path, private_key: Path, logs: Path
    ) -> None:
        self._prefix = prefix
        self._work = work
        self._logs = logs  # outlive the lab: a failed run is read there
        self._numbers = itertools.count(1)
        self.collections = work / "collections"
        ssh = f"-o ControlMaster=auto -o ControlPersist=30s -o UserKnownHostsFile={work / 'known_hosts'}"
        self.environment = {
            **{name: os.environ[name] for name in ("PATH", "LANG", "HOME", "VIRTUAL_ENV") if name in os.environ},
            "ANSIBLE_HOME": str(work / "ansible"),
            "ANSIBLE_COLLECTIONS_PATH": str(self.collections),
            "ANSIBLE_LOCAL_TEMP": str(work / "tmp"),
            "ANSIBLE_SSH_ARGS": f"{ssh} -o StrictHostKeyChecking=accept-new -o ConnectTimeout=5",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(work / "ssh"),
            "ANSIBLE_PRIVATE_KEY_FILE": str(private_key),
            "ANSIBLE_LOCALHOST_WARNING": "False",
            "ANSIBLE_INVENTORY_UNPARSED_WARNING": "False",
            "ANSIBLE_DEPRECATION_WARNINGS": "False",
            "ANSIBLE_NOCOLOR": "True",
            "ANSIBLE_PIPELINING": "True",
            "LC_ALL": "C.UTF-8",
            **environment,
        }

    def run(self, argv: list[str], timeout: float, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        return subprocess.run(
            [*self._prefix, *argv],
            check=check, capture_output=True, text=True, timeout=timeout, env=self.environment, cwd=self._work,
        )  # fmt: skip

    def playbook(
        self,
        name: str,
        *arguments: str,
        timeout: float = 900,
        check: bool = True,
        on_line: Callable[[str], None] = lambda line: None,
    ) -> PlaybookRun:
        """Run `ansible-playbook NAME ARGUMENTS`; each line goes to `on_line` as it comes. Raises PlaybookFailed."""
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / f"{next(self._numbers)}-{name.rsplit('.', 1)[-1]}.log"
        argv = [*self._prefix, str(Path(sys.executable).parent / "ansible-playbook"), name, *arguments]
        lines: list[str] = []
        started = time.monotonic()
        with (
            log.open("w") as sink,
            subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                env=self.environment, cwd=self._work,
            ) as process,
        ):  # fmt: skip
            watchdog = threading.Timer(timeout, process.kill)
            watchdog.start()
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    lines.append(line)
                    sink.write(line)
                    on_line(line.rstrip())
            finally:
                watchdog.cancel()
        run = PlaybookRun(process.returncode, "".join(lines), log, time.monotonic() - started)
        if check and run.rc != 0:
            raise PlaybookFailed(name, run)
        return run
