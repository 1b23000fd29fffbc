# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The API and IMDS inside a network namespace: hosts reach them as on AWS, and IMDS knows a host by its address."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conformance import Account, account

from lab.aws.tls import make_ca, make_cert, server_context

pytestmark = pytest.mark.root

VPC = f"evt-aws-{os.getpid()}-vpc"
HOST = f"evt-aws-{os.getpid()}-host"
ENDPOINT = "ec2.eu-west-1.amazonaws.com"
SETUP = f"""
ip netns add {VPC}
ip netns add {HOST}
ip -n {VPC} link add evt0 type veth peer name evt1 netns {HOST}
ip -n {VPC} addr add 10.0.1.1/24 dev evt0
ip -n {VPC} addr add 169.254.169.254/32 dev lo
ip -n {VPC} link set lo up
ip -n {VPC} link set evt0 up
ip -n {HOST} addr add 10.0.1.4/24 dev evt1
ip -n {HOST} link set evt1 up
ip -n {HOST} route add default via 10.0.1.1
ip netns exec {HOST} nft add table ip t
ip netns exec {HOST} nft add chain ip t c {{ type filter hook input priority 0 ; }}
ip netns exec {HOST} nft add rule ip t c tcp sport 80 ip ttl 1 tcp flags & (psh) == psh counter
ip netns exec {HOST} nft add rule ip t c tcp sport 80 ip ttl > 1 tcp flags & (psh) == psh counter
"""


def run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=20).stdout


@pytest.fixture
def network() -> Iterator[None]:
    """A host with the first free address of the subnet, behind a router that is also IMDS's and the API's home."""
    try:
        for line in SETUP.strip().splitlines():
            run(*line.split())
        yield
    finally:
        for name in (VPC, HOST):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def curl(*arguments: str) -> str:
    return run("ip", "netns", "exec", HOST, "curl", "-sS", "-f", "-m", "5", *arguments)


def payload_packets() -> list[int]:
    """How many packets with payload came from port 80: with TTL 1, and with more."""
    rules = json.loads(run("ip", "netns", "exec", HOST, "nft", "-j", "list", "chain", "ip", "t", "c"))
    expressions = [item["rule"]["expr"] for item in rules["nftables"] if "rule" in item]
    return [part["counter"]["packets"] for rule in expressions for part in rule if "counter" in part]


@pytest.fixture
def aws(network: None) -> Iterator[Account]:
    with account() as made:
        made.aws.listen_imds("169.254.169.254", 80, netns=VPC)
        yield made


@pytest.fixture
def node(aws: Account) -> str:
    """The instance that the host stands for."""
    aws.new_profile("node")
    options = {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}
    (instance,) = aws.launch(IamInstanceProfile={"Name": "node"}, MetadataOptions=options)
    return instance


def token() -> str:
    header = "X-aws-ec2-metadata-token-ttl-seconds: 60"
    return curl("-X", "PUT", "-H", header, "http://169.254.169.254/latest/api/token")


def metadata(path: str) -> str:
    return curl("-H", f"X-aws-ec2-metadata-token: {token()}", f"http://169.254.169.254/latest/meta-data/{path}")


def test_a_host_is_known_by_its_address(aws: Account, node: str) -> None:
    """IMDS answers for the instance whose interface has the peer's address."""
    assert aws.instance(node)["PrivateIpAddress"] == "10.0.1.4"
    assert metadata("instance-id") == node


def test_the_token_travels_one_hop(node: str) -> None:
    """HttpPutResponseHopLimit=1: the answer to the PUT has TTL 1, other answers have not. Source: user guide."""
    token()
    assert payload_packets()[0] > 0
    assert payload_packets()[1] == 0
    metadata("instance-id")
    assert payload_packets()[1] > 0


def test_the_regions_own_name_over_tls(aws: Account, node: str, tmp_path: Path) -> None:
    """A signed call with IMDS's keys to the region's endpoint name, its certificate checked."""
    authority = make_ca(tmp_path)
    context = server_context(make_cert(authority, [ENDPOINT]))
    aws.aws.listen("10.0.1.1", 443, tls=context, netns=VPC)
    aws.allow({"Effect": "Allow", "Action": "ec2:DescribeVpcs", "Resource": "*"})
    keys = json.loads(metadata("iam/security-credentials/node"))
    config = tmp_path / "curl.conf"
    config.write_text(f'user = "{keys["AccessKeyId"]}:{keys["SecretAccessKey"]}"\n')
    answer = curl(
        "-K", str(config), "--cacert", str(authority.certificate), "--resolve", f"{ENDPOINT}:443:10.0.1.1",
        "--aws-sigv4", "aws:amz:eu-west-1:ec2", "-H", f"X-Amz-Security-Token: {keys['Token']}",
        "-d", "Action=DescribeVpcs&Version=2016-11-15", f"https://{ENDPOINT}/",
    )  # fmt: skip
    assert aws.vpc in answer
    assert aws.aws.calls.since()[-1].host == node
