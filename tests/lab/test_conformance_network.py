# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Routes, filters of Describe calls, and what can't be deleted while it is in use."""

from __future__ import annotations

from typing import Any

import pytest
from conformance import ERRORS, UNCONFIRMED, Account, refused


def table(aws: Account) -> str:
    return aws.ec2.create_route_table(VpcId=aws.vpc)["RouteTable"]["RouteTableId"]


def default_route(aws: Account, table_id: str) -> dict[str, Any]:
    found = aws.ec2.describe_route_tables(RouteTableIds=[table_id])["RouteTables"][0]["Routes"]
    return next(route for route in found if route["DestinationCidrBlock"] == "0.0.0.0/0")


# --- routes --------------------------------------------------------------------------------------------------------


def test_a_route_that_is_not_there_is_not_replaced(aws: Account) -> None:
    """ReplaceRoute without such a route: InvalidParameterValue. Source: getmoto/moto#6425."""
    with refused("InvalidParameterValue", "There is no route defined"):
        aws.ec2.replace_route(RouteTableId=table(aws), DestinationCidrBlock="10.9.0.0/16", GatewayId=aws.gateway)


def test_a_route_to_an_interface(aws: Account) -> None:
    """Route.State: blackhole while the interface is detached or gone; it names the holder. Source: reference."""
    eni, instances, table_id = aws.new_interface(), aws.launch(2), table(aws)
    aws.ec2.create_route(RouteTableId=table_id, DestinationCidrBlock="0.0.0.0/0", NetworkInterfaceId=eni)
    assert default_route(aws, table_id)["State"] == "blackhole"
    for instance in instances:
        attachment = aws.attach(eni, instance)
        route = default_route(aws, table_id)
        assert (route["State"], route["NetworkInterfaceId"], route["InstanceId"]) == ("active", eni, instance)
        aws.ec2.detach_network_interface(AttachmentId=attachment)
    aws.ec2.delete_network_interface(NetworkInterfaceId=eni)
    route = default_route(aws, table_id)
    assert (route["State"], route["NetworkInterfaceId"]) == ("blackhole", eni)
    assert "InstanceId" not in route


def test_a_route_to_a_stopped_holder(aws: Account) -> None:
    """Route.State of a route to an instance that is stopped: blackhole. Source: unconfirmed (forum posts)."""
    eni, (instance,), table_id = aws.new_interface(), aws.launch(), table(aws)
    aws.attach(eni, instance)
    aws.ec2.create_route(RouteTableId=table_id, DestinationCidrBlock="0.0.0.0/0", NetworkInterfaceId=eni)
    aws.ec2.stop_instances(InstanceIds=[instance])
    assert default_route(aws, table_id)["State"] == "blackhole"


def test_a_route_is_replaced(aws: Account) -> None:
    """ReplaceRoute from the gateway to an interface. Source: reference."""
    eni, table_id = aws.new_interface(), table(aws)
    aws.ec2.create_route(RouteTableId=table_id, DestinationCidrBlock="0.0.0.0/0", GatewayId=aws.gateway)
    assert default_route(aws, table_id)["State"] == "active"
    aws.ec2.replace_route(RouteTableId=table_id, DestinationCidrBlock="0.0.0.0/0", NetworkInterfaceId=eni)
    route = default_route(aws, table_id)
    assert route["NetworkInterfaceId"] == eni
    assert "GatewayId" not in route


def twice(aws: Account) -> None:
    table_id = table(aws)
    for _ in range(2):
        aws.ec2.create_route(
            RouteTableId=table_id, DestinationCidrBlock="0.0.0.0/0", NetworkInterfaceId=aws.new_interface()
        )


def no_cidr(aws: Account) -> None:
    aws.ec2.create_route(
        RouteTableId=table(aws), DestinationCidrBlock="0.0.0.0/99", NetworkInterfaceId=aws.new_interface()
    )


def unknown_target(aws: Account) -> None:
    aws.ec2.create_route(
        RouteTableId=table(aws), DestinationCidrBlock="0.0.0.0/0", NetworkInterfaceId="eni-0123456789abcdef0"
    )


def two_targets(aws: Account) -> None:
    aws.ec2.create_route(
        RouteTableId=table(aws),
        DestinationCidrBlock="0.0.0.0/0",
        NetworkInterfaceId=aws.new_interface(),
        GatewayId=aws.gateway,
    )


