# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Roles: their keys are checked, their policies are enforced by resource, tag and context.

Sources: the Service Authorization Reference for actions, resource types and condition keys; IAM's user guide for the
evaluation (policy variables, operators, explicit deny).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError
from conformance import Account, account, refused

from lab.aws import ACCOUNT_ID, OPERATOR_ACCESS_KEY, AwsSettings
from lab.aws.policy import PolicyError, is_allowed

REGION = "eu-west-1"


@pytest.fixture(scope="module")
def server() -> Iterator[Account]:
    with account() as made:
        yield made


@dataclass
class Pair:
    """Two nodes with a role, an interface, and a client with the first node's keys."""

    aws: Account
    nodes: list[str]
    stranger: str
    eni: str
    other_eni: str
    client: Any

    def attach(self, eni: str, instance: str, **more: Any) -> None:
        self.client.attach_network_interface(NetworkInterfaceId=eni, InstanceId=instance, DeviceIndex=1, **more)


def make_pair(aws: Account) -> Pair:
    aws.new_profile("node")
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "cluster", "Value": "nat"}]}]
    nodes = aws.launch(2, IamInstanceProfile={"Name": "node"}, TagSpecifications=tags)
    (stranger,) = aws.launch()
    eni, other = aws.new_interface(), aws.new_interface()
    return Pair(aws, nodes, stranger, eni, other, aws.client("ec2", aws.aws.credentials(nodes[0])))


@pytest.fixture
def pair(server: Account) -> Pair:
    server.fill()
    return make_pair(server)


def articles_policy(pair: Pair) -> list[dict[str, Any]]:
    """The article's three actions, cut to the interface and to the instances with the cluster's tag."""
    moves = ["ec2:AttachNetworkInterface", "ec2:DetachNetworkInterface"]
    tagged = {"StringEquals": {"aws:ResourceTag/cluster": "nat"}}
    in_region = {"StringEquals": {"ec2:Region": REGION}}
    return [
        {"Effect": "Allow", "Action": "ec2:DescribeNetworkInterfaces", "Resource": "*", "Condition": in_region},
        {"Effect": "Allow", "Action": moves, "Resource": pair.aws.arn("network-interface", pair.eni)},
        {"Effect": "Allow", "Action": moves, "Resource": pair.aws.arn("instance", "*"), "Condition": tagged},
    ]


def test_the_articles_policy_is_enough(pair: Pair) -> None:
    """Describe, attach to either node and detach: allowed. DryRun says DryRunOperation."""
    pair.aws.allow(*articles_policy(pair))
    with refused("DryRunOperation"):
        pair.attach(pair.eni, pair.nodes[0], DryRun=True)
    for node in pair.nodes:
        pair.attach(pair.eni, node)
        found = pair.client.describe_network_interfaces(NetworkInterfaceIds=[pair.eni])["NetworkInterfaces"][0]
        with refused("DryRunOperation"):
            pair.client.detach_network_interface(AttachmentId=found["Attachment"]["AttachmentId"], DryRun=True)
        pair.client.detach_network_interface(AttachmentId=found["Attachment"]["AttachmentId"])


def test_and_not_too_much(pair: Pair) -> None:
    """Other interface, other instance, other actions: 403 UnauthorizedOperation, with DryRun too."""
    pair.aws.allow(*articles_policy(pair))
    foreign = pair.aws.attach(pair.other_eni, pair.stranger)
    interface = {"NetworkInterfaceId": pair.eni}
    for dry_run in (False, True):
        more = {"DryRun": dry_run}
        for call, arguments in (
            (pair.client.attach_network_interface, {**interface, "InstanceId": pair.stranger, "DeviceIndex": 1}),
            (pair.client.detach_network_interface, {"AttachmentId": foreign}),
            (pair.client.detach_network_interface, {"AttachmentId": "eni-attach-0123456789abcdef0"}),
            (pair.client.describe_instances, {}),
            (pair.client.modify_network_interface_attribute, {**interface, "SourceDestCheck": {"Value": False}}),
            (pair.client.create_tags, {"Resources": [pair.stranger], "Tags": [{"Key": "cluster", "Value": "nat"}]}),
            (pair.client.terminate_instances, {"InstanceIds": [pair.nodes[1]]}),
            (pair.client.delete_network_interface, interface),
        ):
            with refused("UnauthorizedOperation", "is not authorized to perform: ec2:"):
                call(**arguments, **more)
    with refused("UnauthorizedOperation", pair.aws.arn("network-interface", pair.other_eni)):
        pair.attach(pair.other_eni, pair.nodes[0])
    assert pair.aws.status(pair.eni) == ("available", None)


def test_a_denial_is_403(pair: Pair) -> None:
    """The answer's status is 403, and the log names caller and outcome."""
    mark = pair.aws.aws.calls.mark()
    with pytest.raises(ClientError) as caught:
        pair.client.describe_network_interfaces()
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    (call,) = pair.aws.aws.calls.since(mark)
    assert (call.host, call.action, call.outcome) == (
        pair.nodes[0],
        "DescribeNetworkInterfaces",
        "UnauthorizedOperation",
    )
    assert call.caller == f"arn:aws:sts::{ACCOUNT_ID}:assumed-role/node/{pair.nodes[0]}"


