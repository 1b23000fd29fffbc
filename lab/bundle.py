# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take amazon.aws out of the wheel of the PyPI package `ansible`, in a shape that ansible-galaxy can build."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import yaml

PREFIX = "ansible_collections/amazon/aws/"


def unbundle(wheel: Path, target: Path) -> Path:
    """Unpack amazon.aws of `wheel` below `target`; returns the collection's folder."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target, [name for name in archive.namelist() if name.startswith(PREFIX)])
    collection = target / PREFIX
    info = json.loads((collection / "MANIFEST.json").read_text())["collection_info"]
    # The wheel leaves out files that MANIFEST.json counts, so it is built anew from galaxy.yml.
    for name in ("MANIFEST.json", "FILES.json"):
        (collection / name).unlink()
    if info.get("license"):
        info.pop("license_file", None)
    wanted = {key: value for key, value in info.items() if value not in (None, [], {}, "")}
    (collection / "galaxy.yml").write_text(yaml.safe_dump(wanted))
    return collection


if __name__ == "__main__":
    print(unbundle(Path(sys.argv[1]), Path(sys.argv[2])))
