# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Instances: what a launch checks and gives, and the attributes that belong to an interface."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from conformance import ERRORS, UNCONFIRMED, Account, refused

from lab.aws import DEBIAN_12_AMI, DEBIAN_13_AMI, DEBIAN_OWNER_ID

# parameters of RunInstances, EC2's code, its message, the source
BAD_LAUNCHES: list[tuple[dict[str, Any], str, str, str]] = [
    ({"ImageId": "ami-0123456789abcdef0"}, "InvalidAMIID.NotFound", "", ERRORS),
    ({"KeyName": "none"}, "InvalidKeyPair.NotFound", "none", ERRORS),
    ({"InstanceType": "t9.huge"}, "InvalidParameterValue", "t9.huge", ERRORS),
    (
        {"IamInstanceProfile": {"Name": "none"}},
        "InvalidParameterValue",
        "Value (none) for parameter iamInstanceProfile.name is invalid",
        "hashicorp/terraform-provider-aws issues",
    ),
    ({"SubnetId": "subnet-0123456789abcdef0"}, "InvalidSubnetID.NotFound", "", ERRORS),
    ({"SecurityGroupIds": ["sg-0123456789abcdef0"]}, "InvalidGroup.NotFound", "", ERRORS),
    ({"PrivateIpAddress": "10.9.9.9"}, "InvalidParameterValue", "does not fall within", ERRORS),
    ({"PrivateIpAddress": "10.0.1.77", "count": 2}, "InvalidParameterCombination", "", UNCONFIRMED),
    (
        {"NetworkInterfaces": [{"DeviceIndex": 0, "SubnetId": "subnet"}], "SubnetId": "subnet"},
        "InvalidParameterCombination",
        "Network interfaces and an instance-level subnet ID",
        ERRORS,
    ),
]


@pytest.mark.parametrize(("parameters", "code", "message", "source"), BAD_LAUNCHES)
def test_a_bad_launch(aws: Account, parameters: dict[str, Any], code: str, message: str, source: str) -> None:
    """RunInstances with one thing wrong: refused, and nothing is made."""
    assert source
    with refused(code, message):
        aws.launch(**parameters)
    assert aws.ec2.describe_instances()["Reservations"] == []
    assert aws.ec2.describe_network_interfaces()["NetworkInterfaces"] == []


def test_no_default_vpc(aws: Account) -> None:
    """RunInstances without a subnet in an account without default VPC: MissingInput. Source: EC2's error codes."""
    with refused("MissingInput"):
        aws.ec2.run_instances(ImageId=DEBIAN_13_AMI, MinCount=1, MaxCount=1)


def test_debians_images(aws: Account) -> None:
    """DescribeImages by owner and name, as Debian publishes them. Source: wiki.debian.org/Cloud/AmazonEC2Image."""
    for release, image in (("13", DEBIAN_13_AMI), ("12", DEBIAN_12_AMI)):
        name = {"Name": "name", "Values": [f"debian-{release}-amd64-*"]}
        found = aws.ec2.describe_images(Owners=[DEBIAN_OWNER_ID], Filters=[name])["Images"]
        assert [item["ImageId"] for item in found] == [image]
        assert (found[0]["OwnerId"], found[0]["Architecture"], found[0]["State"]) == (
            DEBIAN_OWNER_ID,
            "x86_64",
            "available",
        )


def test_max_count(aws: Account) -> None:
    """RunInstances MinCount=1 MaxCount=3: up to MaxCount. Source: API reference."""
    made = aws.ec2.run_instances(
        ImageId=DEBIAN_13_AMI, InstanceType="t3.micro", SubnetId=aws.subnet, MinCount=1, MaxCount=3
    )
    assert len(made["Instances"]) == 3


def test_a_client_token_launches_once(aws: Account) -> None:
    """RunInstances twice with one ClientToken: the same instances; other parameters are refused. Source: reference."""
    first = aws.launch(ClientToken="once")
    assert aws.launch(ClientToken="once") == first
    with refused("IdempotentParameterMismatch"):
        aws.launch(ClientToken="once", InstanceType="t3.small")


def test_every_instance_gets_the_profile(aws: Account) -> None:
    """RunInstances IamInstanceProfile, two instances: both have it, with the profile's own id. Source: reference."""
    aws.new_profile("node")
    profile = aws.iam.get_instance_profile(InstanceProfileName="node")["InstanceProfile"]
    for instance in aws.launch(2, IamInstanceProfile={"Name": "node"}):
        shown = aws.instance(instance)["IamInstanceProfile"]
        assert shown == {"Arn": profile["Arn"], "Id": profile["InstanceProfileId"]}


def test_what_a_launch_tells(aws: Account) -> None:
    """The reply says `pending`, with the primary interface, which goes with the instance. Source: reference."""
    made = aws.ec2.run_instances(
        ImageId=DEBIAN_13_AMI,
        InstanceType="t3.micro",
        MinCount=1,
        MaxCount=1,
        SubnetId=aws.subnet,
        PrivateIpAddress="10.0.1.77",
        MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "a"}]}],
        UserData="#!/bin/sh",
    )["Instances"][0]
    assert made["State"]["Name"] == "pending"
    assert made["PrivateIpAddress"] == "10.0.1.77"
    assert made["Placement"]["AvailabilityZone"] == "eu-west-1a"
    shown = aws.instance(made["InstanceId"])
    assert shown["State"]["Name"] == "running"
    assert shown["MetadataOptions"]["HttpTokens"] == "required"
    assert shown["Tags"] == [{"Key": "Name", "Value": "a"}]
    (nic,) = shown["NetworkInterfaces"]
    assert nic["Attachment"]["DeleteOnTermination"] is True
    assert (nic["Status"], nic["Attachment"]["Status"], nic["SourceDestCheck"]) == ("in-use", "attached", True)
    record = aws.aws.snapshot().instances[made["InstanceId"]]
    assert record.user_data == b"#!/bin/sh"
    assert record.tags == {"Name": "a"}


