# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Iterator

import agent_world
import pytest


@pytest.fixture(scope="session")
def whole_world() -> Iterator[agent_world.World]:
    with agent_world.world() as made:
        yield made


@pytest.fixture
def world(whole_world: agent_world.World) -> agent_world.World:
    """Two hosts, nobody holds the interface, nothing is wrong."""
    whole_world.reset()
    return whole_world
