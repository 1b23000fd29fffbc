# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""ocf:evernat:watch as a process in a host's namespace, with a stand-in for Pacemaker's attribute daemon."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_world import GATEWAY, LINK, World, wait_for
from attrd import install_attrd

pytestmark = pytest.mark.root


class Watch:
    """The watcher of host b."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.file = install_attrd(world) / name
        self.log = Path(f"{self.file}.log")

    def run(self, action: str, **changes: str) -> subprocess.CompletedProcess[str]:
        return self.world.agent("b", action, agent="watch", attribute=self.name, **changes)

    def value(self) -> str | None:
        return self.file.read_text().strip() if self.file.exists() else None

    def wait_for(self, value: str | None, seconds: float = 6.0) -> float:
        return wait_for(lambda: self.value() == value, seconds, f"attribute {value}")

    def writes(self) -> list[str]:
        return [line.partition(" ")[2] for line in self.log.read_text().splitlines()]

    def process(self) -> int:
        """The daemon, by its heartbeat file, which it alone keeps open."""
        path = f"/run/evernat-{self.name}.watch"
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and any(os.readlink(link) == path for link in (entry / "fd").iterdir()):
                    return int(entry.name)
            except OSError:
                continue
        raise AssertionError("no daemon holds the file open")


@pytest.fixture
def watch(world: World, request: pytest.FixtureRequest) -> Iterator[Watch]:
    made = Watch(world, f"barred-{os.getpid()}-{abs(hash(request.node.name)) % 10000}")
    yield made
    made.run("stop")
    Path(f"/run/evernat-{made.name}.watch").unlink(missing_ok=True)


def test_its_day(world: World, watch: Watch) -> None:
    assert watch.run("monitor").returncode == 7
    started = watch.run("start")
    assert (started.returncode, started.stderr) == (0, "")
    assert watch.value() == "0"  # nobody holds it, and EC2 can be reached
    assert watch.run("monitor").returncode == 0
    assert world.agent("a", "start").returncode == 0
    watch.wait_for("1")
    world.in_host("a", "ip", "link", "set", LINK, "down")
    assert watch.wait_for("0") < 2.5
    world.in_host("b", "ip", "route", "add", "blackhole", f"{GATEWAY}/32")
    watch.wait_for("1", 8.0)
    world.in_host("b", "ip", "route", "del", "blackhole", f"{GATEWAY}/32")
    watch.wait_for("0", 8.0)
    assert watch.run("stop").returncode == 0
    assert watch.value() is None
    assert watch.run("monitor").returncode == 7
    assert watch.run("stop").returncode == 0
    assert watch.writes() == ["update 0", "update 1", "update 0", "update 1", "update 0", "delete", "delete"]


def test_the_holder_is_never_barred(world: World, watch: Watch) -> None:
    assert world.agent("b", "start").returncode == 0
    assert watch.run("start").returncode == 0
    world.in_host("b", "ip", "route", "add", "blackhole", f"{GATEWAY}/32")
    time.sleep(1.5)  # several rounds
    assert watch.writes() == ["update 0"]


def test_a_killed_daemon_is_noticed_and_replaced(watch: Watch) -> None:
    assert watch.run("start").returncode == 0
    os.kill(watch.process(), signal.SIGKILL)
    wait_for(lambda: watch.run("monitor").returncode == 7, 2, "the monitor to notice")
    assert watch.run("start").returncode == 0
    assert watch.run("monitor").returncode == 0


def test_a_hanging_daemon_is_noticed_and_ended(watch: Watch) -> None:
    assert watch.run("start").returncode == 0
    os.kill(watch.process(), signal.SIGSTOP)
    time.sleep(3.0)  # as long as a heartbeat counts
    hanging = watch.run("monitor")
    assert hanging.returncode == 1
    assert "no heartbeat" in hanging.stderr
    assert watch.run("stop").returncode == 0
    assert watch.run("monitor").returncode == 7


def test_an_attribute_that_pacemaker_lost_is_written_again(watch: Watch) -> None:
    assert watch.run("start").returncode == 0
    watch.file.unlink()
    assert watch.run("monitor", CRM_meta_interval="0").returncode == 0
    assert watch.value() is None
    assert watch.run("monitor").returncode == 0
    assert watch.value() == "0"


def test_it_costs_less_than_a_hundredth_of_a_core(watch: Watch) -> None:
    assert watch.run("start").returncode == 0
    process = watch.process()
    before, began = cpu_seconds(process), time.monotonic()
    time.sleep(6.0)  # the measurement
    share = (cpu_seconds(process) - before) / (time.monotonic() - began)
    assert share < 0.01
    assert watch.writes() == ["update 0"]


def cpu_seconds(process: int) -> float:
    """CPU time of a process and of its children that ended."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")
