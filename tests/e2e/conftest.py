# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One pair for most end-to-end tests: built once by the collection's own playbook, found sound before each test."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from pair import Pair, build

from lab.lab import QUICK_DELAYS, LabSettings


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="wait for minutes where the issue asks for minutes")
    parser.addoption("--soak-nice", type=int, default=0, help="of the busy loops: 19 on a machine that others need")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests with a lab of their own come first: a process holds one emulated AWS at a time."""
    items.sort(key=lambda item: "built" in getattr(item, "fixturenames", ()))


@pytest.fixture
def broken_for(pytestconfig: pytest.Config) -> float:
    """Seconds for which the API stays of no use."""
    return 300.0 if pytestconfig.getoption("--soak") else 40.0


@pytest.fixture
def steady_for(pytestconfig: pytest.Config) -> float:
    """Seconds of steady state in which calls are counted."""
    return 600.0 if pytestconfig.getoption("--soak") else 45.0


@pytest.fixture(scope="session")
def built() -> Iterator[Pair]:
    with build(LabSettings(name=f"e2e{os.getpid()}", delays=QUICK_DELAYS)) as pair:
        yield pair


@pytest.fixture
def pair(built: Pair) -> Iterator[Pair]:
    """The pair, sound; whatever the test did to the lab is ended after it."""
    built.wait_sound()
    built.wait_replicated()
    yield built
    built.restore()
