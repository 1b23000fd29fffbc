# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""EC2's refusals, as moto's exception class that its serialiser knows."""

from __future__ import annotations

from moto.ec2.exceptions import EC2ClientError


def refusal(code: str, message: str) -> EC2ClientError:
    """The error that EC2 answers with this code and message (HTTP 400)."""
    return EC2ClientError(code, message)
