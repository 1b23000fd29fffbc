# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults, the call log, stale reads, TLS, and the API in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ConnectionClosedError, ReadTimeoutError
from botocore.parsers import ResponseParserError
from conformance import Account, refused

from lab.aws import Call, CallLog, Fault
from lab.aws.tls import make_ca, make_cert, server_context

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("throttle", 503, "RequestLimitExceeded"),
        ("unavailable", 503, "Unavailable"),
        ("internal", 500, "InternalError"),
        ("error", 400, "IncorrectState"),
    ],
)
def test_answers_with_an_error(aws: Account, kind: str, status: int, code: str) -> None:
    """The call has no effect and EC2's code. Source: EC2's error codes, but for `error`, whose code is chosen."""
    aws.aws.faults.add(Fault(kind, action="CreateNetworkInterface", count=1, code="IncorrectState"))
    with pytest.raises(aws.ec2.exceptions.ClientError) as caught:
        aws.new_interface()
    assert caught.value.response["Error"]["Code"] == code
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert aws.ec2.describe_network_interfaces()["NetworkInterfaces"] == []
    aws.new_interface()


def test_a_lost_reply(aws: Account) -> None:
    """drop-after: the attach has taken effect, its reply is lost; botocore's own retry gets InUse."""
    eni, (instance,) = aws.new_interface(), aws.launch()
    aws.aws.faults.add(Fault("drop-after", action="AttachNetworkInterface", count=1))
    mark = aws.aws.calls.mark()
    with pytest.raises(ConnectionClosedError):
        aws.attach(eni, instance)
    assert aws.status(eni) == ("in-use", "attached")
    assert [call.outcome for call in aws.aws.calls.mutating(mark)] == ["dropped-after"]


def test_a_lost_request(aws: Account) -> None:
    """drop-before: no effect, no answer."""
    eni, (instance,) = aws.new_interface(), aws.launch()
    aws.aws.faults.add(Fault("drop-before", action="AttachNetworkInterface", count=1))
    mark = aws.aws.calls.mark()
    with pytest.raises(ConnectionClosedError):
        aws.attach(eni, instance)
    assert aws.status(eni) == ("available", None)
    assert aws.aws.calls.mutating(mark) == []


def test_hanging(aws: Account) -> None:
    """hang: no answer; the client's own timeout ends it, and other calls go on."""
    aws.aws.faults.add(Fault("hang", action="DescribeVpcs"))
    with pytest.raises(ReadTimeoutError):
        aws.client("ec2", read_timeout=0.5).describe_vpcs()
    assert aws.ec2.describe_subnets()["Subnets"]


def test_latency(aws: Account) -> None:
    """latency: the call takes so much longer."""
    aws.aws.faults.add(Fault("latency", seconds=0.4, count=1))
    began = time.monotonic()
    aws.ec2.describe_vpcs()
    assert time.monotonic() - began >= 0.4


def test_garbage(aws: Account) -> None:
    """garbage: 200 and no XML."""
    aws.aws.faults.add(Fault("garbage", action="DescribeVpcs", count=1))
    with pytest.raises((ResponseParserError, BotoCoreError)):
        aws.ec2.describe_vpcs()


def test_who_and_how_often(aws: Account) -> None:
    """By host, by action, by count, by probability; clear ends all of them."""
    aws.new_profile("node")
    (instance,) = aws.launch(IamInstanceProfile={"Name": "node"})
    aws.allow({"Effect": "Allow", "Action": "*", "Resource": "*"})
    node = aws.client("ec2", aws.aws.credentials(instance))
    aws.aws.faults.add(Fault("throttle", host=instance, count=2))
    for _ in range(2):
        aws.ec2.describe_vpcs()
        with refused("RequestLimitExceeded"):
            node.describe_vpcs()
    node.describe_vpcs()
    aws.aws.faults.add(Fault("throttle", action="DescribeVpcs", host="operator"))
    node.describe_vpcs()
    aws.ec2.describe_subnets()
    with refused("RequestLimitExceeded"):
        aws.ec2.describe_vpcs()
    aws.aws.faults.clear()
    aws.ec2.describe_vpcs()
    aws.aws.faults.add(Fault("throttle", probability=0.0))
    aws.ec2.describe_vpcs()
    aws.aws.faults.clear()


def test_bad_rules_are_refused() -> None:
    with pytest.raises(ValueError, match="thunder"):
        Fault("thunder")
    with pytest.raises(ValueError, match="probability"):
        Fault("hang", probability=2)


def test_the_log(aws: Account) -> None:
    """Every call with caller, action, parameters, outcome and duration; secrets are not in it."""
    mark = aws.aws.calls.mark()
    aws.launch(UserData="my-secret-data")
    with refused("InvalidVpcID.NotFound"):
        aws.ec2.delete_vpc(VpcId="vpc-0123456789abcdef0")
    launch, deletion = aws.aws.calls.since(mark)
    assert (launch.caller, launch.host, launch.service) == ("operator", "operator", "ec2")
    assert (launch.action, launch.outcome, launch.mutates) == ("RunInstances", "ok", True)
    assert launch.params["SubnetId"] == aws.subnet
    assert launch.params["UserData"] == "..."
    assert 0 < launch.duration < 5
    assert (deletion.outcome, deletion.mutates) == ("InvalidVpcID.NotFound", False)


