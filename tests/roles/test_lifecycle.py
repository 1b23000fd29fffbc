# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A pair's AWS objects from nothing to nothing: the tests of this file are steps on one account, in their order."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from emulated_site import TAG, Site

from lab.aws import ACCOUNT_ID, Fault
from lab.operator import PlaybookRun

OTHER_ROUTE = "198.18.0.0/15"


@pytest.fixture(scope="module", autouse=True)
def others(site: Site) -> None:
    """What is in the account and none of the pair's business."""
    table = site.account.private_route_table_id
    filters = [{"Name": "attachment.vpc-id", "Values": [site.account.vpc_id]}]
    gateway = site.ec2.describe_internet_gateways(Filters=filters)["InternetGateways"][0]["InternetGatewayId"]
    site.ec2.create_route(RouteTableId=table, DestinationCidrBlock=OTHER_ROUTE, GatewayId=gateway)
    site.ec2.create_tags(Resources=[table], Tags=[{"Key": "owner", "Value": "somebody"}])


def routes_of(site: Site) -> dict[str, dict[str, Any]]:
    (table,) = site.ec2.describe_route_tables(RouteTableIds=[site.account.private_route_table_id])["RouteTables"]
    assert {"Key": "owner", "Value": "somebody"} in table["Tags"]
    return {route["DestinationCidrBlock"]: route for route in table["Routes"]}


def test_check_mode_on_an_empty_account_names_what_is_missing_and_writes_nothing(site: Site) -> None:
    mark = site.aws.calls.mark()
    run = site.provision("--check", "--diff")
    assert site.writes(mark) == []
    for what in ("instance nat-a", "instance nat-b", "the interface with 10.0.1.100"):
        assert f"{what} would be made" in run.output
    assert run.changed > 0


def test_a_half_finished_run_is_torn_down(site: Site) -> None:
    site.aws.faults.add(Fault("error", action="AllocateAddress", code="AddressLimitExceeded"))
    try:
        assert site.provision(check=False).rc != 0
    finally:
        site.aws.faults.clear()
    assert site.left_of_pair() != []
    site.play("evernat.aws.teardown")
    assert site.left_of_pair() == []


