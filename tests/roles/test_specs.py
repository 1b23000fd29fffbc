# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""meta/argument_specs.yml is a role's documentation: it must say what defaults/main.yml does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

ROLES = Path(__file__).resolve().parents[2] / "roles"


def load(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text()) or {}


@pytest.mark.parametrize("role", sorted(path.name for path in ROLES.iterdir() if path.is_dir()))
def test_the_spec_says_what_the_defaults_do(role: str) -> None:
    options = load(ROLES / role / "meta" / "argument_specs.yml")["argument_specs"]["main"]["options"]
    defaults = load(ROLES / role / "defaults" / "main.yml")
    required = {name for name, option in options.items() if option.get("required")}
    assert set(options) - required == set(defaults)
    assert required.isdisjoint(defaults)
    for name, option in options.items():
        assert name.startswith(f"{role}_")
        assert option["description"]
        if "default" in option:
            assert defaults[name] == option["default"], name
        elif name not in required:
            assert "{{" in defaults[name], f"{name} has a fixed default that the spec does not tell"