def test_user_data_comes_back(aws: Account) -> None:
    """DescribeInstanceAttribute userData: the base64 text that was given. Source: reference."""
    (instance,) = aws.launch(UserData="hello")
    shown = aws.ec2.describe_instance_attribute(InstanceId=instance, Attribute="userData")
    assert base64.b64decode(shown["UserData"]["Value"]) == b"hello"


def test_source_dest_check_is_one_flag(aws: Account) -> None:
    """ModifyInstanceAttribute SourceDestCheck with one interface: the interface's own flag. Source: reference."""
    (instance,) = aws.launch()
    aws.ec2.modify_instance_attribute(InstanceId=instance, SourceDestCheck={"Value": False})
    assert aws.interface(aws.primary(instance))["SourceDestCheck"] is False
    aws.ec2.modify_network_interface_attribute(
        NetworkInterfaceId=aws.primary(instance), SourceDestCheck={"Value": True}
    )
    assert aws.instance(instance)["SourceDestCheck"] is True


def test_attributes_of_one_of_several_interfaces(aws: Account) -> None:
    """ModifyInstanceAttribute SourceDestCheck or Groups, two interfaces: InvalidInstanceID.

    Source: hashicorp/terraform-provider-aws#7107, bobtfish/AWSnycast#28.
    """
    eni, (instance,) = aws.new_interface(), aws.launch()
    aws.attach(eni, instance)
    message = f"There are multiple interfaces attached to instance '{instance}'."
    with refused("InvalidInstanceID", message):
        aws.ec2.modify_instance_attribute(InstanceId=instance, SourceDestCheck={"Value": False})
    group = aws.interface(eni)["Groups"][0]["GroupId"]
    with refused("InvalidInstanceID", message):
        aws.ec2.modify_instance_attribute(InstanceId=instance, Groups=[group])
    for interface in (eni, aws.primary(instance)):
        aws.ec2.modify_network_interface_attribute(NetworkInterfaceId=interface, SourceDestCheck={"Value": False})
        assert aws.interface(interface)["SourceDestCheck"] is False


def test_source_dest_check_belongs_to_the_interface(aws: Account) -> None:
    """A created interface has it on; it keeps its value from holder to holder. Source: reference."""
    eni, (first, second) = aws.new_interface(), aws.launch(2)
    assert aws.interface(eni)["SourceDestCheck"] is True
    aws.ec2.modify_network_interface_attribute(NetworkInterfaceId=eni, SourceDestCheck={"Value": False})
    aws.ec2.detach_network_interface(AttachmentId=aws.attach(eni, first))
    aws.attach(eni, second)
    assert aws.interface(eni)["SourceDestCheck"] is False
    assert aws.interface(aws.primary(second))["SourceDestCheck"] is True


def test_groups_of_interfaces_are_their_own(aws: Account) -> None:
    """An attached interface keeps its groups, and the instance shows its primary interface's. Source: user guide."""
    made = aws.ec2.create_security_group(GroupName="floating", Description="x", VpcId=aws.vpc)["GroupId"]
    eni, (instance,) = aws.new_interface(Groups=[made]), aws.launch()
    aws.attach(eni, instance)
    assert [group["GroupId"] for group in aws.interface(eni)["Groups"]] == [made]
    assert made not in [group["GroupId"] for group in aws.instance(instance)["SecurityGroups"]]


def test_a_type_changes_only_when_stopped(aws: Account) -> None:
    """ModifyInstanceAttribute InstanceType while running: IncorrectInstanceState. Source: EC2's error codes."""
    (instance,) = aws.launch()
    with refused("IncorrectInstanceState"):
        aws.ec2.modify_instance_attribute(InstanceId=instance, InstanceType={"Value": "t3.small"})
    aws.ec2.stop_instances(InstanceIds=[instance])
    aws.ec2.modify_instance_attribute(InstanceId=instance, InstanceType={"Value": "t3.small"})
    assert aws.instance(instance)["InstanceType"] == "t3.small"


def test_metadata_options_not_named_stay(aws: Account) -> None:
    """ModifyInstanceMetadataOptions changes what it names. Source: reference."""
    (instance,) = aws.launch(MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": 3})
    aws.ec2.modify_instance_metadata_options(InstanceId=instance, HttpPutResponseHopLimit=1)
    options = aws.instance(instance)["MetadataOptions"]
    assert (options["HttpTokens"], options["HttpPutResponseHopLimit"]) == ("required", 1)


def test_termination_is_final_and_can_be_repeated(aws: Account) -> None:
    """TerminateInstances twice: fine. A protected one: OperationNotPermitted. Source: reference."""
    first, second = aws.launch(2)
    aws.ec2.modify_instance_attribute(InstanceId=second, DisableApiTermination={"Value": True})
    with refused("OperationNotPermitted"):
        aws.ec2.terminate_instances(InstanceIds=[first, second])
    assert aws.state(first) == "running"
    for _ in range(2):
        aws.ec2.terminate_instances(InstanceIds=[first])
    assert aws.state(first) == "terminated"
    assert "PrivateIpAddress" not in aws.instance(first)


def test_missing_parameters(aws: Account) -> None:
    """A call without what it requires: MissingParameter, with the parameter's name. Source: EC2's error codes."""
    client = aws.client("ec2", parameter_validation=False)
    with refused("MissingParameter", "networkInterfaceId"):
        client.attach_network_interface(InstanceId="i-1", DeviceIndex=1)
