# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the conformance tests share: a small account on the emulated AWS, and how a refusal is expected.

Each test names its source: an issue or page where EC2's answer was seen, or "unconfirmed" where it is from memory.
ERRORS is EC2's own list of error codes; REFERENCE the API reference, as botocore's model carries it.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from lab.aws import ACCOUNT_ID, DEBIAN_13_AMI, OPERATOR_ACCESS_KEY, OPERATOR_SECRET_KEY, Aws, AwsSettings, Hooks

ERRORS = "EC2's list of error codes"
REFERENCE = "EC2's API reference"
UNCONFIRMED = "unconfirmed"

TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}],
    }
)


def until(condition: Callable[[], Any], what: str, timeout: float = 5.0) -> Any:
    """Poll until the condition holds and return its value. Fails with the last one seen."""
    deadline = time.monotonic() + timeout
    while not (seen := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {timeout:g} s, last seen {seen!r}"
        time.sleep(0.01)
    return seen


@contextlib.contextmanager
def refused(code: str, message: str = "") -> Iterator[None]:
    """The call inside is answered with this code and a message that contains this text."""
    with pytest.raises(ClientError) as caught:
        yield
    error = caught.value.response["Error"]
    assert error["Code"] == code, error
    assert message in error["Message"], error


class Account:
    """An account with a VPC, an internet gateway and a subnet; boto3 clients; and short forms of common calls."""

    def __init__(self, aws: Aws) -> None:
        self.aws = aws
        self.host, self.port = aws.listen("127.0.0.1", 0)
        self.ec2 = self.client("ec2")
        self.iam = self.client("iam")

    def client(self, service: str, credentials: dict[str, str] | None = None, **config: Any) -> Any:
        """The operator's client, or one with the credentials that IMDS gave."""
        keys = credentials or {"AccessKeyId": OPERATOR_ACCESS_KEY, "SecretAccessKey": OPERATOR_SECRET_KEY}
        return boto3.client(
            service,
            region_name=self.aws.settings.region,
            endpoint_url=f"http://{self.host}:{self.port}",
            aws_access_key_id=keys["AccessKeyId"],
            aws_secret_access_key=keys["SecretAccessKey"],
            aws_session_token=keys.get("Token"),
            config=Config(retries={"total_max_attempts": 1}, **config),
        )

    def fill(self) -> None:
        """Begin again with an empty account and put the network into it."""
        self.aws.reset()
        self.vpc = self.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        self.subnet = self.new_subnet("10.0.1.0/24")
        self.gateway = self.ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        self.ec2.attach_internet_gateway(InternetGatewayId=self.gateway, VpcId=self.vpc)

    def new_subnet(self, cidr: str, zone: str = "eu-west-1a") -> str:
        made = self.ec2.create_subnet(VpcId=self.vpc, CidrBlock=cidr, AvailabilityZone=zone)
        return made["Subnet"]["SubnetId"]

    def new_interface(self, **more: Any) -> str:
        made = self.ec2.create_network_interface(**{"SubnetId": self.subnet, **more})
        return made["NetworkInterface"]["NetworkInterfaceId"]

    def launch(self, count: int = 1, **more: Any) -> list[str]:
        """Launch instances and return their ids."""
        wanted = {"ImageId": DEBIAN_13_AMI, "InstanceType": "t3.micro", "MinCount": count, "MaxCount": count, **more}
        if "NetworkInterfaces" not in wanted:
            wanted.setdefault("SubnetId", self.subnet)
        return [instance["InstanceId"] for instance in self.ec2.run_instances(**wanted)["Instances"]]

    def attach(self, interface: str, instance: str, index: int = 1, **more: Any) -> str:
        made = self.ec2.attach_network_interface(
            NetworkInterfaceId=interface, InstanceId=instance, DeviceIndex=index, **more
        )
        return made["AttachmentId"]

    def interface(self, interface: str) -> dict[str, Any]:
        found = self.ec2.describe_network_interfaces(NetworkInterfaceIds=[interface])
        return found["NetworkInterfaces"][0]

    def status(self, interface: str) -> tuple[str, str | None]:
        """The interface's status and its attachment's."""
        found = self.interface(interface)
        return found["Status"], found.get("Attachment", {}).get("Status")

    def instance(self, instance: str) -> dict[str, Any]:
        return self.ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]

    def state(self, instance: str) -> str:
        return self.instance(instance)["State"]["Name"]

    def primary(self, instance: str) -> str:
        """The id of an instance's interface at index 0."""
        interfaces = self.instance(instance)["NetworkInterfaces"]
        return next(item["NetworkInterfaceId"] for item in interfaces if item["Attachment"]["DeviceIndex"] == 0)

    def arn(self, kind: str, identifier: str) -> str:
        return f"arn:aws:ec2:{self.aws.settings.region}:{ACCOUNT_ID}:{kind}/{identifier}"

    def new_profile(self, name: str = "node") -> str:
        """A role and an instance profile of this name."""
        self.iam.create_role(RoleName=name, AssumeRolePolicyDocument=TRUST)
        self.iam.create_instance_profile(InstanceProfileName=name)
        self.iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
        return name

    def allow(self, *statements: dict[str, Any], role: str = "node") -> None:
        """Give the role one inline policy with these statements."""
        document = {"Version": "2012-10-17", "Statement": list(statements)}
        self.iam.put_role_policy(RoleName=role, PolicyName="p", PolicyDocument=json.dumps(document))


@contextlib.contextmanager
def account(hooks: Hooks | None = None, **settings: Any) -> Iterator[Account]:
    """An emulator of its own with these settings and hooks, and a filled account on it."""
    with Aws(AwsSettings(**settings), hooks) as aws:
        made = Account(aws)
        made.fill()
        yield made
