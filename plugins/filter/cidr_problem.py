# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The filter `evernat.aws.cidr_problem`."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
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
  within:
    description: A CIDR that it must be a part of, as a subnet is of its VPC. When it is left empty, it may be anywhere.
    type: str
    default: ''
  apart_from:
    description: CIDRs that it must not overlap.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Refuse what is no network
  ansible.builtin.assert:
    that: (clients | map('evernat.aws.cidr_problem') | select | list) == []
  vars:
    clients: [10.0.2.0/24, 10.0.3.0/24]

- name: Refuse a subnet that the VPC cannot have
  ansible.builtin.assert:
    that: ('10.0.2.0/24' | evernat.aws.cidr_problem('10.0.0.0/16', ['10.0.1.0/24'])) == ''
"""

RETURN = r"""
_value:
  description: One sentence, or an empty text.
  type: str
"""


def cidr_problem(text: Any, within: str = "", apart_from: Iterable[str] = ()) -> str:
    """One sentence on why `text` is no IPv4 network, or outside of `within`, or overlaps one of `apart_from`; or ''."""
    return _form_problem(text) or _place_problem(ipaddress.IPv4Network(str(text)), within, apart_from)


def _form_problem(text: Any) -> str:
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


def _place_problem(network: ipaddress.IPv4Network, within: str, apart_from: Iterable[str]) -> str:
    if within and not network.subnet_of(ipaddress.IPv4Network(within)):
        return f"{network} is outside of {within}: give a part of {within}."
    for other in apart_from:
        if network.overlaps(ipaddress.IPv4Network(other)):
            return f"{network} overlaps {other}: give a CIDR of its own to each."
    return ""


class FilterModule:
    """What ansible-core loads."""

    def filters(self) -> dict[str, Callable[..., str]]:
        """Names and functions of the filters in this file."""
        return {"cidr_problem": cidr_problem}
