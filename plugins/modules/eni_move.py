#!/usr/bin/python
# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: eni_move
version_added: 0.1.0
short_description: Move an Elastic Network Interface from one EC2 instance to another
description:
  - Brings an existing Elastic Network Interface (ENI) to an instance, or off its instance.
    The ENI is never created or deleted.
  - EC2 has no call that moves an ENI. This module detaches the attachment that it has read, and attaches only when the
    ENI is free, so of two controllers that move the same ENI exactly one succeeds.
  - After an error, a lost reply or a lost race it reads again and tells the truth. The task succeeds if the wanted
    instance holds the ENI, and otherwise fails with a message that names the holder.
  - What EC2 would refuse half-way is checked before the first change. The instance exists, is not terminated, is in the
    ENI's availability zone, its device index is free and its type takes one more interface.
    The ENI is neither a primary interface nor managed by an AWS service.
author:
  - evernat.aws contributors (@evernat)
extends_documentation_fragment:
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
  - evernat.aws._attributes
options:
  eni_id:
    description:
      - The ID of the network interface.
      - Exactly one of O(eni_id) and O(filters) is needed.
    type: str
  filters:
    description:
      - Finds the network interface by the filters of
        U(https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeNetworkInterfaces.html).
      - They must match exactly one network interface.
    type: dict
  state:
    description:
      - V(attached) brings the network interface to O(instance_id).
      - V(detached) frees it.
    type: str
    choices: [attached, detached]
    default: attached
  instance_id:
    description:
      - The instance that shall hold the network interface.
      - Needed with O(state=attached), and refused with O(state=detached).
    type: str
  device_index:
    description:
      - The device index for a new attachment, 1 or more.
      - By default the first one from 1 that is free.
      - If the instance holds the network interface at another index already, the task fails.
    type: int
  from_instance_id:
    description:
      - Acts only if this instance holds the network interface.
      - With O(state=attached) the task fails if another instance or none holds it,
        unless O(instance_id) holds it already.
      - With O(state=detached) the task succeeds without a change if this instance does not hold it,
        so that the loser of a race cannot take it from the winner.
    type: str
  force:
    description:
      - Whether the network interface may be taken from an instance that does not let go.
      - With V(never) a detach that hangs fails at O(wait_timeout).
      - With V(on_timeout) a detach that takes longer than O(detach_timeout) is forced, once.
      - With V(always) the first detach is forced. Use it when the holder is known to be dead.
      - EC2 calls Force a last resort. After it, the old holder may need a stop and a start before another network
        interface can be attached to the same device index.
    type: str
    choices: [never, on_timeout, always]
    default: on_timeout
  detach_timeout:
    description: The seconds that a detach may take before it is forced. See O(force).
    type: float
    default: 30.0
  wait:
    description:
      - Whether to wait until EC2 reports the last step as complete.
      - With V(false), O(state=attached) returns when the attachment has begun.
        A detach that must come first is waited for.
    type: bool
    default: true
  wait_timeout:
    description:
      - The seconds that the whole task may take, with all calls, retries and pauses.
      - The timeouts of single calls are cut to what is left, unless O(aws_config) sets them.
    type: float
    default: 120.0
  delete_on_termination:
    description:
      - Whether EC2 deletes the network interface when the instance that holds it is terminated.
      - Set on the attachment if it is otherwise, also if nothing has to be moved. Ignored with O(state=detached).
    type: bool
    default: false
seealso:
  - module: evernat.aws.nat_sourcedest
  - module: amazon.aws.ec2_eni
"""

EXAMPLES = r"""
- name: Bring the network interface to this instance, whoever holds it
  evernat.aws.eni_move:
    eni_id: eni-0123456789abcdef0
    instance_id: i-0fedcba9876543210

- name: Move it from the one to the other, and fail if somebody has moved it already
  evernat.aws.eni_move:
    filters:
      tag:Name: nat
      subnet-id: subnet-0123456789abcdef0
    instance_id: i-0fedcba9876543210
    from_instance_id: i-0123456789abcdef0

