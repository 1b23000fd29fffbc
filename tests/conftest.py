# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make `ansible_collections.evernat.aws` importable from a plain checkout, as ansible-test does from its own tree."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def _is_importable() -> bool:
    try:
        return importlib.util.find_spec("ansible_collections.evernat.aws") is not None
    except ModuleNotFoundError:
        return False


def _link_collections() -> tempfile.TemporaryDirectory[str]:
    """A folder `ansible_collections` of links: this checkout, and the amazon.aws that the virtualenv holds."""
    tree = tempfile.TemporaryDirectory(prefix="evernat-collections-")
    collections = Path(tree.name) / "ansible_collections"
    (collections / "evernat").mkdir(parents=True)
    (collections / "evernat" / "aws").symlink_to(ROOT)
    amazon = Path(sys.prefix) / "collections" / "ansible_collections" / "amazon"
    if amazon.is_dir():
        (collections / "amazon").symlink_to(amazon)
    sys.path.insert(0, tree.name)
    return tree


if not _is_importable():
    _TREE = _link_collections()
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
