# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agents' meta-data against the schemas of those who read it.

resource-agents' and pcs's are taken from their Debian packages. OCF 1.1's own ra-api.rng is under the GNU Free
Documentation License and in no package, so its rules are put in our own words here.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from agent_world import install_agent
from debian_files import unpacked
from lxml import etree

SCHEMAS = {
    "resource-agents": ("resource-agents", "usr/share/resource-agents/metadata.rng"),
    "pcs": ("pcs", "usr/share/pcs/data/ocf-1.1.rng"),
}
DTD = ("resource-agents", "usr/share/resource-agents/ra-api-1.dtd")
PARTS = ["version", "longdesc", "shortdesc", "parameters", "actions"]
CONTENT_TYPES = {"boolean", "string", "integer"}


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install_agent(tmp_path_factory.mktemp("ocf"))


@pytest.fixture(params=["eni", "watch"])
def metadata(agents: Path, request: pytest.FixtureRequest) -> Any:
    """As it is printed by the process, with no environment at all."""
    done = subprocess.run([agents / request.param, "meta-data"], env={}, capture_output=True, timeout=20, check=True)
    assert done.stderr == b""
    return etree.fromstring(done.stdout)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_the_schema_accepts_it(metadata: Any, schema: str) -> None:
    package, path = SCHEMAS[schema]
    etree.RelaxNG(file=str(unpacked(package) / path)).assertValid(metadata)


def test_the_dtd_of_ocf_tester_accepts_it(metadata: Any) -> None:
    package, path = DTD
    etree.DTD(str(unpacked(package) / path)).assertValid(metadata)


def test_it_follows_ocf_1_1(metadata: Any) -> None:
    assert metadata.tag == "resource-agent"
    assert metadata.get("name")
    assert [part.tag for part in metadata] == PARTS
    assert metadata.findtext("version") == "1.1"
    assert all(part.get("lang") for part in metadata.iter("longdesc", "shortdesc"))
    for parameter in metadata.find("parameters"):
        assert set(parameter.attrib) <= {"name", "unique", "unique-group", "required", "reloadable"}
        assert all(parameter.get(flag) in ("0", "1", None) for flag in ("unique", "required", "reloadable"))
        assert [part.tag for part in parameter] == ["longdesc", "shortdesc", "content"]
        assert parameter.find("content").get("type") in CONTENT_TYPES
        assert set(parameter.find("content").attrib) <= {"type", "default"}
    for action in metadata.find("actions"):
        assert (
            {"name", "timeout"} <= set(action.attrib) <= {"name", "timeout", "interval", "start-delay", "depth", "role"}
        )
    names = {action.get("name") for action in metadata.find("actions")}
    assert {"start", "stop", "monitor", "meta-data"} <= names


def test_what_was_written_down_is_printed_and_serves_no_other_action(tmp_path: Path) -> None:
    agents = install_agent(tmp_path)
    (tmp_path / "lib/evernat/eni.xml").write_text("written down\n")

    def run(*arguments: str) -> bytes:
        return subprocess.run([agents / "eni", *arguments], env={}, capture_output=True, timeout=20, check=False).stdout

    assert run("meta-data") == b"written down\n"
    assert run("usage").startswith(b"usage: eni {")
    assert run("meta-data", "twice") == b""
