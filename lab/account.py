# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user's account holds before the pair is built: a VPC with a public and a private subnet, and a key pair."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VPC_CIDR = "10.0.0.0/16"
PUBLIC_CIDR = "10.0.1.0/24"
PRIVATE_CIDR = "10.0.2.0/24"
CLIENT_ADDRESS = "10.0.2.10"
FLOATING_ADDRESS = "10.0.1.100"
KEY_NAME = "lab"


@dataclass(frozen=True)
class Account:
    """Ids of what `make_account` made."""

    vpc_id: str
    public_subnet_id: str
    private_subnet_id: str
    private_route_table_id: str
    key_name: str


def make_key(folder: Path) -> Path:
    """Make an ed25519 key pair for ssh; returns the private key's path."""
    private = folder / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(private)], check=True)
    return private


def make_account(ec2: Any, zone: str, public_key: str) -> Account:
    """Fill an empty account through `ec2`, a boto3 client."""
    vpc = ec2.create_vpc(CidrBlock=VPC_CIDR)["Vpc"]["VpcId"]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)

    def subnet(cidr: str, name: str) -> tuple[str, str]:
        subnet_id = ec2.create_subnet(VpcId=vpc, CidrBlock=cidr, AvailabilityZone=zone)["Subnet"]["SubnetId"]
        table_id = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
        ec2.associate_route_table(SubnetId=subnet_id, RouteTableId=table_id)
        ec2.create_tags(Resources=[subnet_id, table_id], Tags=[{"Key": "Name", "Value": name}])
        return subnet_id, table_id

    public_subnet, public_table = subnet(PUBLIC_CIDR, "public")
    private_subnet, private_table = subnet(PRIVATE_CIDR, "private")
    ec2.create_route(RouteTableId=public_table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    ec2.import_key_pair(KeyName=KEY_NAME, PublicKeyMaterial=public_key.encode())
    return Account(vpc, public_subnet, private_subnet, private_table, KEY_NAME)
