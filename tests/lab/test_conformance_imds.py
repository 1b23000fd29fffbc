# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The metadata service, per instance. Source throughout: EC2 user guide (instance metadata, IMDSv2)."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator

import boto3
import pytest
from botocore.config import Config
from botocore.utils import InstanceMetadataFetcher
from conformance import Account, account

from lab.aws import IMDS, Fault

TOKEN = "/latest/api/token"
TTL = "X-aws-ec2-metadata-token-ttl-seconds"
HAVE = "X-aws-ec2-metadata-token"


@pytest.fixture(scope="module")
def server() -> Iterator[Account]:
    with account() as made:
        yield made


class Node:
    """An instance with two interfaces, an Elastic IP and a role; and its view of the metadata service."""

    def __init__(self, aws: Account, tokens: str = "required") -> None:
        self.aws = aws
        aws.fill()
        aws.new_profile("node")
        aws.ec2.create_key_pair(KeyName="admin", KeyType="ed25519")
        nic = {"DeviceIndex": 0, "SubnetId": aws.subnet, "AssociatePublicIpAddress": True}
        (self.id,) = aws.launch(
            KeyName="admin",
            IamInstanceProfile={"Name": "node"},
            MetadataOptions={"HttpTokens": tokens},
            NetworkInterfaces=[nic],
        )
        self.eni = aws.new_interface(PrivateIpAddress="10.0.1.100")
        allocation = aws.ec2.allocate_address(Domain="vpc")
        self.elastic_ip = allocation["PublicIp"]
        aws.ec2.associate_address(AllocationId=allocation["AllocationId"], NetworkInterfaceId=self.eni)
        self.attachment = aws.attach(self.eni, self.id)
        self.endpoint = aws.aws.listen_imds("127.0.0.1", 0, instance_id=self.id)

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection(*self.endpoint, timeout=5)
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text

    def token(self) -> str:
        status, text = self.ask(TOKEN, "PUT", **{TTL: "60"})
        assert status == 200
        return text

    def get(self, path: str) -> str:
        status, text = self.ask(f"/latest/{path}", **{HAVE: self.token()})
        assert status == 200, f"{path}: {status}"
        return text


@pytest.fixture
def node(server: Account) -> Node:
    return Node(server)


def test_tokens(node: Node) -> None:
    """401 without a token or with a wrong one; 400 for a bad TTL; 403 behind a proxy; 405 for a GET of one."""
    path = "/latest/meta-data/instance-id"
    assert node.ask(path)[0] == 401
    assert node.ask(path, **{HAVE: "x"})[0] == 401
    assert node.ask(path, **{HAVE: node.token()}) == (200, node.id)
    for ttl in ("0", "21601", "x", "-1", "1.5"):
        assert node.ask(TOKEN, "PUT", **{TTL: ttl})[0] == 400
    assert node.ask(TOKEN, "PUT")[0] == 400
    assert node.ask(TOKEN, "PUT", **{TTL: "60", "X-Forwarded-For": "10.0.0.1"})[0] == 403
    assert node.ask(TOKEN)[0] == 405
    assert node.ask(path, "POST", **{HAVE: node.token()})[0] == 405


def test_a_token_is_of_one_instance(node: Node) -> None:
    """Another instance's token: 401."""
    (other,) = node.aws.launch(MetadataOptions={"HttpTokens": "required"})
    token = node.token()
    node.endpoint = node.aws.aws.listen_imds("127.0.0.1", 0, instance_id=other)
    assert node.ask("/latest/meta-data/instance-id", **{HAVE: token})[0] == 401


def test_version_1_where_allowed(server: Account) -> None:
    """HttpTokens=optional: no token needed, a wrong one is refused all the same."""
    node = Node(server, tokens="optional")
    assert node.ask("/latest/meta-data/instance-id") == (200, node.id)
    assert node.ask("/latest/meta-data/instance-id", **{HAVE: "x"})[0] == 401


def test_it_can_be_switched_off(node: Node) -> None:
    """HttpEndpoint=disabled: 403."""
    node.aws.ec2.modify_instance_metadata_options(InstanceId=node.id, HttpEndpoint="disabled")
    assert node.ask(TOKEN, "PUT", **{TTL: "60"})[0] == 403


