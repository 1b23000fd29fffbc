# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong with a host."""

from __future__ import annotations


class HostError(Exception):
    """A host could not do what was asked of it; the message says what, and what was seen."""


class HostTimeout(HostError):
    """Something did not happen in time; the message says what, how long, and what was seen last."""
