# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An emulated account with what a user has before the pair, playbooks run on it, and what they left in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import boto3

from lab.account import FLOATING_ADDRESS, PRIVATE_CIDR, Account, make_account
from lab.aws import OPERATOR_ACCESS_KEY, OPERATOR_SECRET_KEY, Aws
from lab.operator import Operator, PlaybookRun

PROVISION = Path(__file__).parent / "provision.yml"
TAG = "evernat:pair"
TAGGED = {
    "NetworkInterfaces": "NetworkInterfaceId",
    "SecurityGroups": "GroupId",
    "KeyPairs": "KeyPairId",
    "Volumes": "VolumeId",
    "Vpcs": "VpcId",
    "Subnets": "SubnetId",
    "RouteTables": "RouteTableId",
    "InternetGateways": "InternetGatewayId",
}


class Site:
    """An emulated account with what a user has before the pair, and ansible-playbook on it."""

    def __init__(self, aws: Aws, work: Path, public_key: str) -> None:
        host, port = aws.listen("127.0.0.1", 0)
        self.aws = aws
        self.work = work
        self.public_key = public_key
        self.endpoint = f"http://{host}:{port}"
        self.ec2 = self.client("ec2")
        self.iam = self.client("iam")
        self.operator = Operator([], self.environment(), work, work / "key", logs=work / "logs")
        self.account: Account

    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": self.aws.settings.region,
            "AWS_ACCESS_KEY_ID": OPERATOR_ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": OPERATOR_SECRET_KEY,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=self.aws.settings.region,
            aws_access_key_id=OPERATOR_ACCESS_KEY,
            aws_secret_access_key=OPERATOR_SECRET_KEY,
        )

    def fill(self) -> None:
        """Begin again: an account with a VPC, a public and a private subnet and a key pair."""
        self.aws.reset()
        self.account = make_account(self.ec2, self.aws.settings.zone, self.public_key)

    def variables(self, **more: Any) -> dict[str, Any]:
        """The pair's variables; `more` replaces some, None leaves one out."""
        pair = {
            "provision_name": "nat",
            "provision_vpc_id": self.account.vpc_id,
            "provision_subnet_id": self.account.public_subnet_id,
            "provision_route_table_ids": [self.account.private_route_table_id],
            "provision_eni_ip": FLOATING_ADDRESS,
            "provision_client_cidrs": [PRIVATE_CIDR],
            "provision_admin_cidrs": ["192.0.2.50/32"],
            "provision_key_name": self.account.key_name,
            **more,
        }
        return {name: value for name, value in pair.items() if value is not None}

    def play(self, playbook: str, *arguments: str, check: bool = True, **more: Any) -> PlaybookRun:
        """Run a playbook of the collection, or a file, with the pair's variables."""
        return self.operator.playbook(
            playbook, "-e", json.dumps(self.variables(**more)), *arguments, check=check, timeout=240
        )

    def provision(self, *arguments: str, check: bool = True, **more: Any) -> PlaybookRun:
        return self.play(str(PROVISION), *arguments, check=check, **more)

    def writes(self, mark: int) -> list[str]:
        """The actions since the mark that changed something."""
        return [call.action for call in self.aws.calls.mutating(mark)]

    def eni(self) -> dict[str, Any]:
        """The pair's interface."""
        wanted = [{"Name": f"tag:{TAG}", "Values": ["nat"]}]
        (found,) = self.ec2.describe_network_interfaces(Filters=wanted)["NetworkInterfaces"]
        return found

    def hosts(self) -> list[dict[str, Any]]:
        """The pair's living instances."""
        wanted = [
            {"Name": f"tag:{TAG}", "Values": ["nat"]},
            {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]},
        ]
        reservations = self.ec2.describe_instances(Filters=wanted)["Reservations"]
        return [instance for reservation in reservations for instance in reservation["Instances"]]

    def left_of_pair(self) -> list[str]:
        """Ids of everything that carries the pair's tag, but for terminated instances; addresses and IAM's names too.

        Each kind is asked for by itself: tags outlive what they were on.
        """
        wanted = [{"Name": f"tag:{TAG}", "Values": ["nat"]}]
        left = [host["InstanceId"] for host in self.hosts()]
        for kind, key in TAGGED.items():
            words = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in kind)
            left += [item[key] for item in getattr(self.ec2, f"describe{words}")(Filters=wanted)[kind]]
        left += [item["AllocationId"] for item in self.ec2.describe_addresses()["Addresses"]]
        left += [item["RoleName"] for item in self.iam.list_roles()["Roles"]]
        left += [item["InstanceProfileName"] for item in self.iam.list_instance_profiles()["InstanceProfiles"]]
        return sorted(left)
