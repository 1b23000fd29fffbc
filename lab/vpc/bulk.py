# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pure: the content of a bulk download. Every byte follows from its offset, so lost or repeated data is seen."""

from __future__ import annotations

import struct

BLOCK = 1024  # bytes that all carry the number of their block


def content(offset: int, length: int) -> bytes:
    """The `length` bytes of a download that begin at `offset`."""
    first, end = offset // BLOCK, -(-(offset + length) // BLOCK)
    blocks = b"".join(struct.pack("!Q", number) * (BLOCK // 8) for number in range(first, end))
    return blocks[offset - first * BLOCK :][:length]
