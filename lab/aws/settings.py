# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be set on the emulated AWS, and the names and ids that its users need to know."""

from __future__ import annotations

from dataclasses import dataclass

ACCOUNT_ID = "123456789012"
DEBIAN_OWNER_ID = "136693071363"
DEBIAN_13_AMI = "ami-0d13deb13a0000013"
DEBIAN_12_AMI = "ami-0d12deb12a0000012"

# Long on purpose: no_log of Ansible replaces every occurrence of a secret in its output.
OPERATOR_ACCESS_KEY = "AKIAEVERNATOPERATOR0"
OPERATOR_SECRET_KEY = "evernat-lab-operator-secret-key-000000000"

DEAD_DETACH_MODES = ("completes", "stuck")


@dataclass
class AwsSettings:
    """Settings of the emulator. All times are in seconds and are read when used, so they can be changed at any time."""

    region: str = "eu-west-1"
    zone: str = "eu-west-1a"  # of subnets that name no zone
    operator_secret: str | None = None  # None: every static key is the operator's, its signature unchecked
    credentials_lifetime: float = 6 * 3600.0  # of the role credentials that IMDS hands out
    api_delay: float = 0.0  # before each API call is carried out
    attach_delay: float = 0.0  # from `attaching` to `attached`
    detach_delay: float = 0.0  # from `detaching` to `available`
    reassign_delay: float = 0.0  # from the answer to a call that moves an address, Elastic IP or route to its effect
    pending_delay: float = 0.0  # from `pending` to `running`, beyond what the host needs to boot
    stopping_delay: float = 0.0  # from `stopping` to `stopped`, beyond what the host needs to shut down
    terminating_delay: float = 0.0  # the same, from `shutting-down` to `terminated`
    stale_reads: float = 0.0  # Describe calls tell the state of so long ago
    dead_detach: str = "completes"  # a polite detach from a dead guest; or "stuck": `detaching` until Force

    def __post_init__(self) -> None:
        if self.dead_detach not in DEAD_DETACH_MODES:
            raise ValueError(f"dead_detach is {self.dead_detach!r}, not one of {', '.join(DEAD_DETACH_MODES)}")
