# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The installed collection, an emulated account with a VPC, and a way to run playbooks on it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from emulated_site import Site

from lab.aws import Aws, AwsSettings
from lab.operator import install_collection

BUNDLE = Path(sys.prefix) / "bundle"


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the collection installed from its own tarball, and a key pair."""
    work = tmp_path_factory.mktemp("operator")
    (work / "logs").mkdir()
    install_collection(work / "collections", BUNDLE)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(work / "key")], check=True)
    return work


@pytest.fixture(scope="module")
def emulated(installed: Path) -> Iterator[Site]:
    with Aws(AwsSettings()) as aws:
        yield Site(aws, installed, (installed / "key.pub").read_text())


@pytest.fixture(scope="module")
def site(emulated: Site) -> Site:
    """The account as it is before the pair; what a test makes in it stays for the next ones of its file."""
    emulated.fill()
    return emulated
