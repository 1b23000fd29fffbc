# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The filter `evernat.aws.address_problem`."""

from __future__ import annotations

import ipaddress
from typing import Any, Callable

DOCUMENTATION = r"""
name: address_problem
short_description: Says why an address cannot be a private IP in a subnet of a VPC
version_added: 0.1.0
author:
  - evernat.aws contributors (@evernat)
description:
  - Returns one sentence that says why EC2 would not give an address to an interface in a subnet,
    or an empty text when it could.
  - Whether the address is taken is not known to this filter.
options:
  _input:
    description: The address, for example V(10.0.1.100).
    type: str
    required: true
  subnet:
    description: The subnet's CIDR. When it is left empty, only the address's form is judged.
    type: str
    default: ''
"""

EXAMPLES = r"""
- name: Refuse an address that the subnet cannot give
  ansible.builtin.assert:
    that: ('10.0.1.100' | evernat.aws.address_problem('10.0.1.0/24')) == ''
"""

RETURN = r"""
_value:
  description: One sentence, or an empty text.
  type: str
"""

# EC2 keeps the first four addresses of a subnet (network, router, DNS, future use) and the last one.
RESERVED_AT_START = 4


def address_problem(address: Any, subnet: str = "") -> str:
    """One sentence on why `address` cannot be an interface's in `subnet` (a CIDR), or ''."""
    try:
        wanted = ipaddress.IPv4Address(str(address))
    except ValueError:
        return f"{address} is no IPv4 address."
    if not subnet:
        return ""
    network = ipaddress.IPv4Network(subnet)
    if wanted not in network:
        return f"{wanted} is outside the subnet {network}."
    if int(wanted) - int(network.network_address) < RESERVED_AT_START or wanted == network.broadcast_address:
        return f"{wanted} is reserved by AWS: the first four addresses and the last one of {network} cannot be used."
    return ""


class FilterModule:
    """What ansible-core loads."""

    def filters(self) -> dict[str, Callable[..., str]]:
        """Names and functions of the filters in this file."""
        return {"address_problem": address_problem}