def test_the_log_as_a_file(tmp_path: Path) -> None:
    """With a path, each call is a line of JSON."""
    path = tmp_path / "calls.jsonl"
    log = CallLog(path)
    log.add(Call(1.0, 2.0, "operator", "operator", "ec2", "CreateVpc", {"CidrBlock": "10.0.0.0/16"}, "ok", 0.01))
    log.close()
    (line,) = [json.loads(line) for line in path.read_text().splitlines()]
    assert (line["action"], line["params"], line["outcome"]) == ("CreateVpc", {"CidrBlock": "10.0.0.0/16"}, "ok")


def test_stale_reads(aws: Account) -> None:
    """stale_reads: a Describe made before tells the old state for so long, writes see the true one.

    Source: EC2 developer guide (eventual consistency).
    """
    eni, (instance,) = aws.new_interface(), aws.launch()
    aws.aws.settings.stale_reads = 2.0
    try:
        assert aws.status(eni) == ("available", None)
        aws.attach(eni, instance)
        began = time.monotonic()
        assert aws.status(eni) == ("available", None)
        with refused("InvalidNetworkInterface.InUse"):
            aws.attach(eni, instance)
        while aws.status(eni)[0] == "available":
            assert time.monotonic() - began < 5
            time.sleep(0.05)
        assert time.monotonic() - began >= 1.5
    finally:
        aws.aws.settings.stale_reads = 0.0
    assert aws.status(eni) == ("in-use", "attached")


def test_tls(aws: Account, tmp_path: Path) -> None:
    """Under a certificate of the lab's own CA: checked by name, refused without the CA; a silent peer blocks no one."""
    authority = make_ca(tmp_path)
    assert make_ca(tmp_path).certificate.read_bytes() == authority.certificate.read_bytes()
    pair = make_cert(authority, ["localhost", "ec2.eu-west-1.amazonaws.com"], ["127.0.0.1"])
    assert pair.key.stat().st_mode & 0o077 == 0
    host, port = aws.aws.listen("127.0.0.1", 0, tls=server_context(pair))

    def client(verify: Any) -> Any:
        return boto3.client(
            "ec2",
            region_name="eu-west-1",
            endpoint_url=f"https://{host}:{port}",
            aws_access_key_id="AKIAIOSFODNN7EXAMPLE",
            aws_secret_access_key="x" * 40,
            verify=verify,
            config=Config(retries={"total_max_attempts": 1}),
        )

    with socket.create_connection((host, port)):  # says nothing
        assert client(str(authority.certificate)).describe_vpcs()["Vpcs"]
    with pytest.raises(BotoCoreError, match="SSL"):
        client(True).describe_vpcs()
    trusting = ssl.create_default_context(cafile=str(authority.certificate))
    with (
        socket.create_connection((host, port)) as sock,
        trusting.wrap_socket(sock, server_hostname="ec2.eu-west-1.amazonaws.com") as wrapped,
    ):
        assert wrapped.version() in ("TLSv1.2", "TLSv1.3")


class Lab:
    """lab/ec2's program as a child process."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "AWS_REGION": "eu-west-1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lab.aws.main", "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self.process.stdout
        assert self.process.stderr
        first = self.process.stderr.readline()
        assert first.startswith("export AWS_ENDPOINT_URL="), first
        self.url = first.strip().split("=", 1)[1]
        assert self.process.stdout.readline() == "ready\n"

    def ask(self, path: str, method: str = "GET", body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data, method=method), timeout=5) as answer:
            return json.load(answer)


@pytest.fixture
def lab() -> Iterator[Lab]:
    made = Lab()
    yield made
    made.process.send_signal(signal.SIGTERM)
    out, err = made.process.communicate(timeout=10)
    assert (made.process.returncode, out) == (0, ""), err


def test_the_api_alone(lab: Lab) -> None:
    """lab/ec2: any static key is the operator's; faults, calls and reset over HTTP."""
    ec2 = boto3.client(
        "ec2",
        region_name="eu-west-1",
        endpoint_url=lab.url,
        aws_access_key_id="any",
        aws_secret_access_key="any",
        config=Config(retries={"total_max_attempts": 1}),
    )
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    assert lab.ask("/_lab/faults", "POST", {"kind": "throttle", "action": "DescribeVpcs", "count": 1}) == {"ids": [1]}
    with refused("RequestLimitExceeded"):
        ec2.describe_vpcs()
    assert lab.ask("/_lab/faults")[0]["left"] == 0
    assert lab.ask("/_lab/faults", "DELETE") == []
    assert [item["VpcId"] for item in ec2.describe_vpcs()["Vpcs"]] == [vpc]
    told = lab.ask("/_lab/calls?since=1")
    assert [call["outcome"] for call in told["calls"]] == ["RequestLimitExceeded", "ok"]
    assert told["mark"] == 3
    assert lab.ask("/_lab/settings", "POST", {"attach_delay": 1.5})["attach_delay"] == 1.5
    lab.ask("/_lab/reset", "POST")
    assert ec2.describe_vpcs()["Vpcs"] == []
