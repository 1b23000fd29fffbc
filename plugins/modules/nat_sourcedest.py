#!/usr/bin/python
# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: nat_sourcedest
version_added: 0.1.0
short_description: Switch the source/destination check of network interfaces
description:
  - EC2 drops packets that an instance forwards, unless the source/destination check of the network interface they
    pass is off. This module switches it, for each network interface by itself, and reads it back.
  - Works on instances with several network interfaces, for which EC2 refuses ModifyInstanceAttribute.
author:
  - evernat.aws contributors (@evernat)
extends_documentation_fragment:
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
  - evernat.aws._attributes
options:
  instance_ids:
    description:
      - The instances whose network interfaces are meant. See O(interfaces).
      - At least one of O(instance_ids) and O(eni_ids) is needed.
    type: list
    elements: str
  eni_ids:
    description: The IDs of network interfaces, attached or not.
    type: list
    elements: str
  source_dest_check:
    description: Whether EC2 shall check that an interface's packets are from or to its own addresses.
    type: bool
    default: false
  interfaces:
    description: Which network interfaces of O(instance_ids) are meant, V(all) of them or the V(primary) one.
    type: str
    choices: [all, primary]
    default: all
  wait_timeout:
    description: The seconds that the whole task may take, with all calls, retries and reading back.
    type: float
    default: 60.0
seealso:
  - module: evernat.aws.eni_move
"""

EXAMPLES = r"""
- name: Let two instances and the network interface that moves between them forward packets
  evernat.aws.nat_sourcedest:
    instance_ids:
      - i-0123456789abcdef0
      - i-0fedcba9876543210
    eni_ids:
      - eni-0123456789abcdef0

- name: Check again on the primary network interface of one that no longer forwards
  evernat.aws.nat_sourcedest:
    instance_ids:
      - i-0123456789abcdef0
    interfaces: primary
    source_dest_check: true
"""

RETURN = r"""
interfaces:
  description: The network interfaces that were meant, by ID.
  returned: success, or failure after the first change
  type: list
  elements: dict
  contains:
    eni_id:
      description: The ID of the network interface.
      type: str
      sample: eni-0123456789abcdef0
    instance_id:
      description: The instance that holds it, V(null) if none does.
      type: str
      sample: i-0123456789abcdef0
    device_index:
      description: Its device index, V(null) if no instance holds it.
      type: int
      sample: 1
    before:
      description: Whether its check was on.
      type: bool
      sample: true
    after:
      description: Whether its check is on; in check mode, whether it would be.
      type: bool
      sample: false
"""

from ansible_collections.evernat.aws.plugins.module_utils._ec2 import Ec2, Failure, connect_by, make_module
from ansible_collections.evernat.aws.plugins.module_utils._eni_move import MonotonicClock
from ansible_collections.evernat.aws.plugins.module_utils._sourcedest import run


def main() -> None:
    module = make_module(
        argument_spec={
            "instance_ids": {"type": "list", "elements": "str"},
            "eni_ids": {"type": "list", "elements": "str"},
            "source_dest_check": {"type": "bool", "default": False},
            "interfaces": {"type": "str", "choices": ["all", "primary"], "default": "all"},
            "wait_timeout": {"type": "float", "default": 60.0},
        },
        required_one_of=[("instance_ids", "eni_ids")],
    )
    clock = MonotonicClock()
    deadline = clock.now() + module.params["wait_timeout"]
    try:
        result = run(module.params, module.check_mode, Ec2(connect_by(module), clock, deadline))
    except Failure as failure:
        module.fail_json(msg=str(failure), **failure.details)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
