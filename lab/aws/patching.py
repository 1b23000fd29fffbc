# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How moto's code is replaced: by assignment, once, and only where the thing replaced exists."""

from __future__ import annotations

from typing import Any


def replace(owner: Any, name: str, new: Any) -> Any:
    """Put `new` in the place of an attribute of moto and return what was there.

    Raises AttributeError if moto has no such attribute: then the patch is for another version.
    """
    old = getattr(owner, name)
    setattr(owner, name, new)
    return old


def add(owner: Any, name: str, new: Any) -> None:
    """Give an attribute to a class of moto that has none of this name."""
    if hasattr(owner, name):
        raise AttributeError(f"{owner!r} has an attribute {name!r} already")
    setattr(owner, name, new)