def test_the_tree(node: Node) -> None:
    """What the pair's software asks for, with what DescribeInstances tells."""
    shown = node.aws.instance(node.id)
    mac = node.aws.interface(node.aws.primary(node.id))["MacAddress"]
    for path, value in {
        "instance-id": node.id,
        "placement/availability-zone": "eu-west-1a",
        "placement/region": "eu-west-1",
        "mac": mac,
        "local-ipv4": shown["PrivateIpAddress"],
        "public-ipv4": shown["PublicIpAddress"],
        "instance-type": "t3.micro",
        "public-keys/": "0=admin",
        "iam/security-credentials/": "node",
    }.items():
        assert node.get(f"meta-data/{path}") == value, path
    assert node.get("meta-data/public-keys/0/openssh-key").startswith("ssh-ed25519 ")
    assert "network/" in node.get("meta-data/").split("\n")
    assert node.ask("/latest/meta-data/none", **{HAVE: node.token()})[0] == 404
    assert node.ask("/latest/user-data", **{HAVE: node.token()})[0] == 404
    document = json.loads(node.get("dynamic/instance-identity/document"))
    assert (document["instanceId"], document["region"], document["accountId"]) == (
        node.id,
        "eu-west-1",
        "123456789012",
    )


def test_the_interfaces(node: Node) -> None:
    """network/interfaces/macs/ lists what is attached, and follows a detach."""
    mac = node.aws.interface(node.eni)["MacAddress"]
    base = "meta-data/network/interfaces/macs/"
    assert f"{mac}/" in node.get(base).split("\n")
    for path, value in {
        "interface-id": node.eni,
        "device-number": "1",
        "local-ipv4s": "10.0.1.100",
        "public-ipv4s": node.elastic_ip,
        f"ipv4-associations/{node.elastic_ip}": "10.0.1.100",
        "subnet-id": node.aws.subnet,
        "subnet-ipv4-cidr-block": "10.0.1.0/24",
        "vpc-ipv4-cidr-block": "10.0.0.0/16",
    }.items():
        assert node.get(f"{base}{mac}/{path}") == value, path
    node.aws.ec2.detach_network_interface(AttachmentId=node.attachment)
    assert mac not in node.get(base)


def test_credentials(node: Node) -> None:
    """The role's credentials work, and are the same for as long as they last."""
    first = json.loads(node.get("meta-data/iam/security-credentials/node"))
    assert first["Code"] == "Success"
    assert first == json.loads(node.get("meta-data/iam/security-credentials/node"))
    node.aws.allow({"Effect": "Allow", "Action": "ec2:DescribeVpcs", "Resource": "*"})
    assert node.aws.client("ec2", first).describe_vpcs()["Vpcs"]
    info = json.loads(node.get("meta-data/iam/info"))
    assert info["InstanceProfileArn"].endswith(":instance-profile/node")


def test_botocore_understands_it(node: Node) -> None:
    """The SDK's own fetcher gets the role's credentials."""
    fetcher = InstanceMetadataFetcher(
        timeout=2, num_attempts=1, base_url="http://{}:{}/".format(*node.endpoint), config={"imds_use_ipv6": False}
    )
    found = fetcher.retrieve_iam_role_credentials()
    assert found["role_name"] == "node"
    node.aws.allow({"Effect": "Allow", "Action": "ec2:DescribeVpcs", "Resource": "*"})
    client = boto3.client(
        "ec2",
        region_name="eu-west-1",
        endpoint_url=f"http://{node.aws.host}:{node.aws.port}",
        aws_access_key_id=found["access_key"],
        aws_secret_access_key=found["secret_key"],
        aws_session_token=found["token"],
        config=Config(retries={"total_max_attempts": 1}),
    )
    assert client.describe_vpcs()["Vpcs"]


def test_nobody_else_has_an_answer(node: Node) -> None:
    """A peer whose address is no instance's: 404."""
    node.endpoint = node.aws.aws.listen_imds("127.0.0.1", 0)
    assert node.ask(TOKEN, "PUT", **{TTL: "60"})[0] == 404


def test_its_faults_are_its_own(node: Node) -> None:
    """A fault of action IMDS hits metadata requests of that host; one without an action hits API calls only."""
    faults = node.aws.aws.faults
    faults.add(Fault("unavailable", count=1))
    assert node.ask(TOKEN, "PUT", **{TTL: "60"})[0] == 200
    faults.clear()
    faults.add(Fault("unavailable", action=IMDS, host=node.id, count=1))
    assert node.ask(TOKEN, "PUT", **{TTL: "60"})[0] == 503
    assert node.ask(TOKEN, "PUT", **{TTL: "60"})[0] == 200
    assert node.aws.ec2.describe_vpcs()["Vpcs"]


def test_requests_are_logged_without_secrets(node: Node) -> None:
    """The call log has each request with its instance, and neither token nor credentials."""
    mark = node.aws.aws.calls.mark()
    credentials = json.loads(node.get("meta-data/iam/security-credentials/node"))
    calls = node.aws.aws.calls.since(mark, service="imds")
    assert [call.action for call in calls] == [
        f"PUT {TOKEN}",
        "GET /latest/meta-data/iam/security-credentials/node",
    ]
    assert {call.host for call in calls} == {node.id}
    assert credentials["SecretAccessKey"] not in repr(calls)