- name: Take it from an instance that is known to be dead
  evernat.aws.eni_move:
    eni_id: eni-0123456789abcdef0
    instance_id: i-0fedcba9876543210
    force: always
    wait_timeout: 60

- name: Let go of it, unless another instance holds it by now
  evernat.aws.eni_move:
    eni_id: eni-0123456789abcdef0
    from_instance_id: i-0123456789abcdef0
    state: detached
    force: never
"""

RETURN = r"""
interface:
  description:
    - The network interface as EC2 described it last, keys in snake_case, tags as a dictionary.
    - In check mode, with the attachment that it would have.
  returned: success
  type: dict
  sample:
    association: {public_ip: 198.51.100.7, allocation_id: eipalloc-0123456789abcdef0}
    attachment:
      attachment_id: eni-attach-0123456789abcdef0
      delete_on_termination: false
      device_index: 1
      instance_id: i-0fedcba9876543210
      status: attached
    availability_zone: eu-west-1a
    mac_address: 02:00:00:00:00:01
    network_interface_id: eni-0123456789abcdef0
    private_ip_address: 10.0.0.10
    source_dest_check: false
    status: in-use
    tags: {Name: nat}
instance_id:
  description: The instance that holds the network interface now, V(null) if none does. On failure, as last seen.
  returned: always, unless the network interface was never read
  type: str
  sample: i-0fedcba9876543210
previous_instance_id:
  description: The instance that held it before, V(null) if none did.
  returned: success
  type: str
  sample: i-0123456789abcdef0
forced:
  description: Whether a detach was forced.
  returned: success
  type: bool
duration:
  description: Seconds from the first read of the move to its end, V(0) in check mode.
  returned: success or failed move
  type: float
  sample: 5.214
actions:
  description: The changing calls that were made, in order; in check mode, those that would be.
  returned: success or failed move
  type: list
  elements: dict
  contains:
    action:
      description: The name of the call.
      type: str
      sample: AttachNetworkInterface
    result:
      description: V(ok), the code of the error, or V(predicted) in check mode.
      type: str
      sample: ok
    instance_id:
      description: The instance of the attachment.
      type: str
      sample: i-0fedcba9876543210
    attachment_id:
      description: The attachment. Not known for an attach that failed.
      type: str
      sample: eni-attach-0123456789abcdef0
    device_index:
      description: The device index of the attachment.
      type: int
      sample: 1
    force:
      description: Whether the detach was forced. Only for DetachNetworkInterface.
      type: bool
code:
  description:
    - Why the task failed. The code of EC2's error, or V(Timeout), V(LostRace), V(NotHeldBy) or V(IndexTaken).
  returned: failure of the move
  type: str
  sample: LostRace
"""

from ansible_collections.evernat.aws.plugins.module_utils._ec2 import Ec2, Failure, connect_by, make_module
from ansible_collections.evernat.aws.plugins.module_utils._eni_move import MonotonicClock
from ansible_collections.evernat.aws.plugins.module_utils._moving import run


def main() -> None:
    module = make_module(
        argument_spec={
            "eni_id": {"type": "str"},
            "filters": {"type": "dict"},
            "state": {"type": "str", "choices": ["attached", "detached"], "default": "attached"},
            "instance_id": {"type": "str"},
            "device_index": {"type": "int"},
            "from_instance_id": {"type": "str"},
            "force": {"type": "str", "choices": ["never", "on_timeout", "always"], "default": "on_timeout"},
            "detach_timeout": {"type": "float", "default": 30.0},
            "wait": {"type": "bool", "default": True},
            "wait_timeout": {"type": "float", "default": 120.0},
            "delete_on_termination": {"type": "bool", "default": False},
        },
        mutually_exclusive=[("eni_id", "filters")],
        required_one_of=[("eni_id", "filters")],
        required_if=[("state", "attached", ["instance_id"])],
    )
    clock = MonotonicClock()
    deadline = clock.now() + module.params["wait_timeout"]
    try:
        result = run(module, Ec2(connect_by(module), clock, deadline), clock, deadline)
    except Failure as failure:
        module.fail_json(msg=str(failure), **failure.details)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