def replace_none(aws: Account) -> None:
    aws.ec2.replace_route(RouteTableId=table(aws), DestinationCidrBlock="0.0.0.0/0", GatewayId=aws.gateway)


def second_table(aws: Account) -> None:
    for _ in range(2):
        aws.ec2.associate_route_table(RouteTableId=table(aws), SubnetId=aws.subnet)


def delete_used_subnet(aws: Account) -> None:
    aws.new_interface()
    aws.ec2.delete_subnet(SubnetId=aws.subnet)


def delete_used_group(aws: Account) -> None:
    group = aws.ec2.create_security_group(GroupName="x", Description="x", VpcId=aws.vpc)["GroupId"]
    aws.new_interface(Groups=[group])
    aws.ec2.delete_security_group(GroupId=group)


def delete_referenced_group(aws: Account) -> None:
    first, second = (
        aws.ec2.create_security_group(GroupName=name, Description="x", VpcId=aws.vpc)["GroupId"] for name in "ab"
    )
    aws.ec2.authorize_security_group_ingress(
        GroupId=first, IpPermissions=[{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": second}]}]
    )
    aws.ec2.delete_security_group(GroupId=second)


def delete_default_group(aws: Account) -> None:
    groups = aws.ec2.describe_security_groups(Filters=[{"Name": "vpc-id", "Values": [aws.vpc]}])["SecurityGroups"]
    aws.ec2.delete_security_group(GroupId=groups[0]["GroupId"])


def delete_associated_table(aws: Account) -> None:
    table_id = table(aws)
    aws.ec2.associate_route_table(RouteTableId=table_id, SubnetId=aws.subnet)
    aws.ec2.delete_route_table(RouteTableId=table_id)


def delete_main_table(aws: Account) -> None:
    main = {"Name": "association.main", "Values": ["true"]}
    found = aws.ec2.describe_route_tables(Filters=[main])["RouteTables"][0]
    aws.ec2.delete_route_table(RouteTableId=found["RouteTableId"])


def delete_vpc_with_subnet(aws: Account) -> None:
    aws.ec2.delete_vpc(VpcId=aws.vpc)


def delete_vpc_with_gateway(aws: Account) -> None:
    aws.ec2.delete_subnet(SubnetId=aws.subnet)
    aws.ec2.delete_vpc(VpcId=aws.vpc)


def delete_attached_gateway(aws: Account) -> None:
    aws.ec2.delete_internet_gateway(InternetGatewayId=aws.gateway)


def detach_used_gateway(aws: Account) -> None:
    allocation = aws.ec2.allocate_address(Domain="vpc")["AllocationId"]
    aws.ec2.associate_address(AllocationId=allocation, NetworkInterfaceId=aws.new_interface())
    aws.ec2.detach_internet_gateway(InternetGatewayId=aws.gateway, VpcId=aws.vpc)


def unknown_group(aws: Account) -> None:
    aws.new_interface(Groups=["sg-0123456789abcdef0"])


def zone_of_another_region(aws: Account) -> None:
    aws.new_subnet("10.0.8.0/24", "us-east-1a")


# what is called, EC2's code, its message, the source
REFUSALS = [
    (twice, "RouteAlreadyExists", "0.0.0.0/0 already exists", ERRORS),
    (no_cidr, "InvalidParameterValue", "0.0.0.0/99", ERRORS),
    (unknown_target, "InvalidNetworkInterfaceID.NotFound", "", ERRORS),
    (two_targets, "InvalidParameterCombination", "", UNCONFIRMED),
    (replace_none, "InvalidParameterValue", "", ERRORS),
    (second_table, "Resource.AlreadyAssociated", "conflicts with an existing association", ERRORS),
    (delete_used_subnet, "DependencyViolation", "has dependencies and cannot be deleted", ERRORS),
    (delete_used_group, "DependencyViolation", "has a dependent object", ERRORS),
    (delete_referenced_group, "DependencyViolation", "has a dependent object", ERRORS),
    (delete_default_group, "CannotDelete", "cannot be deleted by a user", ERRORS),
    (delete_associated_table, "DependencyViolation", "has dependencies and cannot be deleted", ERRORS),
    (delete_main_table, "DependencyViolation", "has dependencies and cannot be deleted", ERRORS),
    (delete_vpc_with_subnet, "DependencyViolation", "has dependencies and cannot be deleted", ERRORS),
    (delete_vpc_with_gateway, "DependencyViolation", "has dependencies and cannot be deleted", ERRORS),
    (delete_attached_gateway, "DependencyViolation", "", ERRORS),
    (detach_used_gateway, "DependencyViolation", "mapped public address", ERRORS),
    (unknown_group, "InvalidGroup.NotFound", "", ERRORS),
    (zone_of_another_region, "InvalidParameterValue", "us-east-1a", ERRORS),
]


@pytest.mark.parametrize(("call", "code", "message", "source"), REFUSALS, ids=[row[0].__name__ for row in REFUSALS])
def test_refused(aws: Account, call: Any, code: str, message: str, source: str) -> None:
    """The last call of each case is refused with this code and message."""
    assert source
    with refused(code, message):
        call(aws)


def test_everything_goes_in_its_order(aws: Account) -> None:
    """Deleting what nothing depends on leaves an empty account. Source: user guide (delete your VPC)."""
    eni, (instance,), table_id = aws.new_interface(), aws.launch(), table(aws)
    aws.attach(eni, instance)
    aws.ec2.associate_route_table(RouteTableId=table_id, SubnetId=aws.subnet)
    aws.ec2.create_route(RouteTableId=table_id, DestinationCidrBlock="0.0.0.0/0", NetworkInterfaceId=eni)
    aws.ec2.terminate_instances(InstanceIds=[instance])
    aws.ec2.delete_network_interface(NetworkInterfaceId=eni)
    aws.ec2.delete_subnet(SubnetId=aws.subnet)
    aws.ec2.delete_route_table(RouteTableId=table_id)
    aws.ec2.detach_internet_gateway(InternetGatewayId=aws.gateway, VpcId=aws.vpc)
    aws.ec2.delete_internet_gateway(InternetGatewayId=aws.gateway)
    aws.ec2.delete_vpc(VpcId=aws.vpc)
    left = aws.aws.snapshot()
    kinds = (left.vpcs, left.subnets, left.route_tables, left.interfaces, left.security_groups)
    assert not any(kinds)


def test_a_subnet_gives_no_public_addresses_by_itself(aws: Account) -> None:
    """CreateSubnet outside a default VPC: MapPublicIpOnLaunch is false. Source: user guide."""
    shown = aws.ec2.describe_subnets(SubnetIds=[aws.subnet])["Subnets"][0]
    assert (shown["MapPublicIpOnLaunch"], shown["DefaultForAz"]) == (False, False)


def test_dry_runs_of_route_calls(aws: Account) -> None:
    """CreateRoute and ReplaceRoute with DryRun do nothing. Source: reference."""
    eni, table_id = aws.new_interface(), table(aws)
    for call in (aws.ec2.create_route, aws.ec2.replace_route):
        with refused("DryRunOperation"):
            call(RouteTableId=table_id, DestinationCidrBlock="0.0.0.0/0", NetworkInterfaceId=eni, DryRun=True)
    assert len(aws.ec2.describe_route_tables(RouteTableIds=[table_id])["RouteTables"][0]["Routes"]) == 1


# --- filters -------------------------------------------------------------------------------------------------------


def test_filters_of_interfaces(aws: Account) -> None:
    """DescribeNetworkInterfaces by what its reference lists: one interface of three has each of these values."""
    (instance,) = aws.launch()
    tags = [{"ResourceType": "network-interface", "Tags": [{"Key": "Name", "Value": "nat-a"}]}]
    eni = aws.new_interface(PrivateIpAddress="10.0.1.100", Description="floating", TagSpecifications=tags)
    aws.new_interface()
    allocation = aws.ec2.allocate_address(Domain="vpc")
    association = aws.ec2.associate_address(AllocationId=allocation["AllocationId"], NetworkInterfaceId=eni)
    attachment = aws.attach(eni, instance)
    mac = aws.interface(eni)["MacAddress"]
    for name, value in {
        "network-interface-id": eni,
        "attachment.attachment-id": attachment,
        "attachment.device-index": "1",
        "attachment.delete-on-termination": "false",
        "association.public-ip": allocation["PublicIp"],
        "association.allocation-id": allocation["AllocationId"],
        "association.association-id": association["AssociationId"],
        "addresses.association.public-ip": allocation["PublicIp"],
        "addresses.private-ip-address": "10.0.1.100",
        "private-ip-address": "10.0.1.100",
        "mac-address": mac,
        "description": "float*",
        "tag:Name": "nat-?",
        "tag-key": "Name",
    }.items():
        found = aws.ec2.describe_network_interfaces(Filters=[{"Name": name, "Values": [value, "none"]}])
        assert [item["NetworkInterfaceId"] for item in found["NetworkInterfaces"]] == [eni], name
    for name, value, count in (
        ("attachment.status", "attached", 2),
        ("attachment.instance-id", instance, 2),
        ("status", "available", 1),
        ("group-name", "default", 3),
        ("subnet-id", aws.subnet, 3),
        ("source-dest-check", "true", 3),
        ("attachment.status", "detaching", 0),
    ):
        found = aws.ec2.describe_network_interfaces(Filters=[{"Name": name, "Values": [value]}])
        assert len(found["NetworkInterfaces"]) == count, name


def test_filters_are_joined_with_and(aws: Account) -> None:
    """Several filters: all must hold. Source: reference."""
    eni = aws.new_interface(PrivateIpAddress="10.0.1.100")

    def found(status: str) -> int:
        filters = [
            {"Name": "network-interface-id", "Values": [eni]},
            {"Name": "status", "Values": [status]},
        ]
        return len(aws.ec2.describe_network_interfaces(Filters=filters)["NetworkInterfaces"])

    assert (found("available"), found("in-use")) == (1, 0)


def test_filters_of_instances(aws: Account) -> None:
    """DescribeInstances by its interfaces, its profile and its token. Source: reference."""
    aws.new_profile("node")
    arn = aws.iam.get_instance_profile(InstanceProfileName="node")["InstanceProfile"]["Arn"]
    (instance,) = aws.launch(ClientToken="mine", IamInstanceProfile={"Name": "node"})
    aws.launch()
    eni = aws.new_interface(PrivateIpAddress="10.0.1.100")
    aws.attach(eni, instance)
    for name, value in {
        "network-interface.network-interface-id": eni,
        "network-interface.addresses.private-ip-address": "10.0.1.100",
        "network-interface.attachment.device-index": "1",
        "client-token": "mine",
        "iam-instance-profile.arn": arn,
        "instance-id": instance,
    }.items():
        found = aws.ec2.describe_instances(Filters=[{"Name": name, "Values": [value]}])["Reservations"]
        assert [item["InstanceId"] for group in found for item in group["Instances"]] == [instance], name


def test_filters_of_route_tables(aws: Account) -> None:
    """DescribeRouteTables by what its routes lead to and by their state. Source: reference."""
    eni, table_id, (instance,) = aws.new_interface(), table(aws), aws.launch()
    aws.ec2.create_route(RouteTableId=table_id, DestinationCidrBlock="0.0.0.0/0", NetworkInterfaceId=eni)

    def found(name: str, value: str) -> list[str]:
        shown = aws.ec2.describe_route_tables(Filters=[{"Name": name, "Values": [value]}])["RouteTables"]
        return [item["RouteTableId"] for item in shown]

    assert found("route.state", "blackhole") == [table_id]
    aws.attach(eni, instance)
    assert found("route.state", "blackhole") == []
    assert found("route.network-interface-id", eni) == [table_id]
    assert found("route.instance-id", instance) == [table_id]
    assert found("route.origin", "CreateRoute") == [table_id]
    assert found("route.destination-cidr-block", "0.0.0.0/0") == [table_id]
    aws.ec2.associate_route_table(RouteTableId=table_id, SubnetId=aws.subnet)
    assert found("association.subnet-id", aws.subnet) == [table_id]


@pytest.mark.parametrize(
    "call",
    ["describe_network_interfaces", "describe_instances", "describe_route_tables", "describe_addresses"],
)
def test_an_unknown_filter(aws: Account, call: str) -> None:
    """A filter that the action does not have, also when there is nothing to filter: InvalidParameterValue."""
    with refused("InvalidParameterValue", "The filter 'colour' is invalid"):
        getattr(aws.ec2, call)(Filters=[{"Name": "colour", "Values": ["green"]}])


def test_pages_of_interfaces(aws: Account) -> None:
    """DescribeNetworkInterfaces MaxResults (5 at least) and NextToken. Source: reference."""
    made = {aws.new_interface() for _ in range(7)}
    pages = list(aws.ec2.get_paginator("describe_network_interfaces").paginate(PaginationConfig={"PageSize": 5}))
    assert [len(page["NetworkInterfaces"]) for page in pages] == [5, 2]
    assert {item["NetworkInterfaceId"] for page in pages for item in page["NetworkInterfaces"]} == made
    with refused("InvalidParameterValue"):
        aws.client("ec2", parameter_validation=False).describe_network_interfaces(MaxResults=1)
