# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Entry of both agents: `python3 -I -S FOLDER eni|watch ACTION`."""

from __future__ import annotations

import sys


def main() -> int:
    name, arguments = (sys.argv[1] if len(sys.argv) > 1 else ""), sys.argv[2:]
    if name == "eni":
        import eni

        return eni.AGENT.main(arguments)
    if name == "watch":
        import watch

        return watch.AGENT.main(arguments)
    sys.stderr.write("usage: evernat eni|watch ACTION\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
