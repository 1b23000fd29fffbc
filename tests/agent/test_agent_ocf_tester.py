# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""resource-agents' own ocf-tester on both agents, in a host's namespace."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from agent_world import PRIVATE_IP, REGION, World
from attrd import install_attrd
from debian_files import unpacked

pytestmark = pytest.mark.root

ATTRIBUTE = f"barred-{os.getpid()}"


@pytest.mark.parametrize("agent", ["eni", "watch"])
def test_ocf_tester_passes(world: World, agent: str) -> None:
    assert shutil.which("xmllint"), "xmllint is missing: install the Debian package libxml2-utils"
    root = unpacked("resource-agents")
    tester = world.folder / "ocf-tester"
    # Where Debian's package would have put its DTD.
    script = (root / "usr/sbin/ocf-tester").read_text()
    tester.write_text(script.replace("DATADIR=/usr/share", f"DATADIR={root}/usr/share"))
    install_attrd(world)
    environ = world.environ()
    options = {
        "mac_address": world.mac,
        "private_ip": PRIVATE_IP,
        "region": REGION,
        "endpoint": environ["OCF_RESKEY_endpoint"],
        **({"attribute": ATTRIBUTE} if agent == "watch" else {}),
        **({"interface_id": world.interface_id, "subnet": "10.0.1.0/24"} if agent == "eni" else {}),
    }
    argv = ["sh", str(tester), "-v", "-n", agent]
    for name, value in options.items():
        argv += ["-o", f"{name}={value}"]
    plain = {"PATH": environ["PATH"], "HA_LOGFACILITY": "none", "OCF_ROOT": str(world.folder / "ocf")}
    done = world.in_host("a", *argv, str(world.agents / agent), check=False, env=plain, timeout=120)
    Path(f"/run/evernat-{ATTRIBUTE}.watch").unlink(missing_ok=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed all tests" in done.stdout