CONDITIONS: list[tuple[dict[str, dict[str, Any]], bool]] = [
    ({"StringEquals": {"aws:ResourceTag/cluster": "nat"}}, True),
    ({"StringEquals": {"ec2:ResourceTag/cluster": "nat"}}, True),
    ({"StringEquals": {"aws:ResourceTag/cluster": "other"}}, False),
    ({"StringEquals": {"aws:ResourceTag/Cluster": "nat"}}, False),
    ({"StringLike": {"aws:ResourceTag/cluster": "n*"}}, True),
    ({"StringNotEquals": {"aws:ResourceTag/cluster": "nat"}}, False),
    ({"StringEqualsIfExists": {"aws:ResourceTag/none": "nat"}}, True),
    ({"StringNotEquals": {"aws:ResourceTag/none": "nat"}}, True),
    ({"Null": {"aws:ResourceTag/cluster": "false"}}, True),
    ({"Null": {"aws:ResourceTag/none": "false"}}, False),
    ({"StringEquals": {"ec2:Region": REGION}}, True),
    ({"StringEquals": {"ec2:Region": ["us-east-1", "us-west-2"]}}, False),
    ({"StringEquals": {"aws:RequestedRegion": REGION}}, True),
    ({"StringEquals": {"ec2:AvailabilityZone": "eu-west-1a"}}, True),
    ({"StringEquals": {"ec2:AvailabilityZone": "eu-west-1b"}}, False),
    ({"StringEquals": {"ec2:MetadataHttpTokens": "required"}}, True),
    ({"NumericLessThanEquals": {"ec2:MetadataHttpPutResponseHopLimit": "1"}}, True),
    ({"NumericLessThan": {"ec2:RoleDelivery": "2.0"}}, False),
    ({"ArnLike": {"ec2:InstanceProfile": "arn:aws:iam::*:instance-profile/node"}}, True),
    ({"ArnEquals": {"ec2:SourceInstanceARN": "SELF"}}, True),
    ({"ArnNotEquals": {"ec2:SourceInstanceARN": "SELF"}}, False),
    ({"StringEquals": {"ec2:InstanceID": "TARGET"}}, True),
    ({"StringLike": {"aws:userid": "*:${aws:PrincipalTag/none}"}}, False),
    ({"StringEquals": {"aws:ResourceTag/cluster": "${aws:PrincipalTag/cluster}"}}, True),
    ({"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}, True),
    ({"Bool": {"aws:SecureTransport": "true"}, "StringEquals": {"aws:ResourceTag/cluster": "other"}}, False),
    ({"DateGreaterThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"}}, True),
]


def test_conditions(server: Account) -> None:
    """StartInstances on the other node with one condition each: allowed or UnauthorizedOperation."""
    server.fill()
    pair = make_pair(server)
    for node in pair.nodes:
        server.ec2.modify_instance_metadata_options(InstanceId=node, HttpTokens="required", HttpPutResponseHopLimit=1)
    server.iam.tag_role(RoleName="node", Tags=[{"Key": "cluster", "Value": "nat"}])
    words = {"SELF": server.arn("instance", pair.nodes[0]), "TARGET": pair.nodes[1]}
    for conditions, allowed in CONDITIONS:
        text = json.dumps(conditions)
        for word, value in words.items():
            text = text.replace(word, value)
        server.allow({"Effect": "Allow", "Action": "ec2:Start*", "Resource": "*", "Condition": json.loads(text)})
        with refused("DryRunOperation" if allowed else "UnauthorizedOperation"):
            pair.client.start_instances(InstanceIds=[pair.nodes[1]], DryRun=True)


def test_conditions_on_interfaces(pair: Pair) -> None:
    """ec2:Subnet, ec2:Vpc and ec2:NetworkInterfaceID of the interface; each resource is asked for by itself."""
    aws = pair.aws
    for key, value, allowed in (
        ("ec2:Subnet", aws.arn("subnet", aws.subnet), True),
        ("ec2:Vpc", aws.arn("vpc", aws.vpc), True),
        ("ec2:NetworkInterfaceID", pair.eni, True),
        ("ec2:NetworkInterfaceID", pair.other_eni, False),
    ):
        aws.allow(
            {
                "Effect": "Allow",
                "Action": "ec2:AttachNetworkInterface",
                "Resource": aws.arn("network-interface", "*"),
                "Condition": {"StringEquals": {key: value}},
            },
            {"Effect": "Allow", "Action": "ec2:AttachNetworkInterface", "Resource": aws.arn("instance", "*")},
        )
        with refused("DryRunOperation" if allowed else "UnauthorizedOperation"):
            pair.attach(pair.eni, pair.nodes[0], DryRun=True)


def test_an_attribute_can_be_named(pair: Pair) -> None:
    """ec2:Attribute: one attribute of an interface may be changed, another not."""
    pair.aws.allow(
        {
            "Effect": "Allow",
            "Action": "ec2:ModifyNetworkInterfaceAttribute",
            "Resource": pair.aws.arn("network-interface", pair.eni),
            "Condition": {"StringEquals": {"ec2:Attribute": "SourceDestCheck"}},
        }
    )
    change = pair.client.modify_network_interface_attribute
    change(NetworkInterfaceId=pair.eni, SourceDestCheck={"Value": False})
    with refused("UnauthorizedOperation"):
        change(NetworkInterfaceId=pair.eni, Description={"Value": "x"})


def test_an_explicit_deny_wins(pair: Pair) -> None:
    """Deny beats Allow, whatever their order."""
    pair.aws.allow(
        {"Effect": "Allow", "Action": "*", "Resource": "*"},
        {"Effect": "Deny", "Action": "ec2:Terminate*", "Resource": "*"},
    )
    assert pair.client.describe_instances()["Reservations"]
    with refused("UnauthorizedOperation"):
        pair.client.terminate_instances(InstanceIds=[pair.stranger])


def test_managed_policies_count(pair: Pair) -> None:
    """AttachRolePolicy: a customer's policy is enforced as inline ones are."""
    document = {"Version": "2012-10-17", "Statement": articles_policy(pair)}
    arn = pair.aws.iam.create_policy(PolicyName="move", PolicyDocument=json.dumps(document))["Policy"]["Arn"]
    with refused("UnauthorizedOperation"):
        pair.client.describe_network_interfaces()
    pair.aws.iam.attach_role_policy(RoleName="node", PolicyArn=arn)
    assert pair.client.describe_network_interfaces()["NetworkInterfaces"]


def test_other_services_are_denied_in_their_way(pair: Pair) -> None:
    """IAM answers AccessDenied; GetCallerIdentity is always allowed."""
    keys = pair.aws.aws.credentials(pair.nodes[0])
    with refused("AccessDenied"):
        pair.aws.client("iam", keys).list_roles()
    identity = pair.aws.client("sts", keys).get_caller_identity()
    assert identity["Arn"] == f"arn:aws:sts::{ACCOUNT_ID}:assumed-role/node/{pair.nodes[0]}"


def test_the_unknown_is_not_guessed(pair: Pair) -> None:
    """A condition operator or key that is not modelled raises; over the wire it is a 501 that names it."""
    for condition, word in (
        ({"BinaryEquals": {"ec2:Region": "x"}}, "BinaryEquals"),
        ({"StringEquals": {"ec2:Colour": "x"}}, "ec2:Colour"),
    ):
        statement = {"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": condition}
        with pytest.raises(PolicyError, match=word):
            is_allowed([{"Statement": statement}], "ec2:DescribeVpcs", "*", {"ec2:region": [REGION]})
        pair.aws.allow(statement)
        with refused("LabNotImplemented", word):
            pair.client.describe_vpcs()


# --- keys ----------------------------------------------------------------------------------------------------------


def test_signatures_are_checked(pair: Pair) -> None:
    """A wrong secret, token or key of a role: AuthFailure. Source: EC2's error codes."""
    pair.aws.allow({"Effect": "Allow", "Action": "*", "Resource": "*"})
    keys = pair.aws.aws.credentials(pair.nodes[0])
    assert pair.aws.client("ec2", keys).describe_vpcs()["Vpcs"]
    for wrong in ({"SecretAccessKey": "x" * 40}, {"Token": "x"}, {"AccessKeyId": "ASIAIOSFODNN7EXAMPLE"}):
        with refused("AuthFailure"):
            pair.aws.client("ec2", {**keys, **wrong}).describe_vpcs()


def test_keys_end(server: Account) -> None:
    """Role credentials past their expiration: RequestExpired; IMDS has new ones before. Source: EC2's error codes."""
    server.fill()
    server.aws.settings.credentials_lifetime = 0.5
    try:
        pair = make_pair(server)
    finally:
        server.aws.settings.credentials_lifetime = AwsSettings.credentials_lifetime
    server.allow({"Effect": "Allow", "Action": "*", "Resource": "*"})
    time.sleep(0.6)
    with refused("RequestExpired"):
        pair.client.describe_vpcs()
    server.client("ec2", server.aws.credentials(pair.nodes[0])).describe_vpcs()


def test_an_old_request(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signature of an hour ago: RequestExpired. Source: EC2's error codes."""
    import datetime

    import botocore.auth

    past = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(hours=1)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda remove_tzinfo=True: past.replace(tzinfo=None))
    with refused("RequestExpired"):
        pair.client.describe_vpcs()


def test_the_operator_may_be_checked_too(server: Account) -> None:
    """With operator_secret set, only that key with the right signature is the operator's."""
    secret = "s" * 40
    right = {"AccessKeyId": OPERATOR_ACCESS_KEY, "SecretAccessKey": secret}
    server.aws.settings.operator_secret = secret
    try:
        server.client("ec2", right).describe_vpcs()
        for wrong in ({**right, "SecretAccessKey": "x" * 40}, {**right, "AccessKeyId": "AKIAIOSFODNN7EXAMPLE"}):
            with refused("AuthFailure"):
                server.client("ec2", wrong).describe_vpcs()
    finally:
        server.aws.settings.operator_secret = None