def test_the_first_run_makes_it(site: Site) -> None:
    assert site.provision().changed > 0

    hosts = site.hosts()
    assert sorted(tag["Value"] for host in hosts for tag in host["Tags"] if tag["Key"] == "Name") == ["nat-a", "nat-b"]
    for host in hosts:
        assert host["PublicIpAddress"]
        assert host["MetadataOptions"]["HttpTokens"] == "required"
        assert host["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
        assert [item["SourceDestCheck"] for item in host["NetworkInterfaces"]] == [False]

    eni = site.eni()
    assert eni["PrivateIpAddress"] == "10.0.1.100"
    assert eni["SourceDestCheck"] is False
    (address,) = site.ec2.describe_addresses()["Addresses"]
    assert address["NetworkInterfaceId"] == eni["NetworkInterfaceId"]
    assert routes_of(site)["0.0.0.0/0"]["NetworkInterfaceId"] == eni["NetworkInterfaceId"]
    assert OTHER_ROUTE in routes_of(site)


def test_a_second_link_of_the_hosts_is_handed_to_the_cluster(site: Site) -> None:
    second = {"a": "10.0.3.10", "b": "10.0.3.11"}
    run = site.provision(provision_hosts=[{"name": name, "second_address": second[name]} for name in second])
    assert run.changed == 0
    for name, address in second.items():
        assert re.search(
            rf'"name": "nat-{name}", "address": "10.0.1.[0-9]+", "second_address": "{address}"', unescaped(run)
        )


def unescaped(run: PlaybookRun) -> str:
    return run.output.replace("\\", "")


def test_the_role_may_move_this_interface_between_these_hosts_and_nothing_else(site: Site) -> None:
    ((name, document),) = [
        (policy, site.iam.get_role_policy(RoleName=role["RoleName"], PolicyName=policy)["PolicyDocument"])
        for role in site.iam.list_roles()["Roles"]
        for policy in site.iam.list_role_policies(RoleName=role["RoleName"])["PolicyNames"]
    ]
    statements = document["Statement"] if isinstance(document, dict) else json.loads(document)["Statement"]
    look, move = statements
    prefix = f"arn:aws:ec2:{site.aws.settings.region}:{ACCOUNT_ID}:"
    assert name == "move-the-interface"
    assert look["Action"] == "ec2:DescribeNetworkInterfaces"
    assert move["Action"] == ["ec2:AttachNetworkInterface", "ec2:DetachNetworkInterface"]
    instances = [f"instance/{host['InstanceId']}" for host in site.hosts()]
    wanted = [f"network-interface/{site.eni()['NetworkInterfaceId']}", *instances]
    assert sorted(move["Resource"]) == sorted(prefix + item for item in wanted)


def groups_of(site: Site) -> dict[str, dict[str, Any]]:
    wanted = [{"Name": f"tag:{TAG}", "Values": ["nat"]}]
    found = site.ec2.describe_security_groups(Filters=wanted)["SecurityGroups"]
    return {group["GroupName"]: group for group in found}


def rules(group: dict[str, Any]) -> set[tuple[Any, ...]]:
    return {
        (rule["IpProtocol"], rule.get("FromPort"), rule.get("ToPort"), source)
        for rule in group["IpPermissions"]
        for source in [
            *(item["CidrIp"] for item in rule["IpRanges"]),
            *(item["GroupId"] for item in rule["UserIdGroupPairs"]),
        ]
    }


def test_the_groups_let_in_what_is_needed_and_no_more(site: Site) -> None:
    groups = groups_of(site)
    hosts, nat = groups["nat-hosts"], groups["nat-nat"]
    assert rules(hosts) == {
        ("tcp", 22, 22, "192.0.2.50/32"),
        ("udp", 5405, 5405, hosts["GroupId"]),
        ("udp", 3780, 3780, hosts["GroupId"]),
        ("icmp", 8, -1, hosts["GroupId"]),
    }
    assert rules(nat) == {
        ("-1", None, None, "10.0.2.0/24"),
        ("icmp", 8, -1, hosts["GroupId"]),
        ("tcp", 0, 65535, "0.0.0.0/0"),  # so that AWS does not track these flows
        ("udp", 0, 65535, "0.0.0.0/0"),
        ("icmp", 3, -1, "0.0.0.0/0"),
        ("icmp", 11, -1, "0.0.0.0/0"),
    }
    assert [group["GroupId"] for group in site.eni()["Groups"]] == [nat["GroupId"]]


def test_the_second_run_changes_nothing_also_while_the_interface_is_held(site: Site) -> None:
    site.ec2.attach_network_interface(
        NetworkInterfaceId=site.eni()["NetworkInterfaceId"], InstanceId=site.hosts()[0]["InstanceId"], DeviceIndex=1
    )
    mark = site.aws.calls.mark()
    run = site.provision()
    assert run.changed == 0, run.changed_tasks()
    assert site.writes(mark) == []


def test_check_mode_on_a_pair_writes_nothing_and_says_so(site: Site) -> None:
    mark = site.aws.calls.mark()
    run = site.provision("--check", "--diff")
    assert run.changed == 0, run.changed_tasks()
    assert site.writes(mark) == []


def test_drift_is_repaired_without_touching_the_attachment(site: Site) -> None:
    eni, host = site.eni(), site.hosts()[0]
    for interface in (eni["NetworkInterfaceId"], *(item["NetworkInterfaceId"] for item in host["NetworkInterfaces"])):
        site.ec2.modify_network_interface_attribute(NetworkInterfaceId=interface, SourceDestCheck={"Value": True})
    site.ec2.modify_instance_metadata_options(InstanceId=host["InstanceId"], HttpTokens="optional")
    site.ec2.delete_route(RouteTableId=site.account.private_route_table_id, DestinationCidrBlock="0.0.0.0/0")
    mark = site.aws.calls.mark()
    assert site.provision().changed > 0
    assert {"AttachNetworkInterface", "DetachNetworkInterface"}.isdisjoint(site.writes(mark))
    assert site.eni()["SourceDestCheck"] is False
    assert {item["SourceDestCheck"] for host in site.hosts() for item in host["NetworkInterfaces"]} == {False}
    assert {host["MetadataOptions"]["HttpTokens"] for host in site.hosts()} == {"required"}
    assert routes_of(site)["0.0.0.0/0"]["NetworkInterfaceId"] == eni["NetworkInterfaceId"]


def test_teardown_removes_the_pair_and_nothing_else(site: Site) -> None:
    assert site.play("evernat.aws.teardown").changed > 0
    assert site.left_of_pair() == []
    assert "0.0.0.0/0" not in routes_of(site)
    assert OTHER_ROUTE in routes_of(site)
    key_names = [item["KeyName"] for item in site.ec2.describe_key_pairs()["KeyPairs"]]
    assert key_names == [site.account.key_name]


def test_a_second_teardown_changes_nothing(site: Site) -> None:
    mark = site.aws.calls.mark()
    assert site.play("evernat.aws.teardown").changed == 0
    assert site.writes(mark) == []


OWN_NETWORK: dict[str, Any] = {
    "provision_vpc_id": None,
    "provision_subnet_id": None,
    "provision_route_table_ids": None,
    "provision_client_cidrs": None,
    "provision_eni_ip": "10.7.1.100",
    "provision_untracked_flows": False,
    "provision_network": {
        "zone": "eu-west-1a",
        "cidr": "10.7.0.0/16",
        "public_cidr": "10.7.1.0/24",
        "private_cidrs": ["10.7.2.0/24", "10.7.3.0/24"],
    },
}


def test_a_network_of_its_own_is_made_once_and_removed(site: Site) -> None:
    key = {"provision_key_name": None, "provision_public_key": site.public_key.strip()}
    mark = site.aws.calls.mark()
    site.provision("--check", "--diff", **OWN_NETWORK, **key)
    assert site.writes(mark) == []
    assert site.provision(**OWN_NETWORK, **key).changed > 0
    (vpc,) = site.ec2.describe_vpcs(Filters=[{"Name": f"tag:{TAG}", "Values": ["nat"]}])["Vpcs"]
    tables = site.ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc["VpcId"]]}])["RouteTables"]
    through_eni = [
        len(table["Associations"])
        for table in tables
        for route in table["Routes"]
        if route.get("NetworkInterfaceId") == site.eni()["NetworkInterfaceId"]
    ]
    assert through_eni == [2]
    groups = groups_of(site)
    clients = {("-1", None, None, cidr) for cidr in ("10.7.2.0/24", "10.7.3.0/24")}
    assert rules(groups["nat-nat"]) == clients | {("icmp", 8, -1, groups["nat-hosts"]["GroupId"])}
    again = site.provision(**OWN_NETWORK, **key)
    assert again.changed == 0, again.changed_tasks()
    site.play("evernat.aws.teardown", **OWN_NETWORK, **key)
    assert site.left_of_pair() == []


def test_a_gateway_that_was_never_attached_is_used_by_the_next_run_and_removed(site: Site) -> None:
    key = {"provision_key_name": None, "provision_public_key": site.public_key.strip()}
    site.aws.faults.add(Fault("error", action="AttachInternetGateway", code="UnauthorizedOperation"))
    try:
        for _ in range(2):
            assert site.provision(check=False, **OWN_NETWORK, **key).rc != 0
    finally:
        site.aws.faults.clear()
    assert [item.partition("-")[0] for item in site.left_of_pair()] == ["igw", "vpc"]
    site.play("evernat.aws.teardown", **OWN_NETWORK, **key)
    assert site.left_of_pair() == []
    again = site.play("evernat.aws.teardown", **OWN_NETWORK, **key)
    assert again.changed == 0, again.changed_tasks()
