# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts behave like machines: they boot Debian, install packages, lose power, freeze, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.hosts import cgroup, image
from lab.hosts.errors import HostError, HostTimeout
from lab.hosts.host import File, Host, purge
from lab.hosts.wait import wait_until

RUN = f"evernat-test-hosts-{os.getpid()}"
STATE_ROOT = Path("/run/evernat-lab") / RUN
CAP_SYS_MODULE, CAP_SYS_RAWIO, CAP_SYS_TIME = 16, 17, 25  # linux/capability.h
ADDRESSES = {"a": "10.254.0.1", "b": "10.254.0.2"}


@dataclass(frozen=True)
class Pair:
    """Two hosts on one link, and the key that opens both."""

    release: str
    a: Host
    b: Host
    ssh_key: Path

    def from_b(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the machine in b's place in the network."""
        return subprocess.run(["ip", "netns", "exec", self.b.netns, *argv], capture_output=True, text=True, timeout=30)

    def ssh_to_a(self, command: str) -> subprocess.CompletedProcess[str]:
        options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes"]
        return self.from_b("ssh", *options, "-i", str(self.ssh_key), f"admin@{ADDRESSES['a']}", command)


def ip(*argv: str) -> None:
    subprocess.run(["ip", *argv], check=True, timeout=10)


@pytest.fixture(scope="module", autouse=True)
def no_empty_folder_is_left() -> Iterator[None]:
    yield
    with suppress(OSError):  # somebody else's lab may be in it
        STATE_ROOT.parent.rmdir()


@contextmanager
def namespaces(*names: str) -> Iterator[None]:
    try:
        for name in names:
            ip("netns", "add", f"{RUN}-{name}")
            ip("-n", f"{RUN}-{name}", "link", "set", "lo", "up")
        yield
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", f"{RUN}-{name}"], capture_output=True, timeout=10)


def link_up() -> None:
    """One link from a to b."""
    ip("-n", f"{RUN}-a", "link", "add", "ens5", "type", "veth", "peer", "name", "ens5", "netns", f"{RUN}-b")
    for name, address in ADDRESSES.items():
        ip("-n", f"{RUN}-{name}", "address", "add", f"{address}/24", "dev", "ens5")
        ip("-n", f"{RUN}-{name}", "link", "set", "ens5", "up")


@pytest.fixture(scope="module", params=image.RELEASES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    key = tmp_path_factory.mktemp("ssh") / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True, timeout=10)
    public = File(key.with_suffix(".pub").read_text(), mode=0o600, owner=image.ADMIN_UID)
    root = image.ensure(request.param)
    a, b = (Host(name, root, STATE_ROOT, f"{RUN}-{name}", f"host-{name}") for name in ADDRESSES)
    with namespaces(*ADDRESSES):
        try:
            link_up()
            for host in (a, b):
                host.boot({"/home/admin/.ssh/authorized_keys": public})
            for host in (a, b):
                host.wait_running()
            yield Pair(request.param, a, b, key)
        finally:
            purge(STATE_ROOT)


@pytest.fixture
def lone() -> Iterator[Host]:
    """A host that nobody has booted yet, with a state root of its own."""
    root = STATE_ROOT.with_name(f"{RUN}-lone")
    with namespaces("lone"):
        try:
            yield Host("lone", image.ensure(image.RELEASES[0]), root, f"{RUN}-lone", "lone")
        finally:
            purge(root)


def boot_again(host: Host) -> None:
    host.boot()
    host.wait_running()


def answer(host: Host, *argv: str) -> str:
    return host.run(argv, check=True).stdout.strip()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.root
class TestBoot:
    def test_both_hosts_run_the_release_with_names_of_their_own(self, pair: Pair) -> None:
        for host in (pair.a, pair.b):
            assert answer(host, "systemctl", "is-system-running") == "running"
            assert f"VERSION_CODENAME={pair.release}" in answer(host, "cat", "/etc/os-release")
            assert answer(host, "hostname") == host.hostname
        for identity in ("/etc/machine-id", "/proc/sys/kernel/random/boot_id"):
            assert answer(pair.a, "cat", identity) != answer(pair.b, "cat", identity)

    def test_a_second_boot_is_refused_while_the_first_runs(self, pair: Pair) -> None:
        with pytest.raises(HostError, match="already on"):
            pair.a.boot()

    def test_a_boot_that_cannot_start_says_why(self, pair: Pair) -> None:
        lost = Host("lost", pair.a.image, STATE_ROOT, f"{RUN}-no-such-namespace", "lost")
        with pytest.raises(HostError, match="no-such-namespace"):
            lost.boot()
        lost.destroy()

    def test_the_machine_s_kernel_and_clock_are_out_of_reach_and_the_network_is_not(self, pair: Pair) -> None:
        same_value = "value=$(cat /proc/sys/kernel/panic) && echo $value >/proc/sys/kernel/panic"
        assert "Read-only file system" in pair.a.run(["sh", "-c", same_value]).stderr
        assert answer(pair.a, "sysctl", "-w", "net.ipv4.ip_forward=1") == "net.ipv4.ip_forward = 1"
        # Looked up, not tried: a test that fails must not set the clock of the machine it runs on.
        for process in ("1", "self"):
            status = answer(pair.a, "cat", f"/proc/{process}/status")
            bounding, effective = (
                int(status.partition(f"{field}:")[2].split()[0], 16) for field in ("CapBnd", "CapEff")
            )
            for capability in (CAP_SYS_MODULE, CAP_SYS_RAWIO, CAP_SYS_TIME):
                assert not (bounding | effective) >> capability & 1

    def test_run_takes_input_and_reports_failure(self, pair: Pair) -> None:
        assert pair.a.run(["cat"], input="round trip").stdout == "round trip"
        assert pair.a.run(["false"]).returncode == 1
        with pytest.raises(HostError, match=r"ls .*No such file"):
            pair.a.run(["ls", "/nowhere"], check=True)
        with pytest.raises(HostTimeout, match="sleep 60 took longer"):
            pair.a.run(["sleep", "60"], timeout=0.2)
        assert pair.a.run(["pgrep", "-x", "sleep"]).stdout == ""


@pytest.mark.root
class TestSsh:
    def test_admin_logs_in_by_key_and_may_become_root(self, pair: Pair) -> None:
        login = pair.ssh_to_a("id -un; sudo -n id -un")
        assert login.stdout.split() == ["admin", "root"], login.stderr

    def test_nothing_but_a_key_opens_a_host(self, pair: Pair) -> None:
        refused = pair.from_b(
            "ssh", "-v", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes",
            "-i", "/dev/null", f"admin@{ADDRESSES['a']}", "true",
        )  # fmt: skip
        assert refused.returncode == 255
        assert "Permission denied (publickey)" in refused.stderr

    def test_each_host_has_keys_of_its_own(self, pair: Pair) -> None:
        keys = [
            {line.split()[2] for line in pair.from_b("ssh-keyscan", address).stdout.splitlines()}
            for address in ADDRESSES.values()
        ]
        assert all(keys)
        assert not keys[0] & keys[1]


@pytest.mark.root
class TestPower:
    def test_packages_install_without_a_network_and_debian_starts_their_units(self, pair: Pair) -> None:
        assert pair.a.run(["ip", "route", "show", "default"]).stdout == ""
        pair.a.run(["apt-get", "update"], check=True)
        pair.a.run(
            ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes", "corosync", "pacemaker"],
            timeout=120,
            check=True,
        )
        assert answer(pair.a, "systemctl", "is-active", "corosync", "pacemaker").split() == ["active", "active"]
        # Corosync gets the real-time class that it asks for: it would miss its token under load without.
        assert os.sched_getscheduler(pair.a.daemon_pid("corosync")) & ~os.SCHED_RESET_ON_FORK == os.SCHED_RR

    def test_a_power_cut_kills_all_at_once_and_the_disk_boots_again(self, pair: Pair) -> None:
        host = pair.a
        before = host.pids()
        boot_id = answer(host, "cat", "/proc/sys/kernel/random/boot_id")
        answer(host, "sh", "-c", "echo kept >/root/note; logger -t evernat-test written before the cut")
        started = time.monotonic()
        host.power_cut()
        assert time.monotonic() - started < 1.0
        assert len(before) > 5
        assert not [pid for pid in before if is_alive(pid)]
        assert host.pids() == []
        assert not host.is_on()
        with pytest.raises(HostError, match="is off"):
            host.run(["true"])
        assert "written before the cut" in host.journal("-t", "evernat-test")
        boot_again(host)
        assert answer(host, "cat", "/root/note") == "kept"
        assert answer(host, "cat", "/proc/sys/kernel/random/boot_id") != boot_id
        assert answer(host, "hostname") == "host-a"

    def test_ten_power_cuts_in_a_row_leave_a_host_that_runs(self, pair: Pair) -> None:
        for _ in range(10):
            pair.b.power_cut()
            boot_again(pair.b)

    def test_another_process_can_act_on_the_same_host(self, pair: Pair) -> None:
        twin = Host("b", pair.b.image, STATE_ROOT, pair.b.netns, pair.b.hostname)
        assert answer(twin, "hostname") == "host-b"
        twin.power_cut()
        assert not pair.b.is_on()
        boot_again(pair.b)

    def test_a_shutdown_is_graceful(self, pair: Pair) -> None:
        assert pair.b.shutdown()
        assert not pair.b.is_on()
        assert pair.b.shutdown()  # off already
        boot_again(pair.b)

    def test_a_host_may_power_itself_off(self, pair: Pair) -> None:
        pair.b.run(["systemctl", "poweroff"])
        deadline = time.monotonic() + 20
        while pair.b.is_on():
            assert time.monotonic() < deadline, "still on after 20 s"
            time.sleep(0.05)
        boot_again(pair.b)

    def test_files_are_written_before_init_starts(self, pair: Pair) -> None:
        pair.b.power_cut()
        pair.b.boot(
            {"/etc/new folder/secret": File(b"\0\1", mode=0o640, owner=image.ADMIN_UID), "/etc/motd": "hello\n"}
        )
        pair.b.wait_running()
        assert answer(pair.b, "stat", "-c", "%a %U %G %s", "/etc/new folder/secret") == "640 admin admin 2"
        assert answer(pair.b, "cat", "/etc/motd") == "hello"
        assert answer(pair.b, "stat", "-c", "%a %U", "/etc") == "755 root"


@pytest.mark.root
class TestFreeze:
    def test_user_space_stops_the_kernel_goes_on_and_a_thaw_resumes(self, pair: Pair) -> None:
        ticker = "nohup sh -c 'while :; do date +%N >/run/tick; sleep 0.01; done' >/dev/null 2>&1 &"
        pair.a.run(["sh", "-c", ticker], check=True)
        tick = ["cat", f"/proc/{pair.a.init_pid()}/root/run/tick"]

        def ticks() -> bool:
            first = subprocess.run(tick, capture_output=True, timeout=5).stdout
            time.sleep(0.2)
            return subprocess.run(tick, capture_output=True, timeout=5).stdout != first

        assert ticks()
        pair.a.freeze()
        try:
            assert not ticks()
            assert pair.from_b("ping", "-c", "3", "-i", "0.1", "-W", "1", ADDRESSES["a"]).returncode == 0
            with pytest.raises(HostTimeout):
                pair.a.run(["true"], timeout=0.3)
        finally:
            pair.a.thaw()
        assert ticks()
        assert answer(pair.a, "echo", "awake") == "awake"
        pair.a.run(["pkill", "-f", "run/tick"])

    def test_a_frozen_host_can_lose_its_power(self, pair: Pair) -> None:
        pair.b.freeze()
        pair.b.power_cut()
        assert not pair.b.is_on()
        boot_again(pair.b)


class TestThrottle:
    def test_all_of_a_host_share_a_part_of_one_cpu_until_it_ends(self, pair: Pair) -> None:
        loops = "for i in 1 2; do timeout 4 sh -c 'while :; do :; done' & done; wait; times"
        with ThreadPoolExecutor(1) as pool:
            run = pool.submit(pair.a.run, ["sh", "-c", loops])
            wait_until("the loops run", lambda: has_begun(pair.a, "timeout"), 10, lambda: str(pair.a.pids()))
            pair.a.throttle(0.1)
            try:
                assert answer(pair.a, "echo", "slow") == "slow"
                used = run.result().stdout.split()[2]  # of the children, in user space: 8 s if nothing held them
            finally:
                pair.a.throttle(0)
        assert float(used.removeprefix("0m").removesuffix("s")) < 4
        assert list(cgroup.CPU_V1.glob(f"{cgroup.PARENT}-*{RUN}*")) == []

    def test_a_throttled_host_can_lose_its_power(self, pair: Pair) -> None:
        pair.b.throttle(0.1)
        pair.b.power_cut()
        assert list(cgroup.CPU_V1.glob(f"{cgroup.PARENT}-*{RUN}*")) == []
        boot_again(pair.b)


def has_begun(host: Host, name: str) -> bool:
    with suppress(HostError):
        return host.daemon_pid(name) > 0
    return False


# A run of the lab that boots a host, starts a command on it, and then hangs until it is killed.
DOOMED_RUN = """
import sys, threading, time
from pathlib import Path
from lab.hosts.host import Host
image, state_root, netns, moment = sys.argv[1:]
host = Host("lone", Path(image), Path(state_root), netns, "lone")
host.boot()
if moment == "running":
    host.wait_running()
    threading.Thread(target=host.run, args=(["sleep", "600"], None, 600), daemon=True).start()
print("up", flush=True)
time.sleep(600)
"""


@pytest.mark.root
@pytest.mark.parametrize("moment", ["booting", "running"])
def test_purge_removes_all_that_a_killed_run_left(lone: Host, moment: str) -> None:
    state_root = lone.state.parent
    run = subprocess.Popen(
        [sys.executable, "-c", DOOMED_RUN, str(lone.image), str(state_root), lone.netns, moment],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
    with run:
        assert run.stdout is not None
        assert run.stdout.readline() == "up\n"
        run.send_signal(signal.SIGKILL)
    group = cgroup.base(state_root)
    left = cgroup.pids(group)
    assert left, "a killed run leaves its hosts on: that is what purge is for"
    purge(state_root)
    assert not [pid for pid in left if is_alive(pid)]
    assert not group.exists()
    assert not state_root.exists()
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    assert not [mount for mount in mounts if str(state_root) in mount or str(lone.image) in mount]
    purge(state_root)  # nothing there: nothing to do


@pytest.mark.root
def test_destroy_leaves_nothing_of_one_host(lone: Host) -> None:
    lone.boot()
    group = cgroup.base(lone.state.parent)
    assert [folder.name for folder in group.iterdir() if folder.is_dir()] == ["lone.1"]
    pids = lone.pids()
    lone.destroy()
    assert not [pid for pid in pids if is_alive(pid)]
    assert not lone.state.exists()
    assert not [folder for folder in group.iterdir() if folder.is_dir()]
    assert subprocess.run(["pgrep", "-f", str(lone.state)], capture_output=True, timeout=5).stdout == b""


class TestImageSources:
    def test_the_machine_s_debian_sites_serve_other_releases_too(self) -> None:
        targets = (
            "Debian bookworm http://mirror.example/debian/\n"
            "Debian bookworm-updates http://mirror.example/debian/\n"
            "Debian bookworm-security http://mirror.example/security/\n"
            "Elsewhere stable https://packages.example/apt/\n"
        )
        lines = [line.split("] ")[-1].removeprefix("deb ") for line in image.debian_sources("trixie", targets)]
        assert lines == [
            "http://mirror.example/debian/ trixie main",
            "http://mirror.example/debian/ trixie-updates main",
            "http://mirror.example/security/ trixie-security main",
        ]

    @pytest.mark.parametrize(
        "targets", ["", "Ubuntu noble http://ubuntu.example/\n", " bookworm http://not.fetched/\n"]
    )
    def test_a_machine_without_debian_s_sources_leaves_the_choice_to_mmdebstrap(self, targets: str) -> None:
        assert image.debian_sources("trixie", targets) == []

    def test_an_unknown_release_is_refused_before_anything_is_built(self) -> None:
        with pytest.raises(image.ImageError, match="sid"):
            image.ensure("sid")

    def test_the_cache_key_tells_the_releases_apart(self) -> None:
        assert image.recipe_key("trixie") != image.recipe_key("bookworm")
        assert image.recipe_key("trixie") == image.recipe_key("trixie")
