# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user of another system has before that system is put on: instances with a role, an Elastic IP, a route.

Everything is open to everybody (security groups without state, as fck-nat's guide advises): nothing here slows a peer.
"""

from __future__ import annotations

import json

from lab.account import FLOATING_ADDRESS
from lab.aws.settings import DEBIAN_12_AMI, DEBIAN_13_AMI
from lab.hosts.host import Host
from lab.hosts.wait import wait_until
from lab.lab import Lab

LAUNCH_LIMIT = 90.0  # seconds
INSTALL_LIMIT = 300.0  # seconds
AMIS = {"trixie": DEBIAN_13_AMI, "bookworm": DEBIAN_12_AMI}
DEFAULT_ROUTE = "0.0.0.0/0"
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
AWS_CONFIG = "[default]\nregion = {region}\nca_bundle = /etc/ssl/certs/ca-certificates.crt\n"


class Instances:
    """The account's objects around a pair of hosts. `actions`: what the hosts' role may do."""

    def __init__(self, lab: Lab, actions: list[str]) -> None:
        self.lab = lab
        self._ec2 = lab.ec2
        self._profile = self._make_profile(actions)
        self.group = self._make_group()

    def _make_profile(self, actions: list[str]) -> str:
        iam, name = self.lab.client("iam"), "peer"
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(TRUST))
        policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]}
        iam.put_role_policy(RoleName=name, PolicyName=name, PolicyDocument=json.dumps(policy))
        iam.create_instance_profile(InstanceProfileName=name)
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
        return name

    def _make_group(self) -> str:
        group: str = self._ec2.create_security_group(
            GroupName="peer", Description="open", VpcId=self.lab.account.vpc_id
        )["GroupId"]
        everything = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": DEFAULT_ROUTE}]}
        self._ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[everything])
        return group

    def launch(self, name: str) -> Host:
        """A running host with a public address of its own, which may forward."""
        interface = {
            "DeviceIndex": 0,
            "SubnetId": self.lab.account.public_subnet_id,
            "AssociatePublicIpAddress": True,
            "Groups": [self.group],
        }
        instance_id: str = self._ec2.run_instances(
            ImageId=AMIS[self.lab.settings.release],
            InstanceType="t3.small",
            MinCount=1,
            MaxCount=1,
            KeyName=self.lab.account.key_name,
            IamInstanceProfile={"Name": self._profile},
            MetadataOptions={"HttpTokens": "required"},
            NetworkInterfaces=[interface],
            TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": name}]}],
        )["Instances"][0]["InstanceId"]
        wait_until(
            f"{instance_id} is running",
            lambda: self.lab.aws.snapshot().instances[instance_id].state == "running" and instance_id in self.lab.hosts,
            LAUNCH_LIMIT,
            lambda: self.lab.aws.snapshot().instances[instance_id].state,
            interval=0.2,
        )
        self.forward(primary_interface(self.lab, instance_id))
        host = self.lab.hosts[instance_id]
        host.wait_running(LAUNCH_LIMIT)
        write(host, "/root/.aws/config", AWS_CONFIG.format(region=self.lab.aws.settings.region))
        return host

    def forward(self, interface_id: str) -> None:
        """Switch the source/dest check off."""
        self._ec2.modify_network_interface_attribute(NetworkInterfaceId=interface_id, SourceDestCheck={"Value": False})

    def make_floating_interface(self, name: str = "floating") -> str:
        """An interface that is attached to nobody yet, with the floating address."""
        made: str = self._ec2.create_network_interface(
            SubnetId=self.lab.account.public_subnet_id,
            PrivateIpAddress=FLOATING_ADDRESS,
            Groups=[self.group],
            TagSpecifications=[{"ResourceType": "network-interface", "Tags": [{"Key": "Name", "Value": name}]}],
        )["NetworkInterface"]["NetworkInterfaceId"]
        self.forward(made)
        return made

    def make_elastic_ip(self) -> tuple[str, str]:
        """An Elastic IP that is associated with nothing: its allocation id and address."""
        made = self._ec2.allocate_address(Domain="vpc")
        return made["AllocationId"], made["PublicIp"]

    def route_through(self, interface_id: str) -> None:
        """Send what the clients have for the internet to an interface."""
        self._ec2.create_route(
            RouteTableId=self.lab.account.private_route_table_id,
            DestinationCidrBlock=DEFAULT_ROUTE,
            NetworkInterfaceId=interface_id,
        )


def primary_interface(lab: Lab, instance_id: str) -> str:
    return lab.aws.snapshot().instances[instance_id].interfaces[0].id


def address_of(lab: Lab, instance_id: str) -> str:
    """The private address of an instance's primary interface."""
    address = lab.aws.snapshot().instances[instance_id].private_ip
    assert address is not None
    return address


def write(host: Host, path: str, content: str, mode: str = "644") -> None:
    """A file on a host that runs, with its folder."""
    script = 'mkdir -p "$(dirname "$1")" && cat >"$1" && chmod "$2" "$1"'
    host.run(["sh", "-c", script, "sh", path, mode], input=content, check=True)


def install(host: Host, *packages: str) -> None:
    """Debian packages, without what they only recommend."""
    run(host, "apt-get update -qq", INSTALL_LIMIT)
    run(host, f"DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends {' '.join(packages)}")


def run(host: Host, script: str, timeout: float = INSTALL_LIMIT) -> str:
    """A line of shell on a host; returns what it printed. HostError if it fails."""
    return host.run(["sh", "-c", script], timeout=timeout, check=True).stdout


def at_boot(host: Host, name: str, script: str) -> None:
    """Run a script now and at every boot, before the cluster's services start."""
    write(host, f"/usr/local/sbin/{name}", f"#!/bin/sh\nset -e\n{script}", "755")
    unit = f"""[Unit]
After=network.target
Before=pacemaker.service keepalived.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/{name}

[Install]
WantedBy=multi-user.target
"""
    write(host, f"/etc/systemd/system/{name}.service", unit)
    run(host, f"systemctl daemon-reload && systemctl enable --now {name}.service")
