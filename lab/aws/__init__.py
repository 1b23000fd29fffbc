# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""EC2, IAM, STS and IMDS on loopback or in a namespace: moto, made as strict as EC2 where this project touches it."""

from __future__ import annotations

from lab.aws.calls import Call, CallLog
from lab.aws.faults import IMDS, Fault, Faults
from lab.aws.hooks import Hooks
from lab.aws.server import Aws
from lab.aws.settings import (
    ACCOUNT_ID,
    DEBIAN_12_AMI,
    DEBIAN_13_AMI,
    DEBIAN_OWNER_ID,
    OPERATOR_ACCESS_KEY,
    OPERATOR_SECRET_KEY,
    AwsSettings,
)
from lab.aws.snapshot import (
    AttachmentRecord,
    IngressRecord,
    InstanceRecord,
    InterfaceRecord,
    InternetGatewayRecord,
    RouteRecord,
    RouteTableRecord,
    SecurityGroupRecord,
    Snapshot,
    SubnetRecord,
    VpcRecord,
)

__all__ = [
    "ACCOUNT_ID",
    "DEBIAN_12_AMI",
    "DEBIAN_13_AMI",
    "DEBIAN_OWNER_ID",
    "IMDS",
    "OPERATOR_ACCESS_KEY",
    "OPERATOR_SECRET_KEY",
    "AttachmentRecord",
    "Aws",
    "AwsSettings",
    "Call",
    "CallLog",
    "Fault",
    "Faults",
    "Hooks",
    "IngressRecord",
    "InstanceRecord",
    "InterfaceRecord",
    "InternetGatewayRecord",
    "RouteRecord",
    "RouteTableRecord",
    "SecurityGroupRecord",
    "Snapshot",
    "SubnetRecord",
    "VpcRecord",
]
