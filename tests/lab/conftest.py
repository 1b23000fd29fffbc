# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An emulated account for the conformance tests: one server a file, filled anew for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conformance import Account, account


@pytest.fixture(scope="module")
def server() -> Iterator[Account]:
    with account() as made:
        yield made


@pytest.fixture
def aws(server: Account) -> Account:
    server.fill()
    return server
