# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for attrd_updater: keeps attributes as files, and writes down what it was asked with the time."""

from __future__ import annotations

from pathlib import Path

from agent_world import World

SCRIPT = r"""#!/bin/sh
# attrd_updater --name NAME --update VALUE | --delete | --query
file=FOLDER/$2
read -r now _ </proc/uptime
case $3 in
--update) echo "$4" >"$file"; echo "$now update $4" >>"$file.log" ;;
--delete) rm -f "$file"; echo "$now delete" >>"$file.log" ;;
--query) [ -e "$file" ] || exit 105; printf 'name="%s" host="h" value="%s"\n' "$2" "$(cat "$file")" ;;
esac
"""


def install_attrd(world: World) -> Path:
    """Puts it first in the PATH of the world's agents; returns the folder of the attributes."""
    folder = world.folder / "attributes"
    folder.mkdir(exist_ok=True)
    binary = world.folder / "bin" / "attrd_updater"
    binary.parent.mkdir(exist_ok=True)
    binary.write_text(SCRIPT.replace("FOLDER", str(folder)))
    binary.chmod(0o755)
    return folder
