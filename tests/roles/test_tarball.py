# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The built tarball installs into an empty path without a network, and documents itself there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.operator import BUNDLE, install_collection

MODULES = ("eni_move", "nat_sourcedest")
ROLES = ("provision", "router", "cluster")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A path that holds the installed tarballs of this collection and of amazon.aws, and nothing else."""
    target = tmp_path_factory.mktemp("collections")
    install_collection(target, BUNDLE)
    return target


def ansible_doc(installed: Path, *arguments: str) -> dict[str, dict]:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-doc"), "--json", *arguments],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(installed), "ANSIBLE_HOME": str(installed / "home")},
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("module", MODULES)
def test_modules_are_documented(installed: Path, module: str) -> None:
    page = ansible_doc(installed, f"evernat.aws.{module}")[f"evernat.aws.{module}"]
    assert f"evernat.aws.{module}:" in page["examples"]
    assert page["return"]
    assert all(option["description"] for option in page["doc"]["options"].values())


@pytest.mark.parametrize("role", ROLES)
def test_roles_are_documented(installed: Path, role: str) -> None:
    page = ansible_doc(installed, "--type", "role", f"evernat.aws.{role}")[f"evernat.aws.{role}"]
    options = page["entry_points"]["main"]["options"]
    assert options
    assert all(option.get("description") for option in options.values())


def test_the_tarball_holds_the_product_alone(installed: Path) -> None:
    collection = installed / "ansible_collections" / "evernat" / "aws"
    assert sorted(path.name for path in collection.iterdir() if path.name in ("lab", "tests", ".ci")) == []
    assert (collection / "roles" / "cluster" / "files" / "ocf" / "resource.d" / "evernat" / "eni").exists()
