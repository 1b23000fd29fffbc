# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad input: one clear sentence each, and not one write before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from emulated_site import Site

from lab.operator import PlaybookRun

Changes = Callable[[Site], dict[str, Any]]


def assert_refused(site: Site, run: PlaybookRun, mark: int, *sentences: str) -> None:
    printed = " ".join(run.output.split())
    assert run.rc != 0
    assert run.output.count("fatal: ") + run.output.count("failed: ") >= 1
    for sentence in sentences:
        assert sentence in printed
    assert site.writes(mark) == []


def own_network(**changes: Any) -> dict[str, Any]:
    """A network to make, sound but for the changes."""
    network = {
        "zone": "eu-west-1a",
        "cidr": "10.7.0.0/16",
        "public_cidr": "10.7.1.0/24",
        "private_cidrs": ["10.7.2.0/24", "10.7.3.0/24"],
    }
    nothing = dict.fromkeys(("provision_vpc_id", "provision_subnet_id", "provision_route_table_ids"))
    return {**nothing, "provision_eni_ip": "10.7.1.100", "provision_network": {**network, **changes}}


OFFLINE: dict[str, tuple[dict[str, Any], str]] = {
    "a name with capitals": ({"provision_name": "NAT"}, "provision_name is NAT: it must begin with a letter"),
    "one host": ({"provision_hosts": [{"name": "a"}]}, "exactly two hosts with different names"),
    "three hosts": ({"provision_hosts": [{"name": name} for name in "abc"]}, "not 3: a, b, c."),
    "one name twice": ({"provision_hosts": [{"name": "a"}, {"name": "a"}]}, "exactly two hosts with different names"),
    "no network": ({"provision_vpc_id": ""}, "Say either where the pair goes"),
    "half a network": (
        {
            "provision_vpc_id": None,
            "provision_subnet_id": None,
            "provision_route_table_ids": None,
            "provision_network": {"zone": "eu-west-1a", "cidr": "10.0.0.0/16"},
        },
        "provision_network lacks private_cidrs, public_cidr.",
    ),
    "a public subnet outside of the VPC": (
        own_network(public_cidr="10.8.1.0/24"),
        "provision_network: the subnet 10.8.1.0/24 is outside of 10.7.0.0/16: give a part of 10.7.0.0/16.",
    ),
    "a private subnet outside of the VPC": (
        own_network(private_cidrs=["10.7.2.0/24", "10.0.2.0/24"]),
        "provision_network: the subnet 10.0.2.0/24 is outside of 10.7.0.0/16",
    ),
    "a private subnet in the public one": (
        own_network(private_cidrs=["10.7.1.128/25"]),
        "provision_network: the subnet 10.7.1.128/25 overlaps 10.7.1.0/24: give a CIDR of its own to each.",
    ),
    "private subnets that overlap": (
        own_network(private_cidrs=["10.7.2.0/24", "10.7.2.0/23"]),
        "provision_network: the subnet 10.7.2.0/23 overlaps 10.7.2.0/24",
    ),
    "no CIDR": ({"provision_client_cidrs": ["10.0.2.0"]}, "10.0.2.0 is no CIDR: it has no prefix length"),
    "host bits": ({"provision_admin_cidrs": ["192.0.2.50/24"]}, "the network is 192.0.2.0/24."),
    "no clients": ({"provision_client_cidrs": []}, "provision_client_cidrs is empty: nobody could use the NAT."),
    "no address": ({"provision_eni_ip": "10.0.1.256"}, "provision_eni_ip: 10.0.1.256 is no IPv4 address."),
    "no public key": ({"provision_public_key": "AAAA"}, "provision_public_key is no public key"),
}


@pytest.mark.parametrize("case", OFFLINE)
def test_is_refused_without_a_call(site: Site, case: str) -> None:
    changes, sentence = OFFLINE[case]
    mark = site.aws.calls.mark()
    assert_refused(site, site.provision(check=False, **changes), mark, sentence)
    assert site.aws.calls.since(mark) == []


AUTHKEYS = {
    "too short": ("Key7" * 32, "cluster_authkey has 128 characters, 0 of them not printable ASCII"),
    "a line's end": ("Key7" * 63 + "Key\n", "cluster_authkey has 256 characters, 1 of them not printable ASCII"),
    "a line's end too many": ("Key7" * 64 + "\n", "cluster_authkey has 257 characters, 1 of them not printable ASCII"),
    "umlauts": ("Key7" * 63 + "äöüß", "cluster_authkey has 256 characters, 4 of them not printable ASCII"),
}


@pytest.mark.parametrize("case", AUTHKEYS)
def test_a_bad_authkey_is_refused_first_and_not_shown(site: Site, case: str) -> None:
    key, sentence = AUTHKEYS[case]
    mark = site.aws.calls.mark()
    run = site.play("evernat.aws.site", check=False, cluster_authkey=key)
    assert_refused(site, run, mark, sentence, "it must have exactly 256, all of them printable ASCII.")
    assert "Key7Key7" not in run.output
    assert site.aws.calls.since(mark) == []


