# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab cleans up after itself, also after a run that was killed half-way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from lab.lab import RUN, Lab, LabSettings, purge

HALF_WAY = """
import sys, time
from lab.lab import Lab, LabSettings
lab = Lab(LabSettings(name=sys.argv[1]))
lab.up()
image = lab.ec2.describe_images(Filters=[{"Name": "name", "Values": ["debian-13-amd64-*"]}])["Images"][0]["ImageId"]
subnet = lab.account.public_subnet_id
lab.ec2.run_instances(ImageId=image, InstanceType="t3.small", MinCount=2, MaxCount=2, SubnetId=subnet, KeyName="lab")
while not all(host.is_on() for host in lab.hosts.values()) or len(lab.hosts) < 2:
    time.sleep(0.1)
print("two hosts are on", flush=True)
time.sleep(300)
"""


def traces(name: str) -> list[str]:
    """Namespaces, mounts, cgroups, processes and folders that carry a lab's name."""
    found = [str(path) for path in Path("/run/netns").glob(f"evernat-{name}-*")]
    found += [line for line in Path("/proc/self/mounts").read_text().splitlines() if f"/{name}/" in line]
    found += [str(path) for path in Path("/sys/fs/cgroup").rglob(f"*{name}*")]
    found += [str(path) for path in RUN.glob(name)]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if f"/{name}/" in command or f"evernat-{name}-" in command:
            found.append(f"process {process.name}: {command}")
    return found


def test_what_a_killed_run_left_is_removed_and_the_next_starts() -> None:
    name = f"kill{os.getpid()}"
    process = subprocess.Popen([sys.executable, "-c", HALF_WAY, name], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "two hosts are on\n"
        assert traces(name) != []
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        with Lab(LabSettings(name=name)) as lab:
            assert lab.account.vpc_id in lab.aws.snapshot().vpcs
    finally:
        process.kill()
        process.wait(10)
        purge(name)
    deadline = time.monotonic() + 10
    while traces(name) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert traces(name) == []
