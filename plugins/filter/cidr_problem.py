# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The filter `evernat.aws.cidr_problem`."""

from __future__ import annotations

import ipaddress
from typing import Any, Callable

DOCUMENTATION = r"""
name: cidr_problem
short_description: Says what is wrong with an IPv4 CIDR
version_added: 0.1.0
author:
  - evernat.aws contributors (@evernat)
description:
  - Returns one sentence that says why a text is no IPv4 network in CIDR notation, or an empty text when it is one.
options:
  _input:
    description: The text to judge, for example V(10.0.2.0/24).
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Refuse what is no network
  ansible.builtin.assert:
    that: (clients | map('evernat.aws.cidr_problem') | select | list) == []
  vars:
    clients: [10.0.2.0/24, 10.0.3.0/24]
"""

RETURN = r"""
_value:
  description: One sentence, or an empty text.
  type: str
"""


def cidr_problem(text: Any) -> str:
    """One sentence on why `text` is no IPv4 network, or ''."""
    if "/" not in str(text):
        return f"{text} is no CIDR: it has no prefix length, as in 10.0.2.0/24."
    try:
        ipaddress.IPv4Network(str(text))
    except ValueError:
        pass
    else:
        return ""
    try:
        network = ipaddress.IPv4Network(str(text), strict=False)
    except ValueError:
        return f"{text} is no CIDR of an IPv4 network."
    return f"{text} is no CIDR: it has bits behind its prefix length; the network is {network}."


class FilterModule:
    """What ansible-core loads."""

    def filters(self) -> dict[str, Callable[..., str]]:
        """Names and functions of the filters in this file."""
        return {"cidr_problem": cidr_problem}