def test_missing_credentials_and_region_are_both_named(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delitem(site.operator.environment, name)
    mark = site.aws.calls.mark()
    run = site.provision(check=False)
    assert_refused(site, run, mark, "No AWS region was given: set provision_region", "No AWS credentials were found")


def other_zone(site: Site) -> dict[str, Any]:
    made = site.ec2.create_subnet(
        VpcId=site.account.vpc_id, CidrBlock="10.0.9.0/24", AvailabilityZone=site.aws.settings.region + "b"
    )
    return {"provision_hosts": [{"name": "a"}, {"name": "b", "subnet_id": made["Subnet"]["SubnetId"]}]}


def other_vpc(site: Site) -> dict[str, Any]:
    vpc = site.ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    return {"provision_vpc_id": vpc}


def taken(site: Site) -> dict[str, Any]:
    site.ec2.create_network_interface(SubnetId=site.account.public_subnet_id, PrivateIpAddress="10.0.1.200")
    return {"provision_eni_ip": "10.0.1.200"}


def busy_route(site: Site) -> dict[str, Any]:
    table = site.ec2.create_route_table(VpcId=site.account.vpc_id)["RouteTable"]["RouteTableId"]
    filters = [{"Name": "attachment.vpc-id", "Values": [site.account.vpc_id]}]
    gateway = site.ec2.describe_internet_gateways(Filters=filters)["InternetGateways"][0]["InternetGatewayId"]
    site.ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    return {"provision_route_table_ids": [table]}


def namesake(site: Site) -> dict[str, Any]:
    site.ec2.create_security_group(GroupName="other-nat", Description="not ours", VpcId=site.account.vpc_id)
    return {"provision_name": "other"}


def twins(site: Site) -> dict[str, Any]:
    for _ in range(2):
        tags = [{"ResourceType": "network-interface", "Tags": [{"Key": "evernat:pair", "Value": "twins"}]}]
        site.ec2.create_network_interface(SubnetId=site.account.public_subnet_id, TagSpecifications=tags)
    return {"provision_name": "twins"}


def fixed(**changes: Any) -> Changes:
    return lambda site: changes


ACCOUNT: dict[str, tuple[Changes, str]] = {
    "unknown VPC": (fixed(provision_vpc_id="vpc-0123456789abcdef0"), "There is no VPC vpc-0123456789abcdef0"),
    "subnet of another VPC": (other_vpc, "(provision_vpc_id)."),
    "unknown subnet": (fixed(provision_subnet_id="subnet-0123456789abcdef0"), "There is no subnet subnet-0"),
    "two zones": (other_zone, "The subnets are not in one availability zone"),
    "unknown zone": (
        fixed(**own_network(zone="eu-west-1z")),
        "There is no availability zone eu-west-1z (provision_network.zone) in eu-west-1; choose one of eu-west-1a,",
    ),
    "unknown route table": (
        fixed(provision_route_table_ids=["rtb-0123456789abcdef0"]),
        "There is no route table rtb-0",
    ),
    "a default route elsewhere": (busy_route, "say provision_replace_default_routes=true"),
    "address outside": (fixed(provision_eni_ip="10.0.7.7"), "10.0.7.7 is outside the subnet 10.0.1.0/24."),
    "address reserved": (fixed(provision_eni_ip="10.0.1.3"), "10.0.1.3 is reserved by AWS"),
    "address taken": (taken, "provision_eni_ip: 10.0.1.200 is taken by eni-"),
    "unknown type": (fixed(provision_instance_type="t3.tiny"), "There is no instance type t3.tiny"),
    "too few interfaces": (
        fixed(provision_instance_type="t3.micro", __provision_interfaces_needed=3),
        "t3.micro (provision_instance_type) takes 2 network interfaces; a NAT host needs 3.",
    ),
    "another architecture": (fixed(provision_instance_type="t4g.small"), "and t4g.small runs arm64."),
    "unknown AMI": (fixed(provision_image_id="ami-0123456789abcdef0"), "There is no AMI ami-0123456789abcdef0"),
    "unknown AMI name": (fixed(provision_image_name="debian-99-*"), "has a name like debian-99-*"),
    "unknown key": (fixed(provision_key_name="nobody"), "There is no key pair nobody (provision_key_name)"),
    "a group of that name": (namesake, "choose another provision_name."),
    "an ambiguous interface": (twins, "More than one object answers to the tag evernat:pair=twins"),
}


@pytest.mark.parametrize("case", ACCOUNT)
def test_is_refused_without_a_write(site: Site, case: str) -> None:
    changes, sentence = ACCOUNT[case]
    wanted = changes(site)
    mark = site.aws.calls.mark()
    assert_refused(site, site.provision(check=False, **wanted), mark, sentence)
