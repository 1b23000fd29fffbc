# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prints what the URL (first argument) answers to a request from the given source address (second argument)."""

from __future__ import annotations

import http.client
import sys
from urllib.parse import urlsplit

TIMEOUT = 10.0  # seconds, for each step of the connection


def main(url: str, source: str) -> int:
    """Print the answer's body; 1 with a sentence on stderr if there is none."""
    target = urlsplit(url)
    kind = http.client.HTTPSConnection if target.scheme == "https" else http.client.HTTPConnection
    connection = kind(target.hostname or "", target.port, timeout=TIMEOUT, source_address=(source, 0))
    try:
        connection.request("GET", target._replace(scheme="", netloc="", path=target.path or "/", fragment="").geturl())
        answer = connection.getresponse()
        body = answer.read(1024).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        print(f"no answer from {url} to {source}: {error}", file=sys.stderr)
        return 1
    if answer.status != 200:
        print(f"{url} answered {answer.status}", file=sys.stderr)
        return 1
    print(body.strip())
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
