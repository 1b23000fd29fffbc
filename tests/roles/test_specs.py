# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""meta/argument_specs.yml is a role's documentation: it must say what defaults/main.yml does, and name what is read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = ROOT / "roles"
NAMES = sorted(path.name for path in ROLES.iterdir() if path.is_dir())


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text()) or {}


def specs(role: str) -> dict[str, Any]:
    return load(ROLES / role / "meta" / "argument_specs.yml")["argument_specs"]


def entry_points() -> list[tuple[str, str]]:
    """What the playbooks run: each role's main, and what tasks_from names."""
    named = [
        re.findall(r"name: evernat\.aws\.(\w+)\n\s+tasks_from: (\w+)", path.read_text())
        for path in (ROOT / "playbooks").glob("*.yml")
    ]
    return sorted({(role, "main") for role in NAMES}.union(*named))


def read_by(role: str, entry: str) -> set[str]:
    """The role's options in an entry point's tasks, and in the files and variables that these use."""
    variables = {name: yaml.safe_dump(value) for name, value in load(ROLES / role / "vars" / "main.yml").items()}
    texts = {path.name: path.read_text() for path in (ROLES / role).glob("t*/*") if path.suffix in {".yml", ".j2"}}
    waiting, seen, found = [f"{entry}.yml"], set(), set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        text = re.sub(r"(?m)^\s*#.*$", "", texts.get(name, variables.get(name, "")))
        if name.endswith(".j2"):
            text = " ".join(re.findall(r"(?s)\{[{%].*?[%}]\}", text))
        waiting += re.findall(r"[\w.-]+\.(?:yml|j2)\b", text) + re.findall(rf"\b__{role}_\w+", text)
        found |= set(re.findall(rf"\b{role}_\w+", text))
    return found


@pytest.mark.parametrize("role", NAMES)
def test_the_spec_says_what_the_defaults_do(role: str) -> None:
    options = {name: option for spec in specs(role).values() for name, option in spec["options"].items()}
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


@pytest.mark.parametrize(("role", "entry"), entry_points())
def test_the_spec_names_each_option_that_an_entry_point_reads(role: str, entry: str) -> None:
    assert read_by(role, entry) <= set(specs(role)[entry]["options"])


def test_what_is_read_is_found() -> None:
    assert {"cluster_egress_url", "cluster_eni_mac", "cluster_holddown"} <= read_by("cluster", "verify")
    assert {"cluster_token", "cluster_stickiness"} <= read_by("cluster", "main")
