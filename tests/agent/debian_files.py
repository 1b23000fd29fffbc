# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of Debian packages that the tests read: the packages are unpacked into the cache, not installed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def unpacked(package: str) -> Path:
    """The root of an unpacked Debian package, fetched with apt where it is not yet in the cache."""
    cache = Path(os.environ.get("EVERNAT_CACHE", "/var/cache/evernat-lab")) / "packages"
    root = cache / package
    if not (root / "complete").exists():
        root.mkdir(parents=True, exist_ok=True)
        download = subprocess.run(
            ["apt-get", "download", "-q", package], cwd=root, capture_output=True, text=True, timeout=120, check=False
        )
        files = sorted(root.glob("*.deb"))
        assert files, f"the Debian package {package} could not be fetched: {download.stderr}"
        subprocess.run(["dpkg-deb", "-x", files[-1], root], check=True, timeout=60)
        (root / "complete").touch()
    return root
