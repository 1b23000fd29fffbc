# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One pair for most end-to-end tests: built once by the collection's own playbook, found sound before each test."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pair import Pair

from lab.lab import Delays, Lab, LabSettings
from lab.operator import install_collection

QUICK = Delays(api=0.02, detach=0.5, attach=0.5, link=0.2)
BUNDLE = Path(sys.prefix) / "bundle"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="wait for minutes where the issue asks for minutes")


@pytest.fixture
def broken_for(pytestconfig: pytest.Config) -> float:
    """Seconds for which the API stays of no use."""
    return 300.0 if pytestconfig.getoption("--soak") else 40.0


@pytest.fixture
def steady_for(pytestconfig: pytest.Config) -> float:
    """Seconds of steady state in which calls are counted."""
    return 600.0 if pytestconfig.getoption("--soak") else 45.0


def build(settings: LabSettings) -> Iterator[Pair]:
    """A lab with a pair on it; everything is removed at the end."""
    with Lab(settings) as lab:
        install_collection(lab.operator.collections, BUNDLE)
        lab.operator.playbook("evernat.aws.site", "-e", f"@{lab.pair_file}")
        yield Pair(lab)


@pytest.fixture(scope="session")
def built() -> Iterator[Pair]:
    yield from build(LabSettings(name=f"e2e{os.getpid()}", delays=QUICK))


@pytest.fixture
def pair(built: Pair) -> Iterator[Pair]:
    """The pair, sound; whatever the test did to the lab is ended after it."""
    built.wait_sound()
    yield built
    built.restore()
