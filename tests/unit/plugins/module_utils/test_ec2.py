# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""EC2 through boto3: the engine's client, errors, retries and deadlines."""

from __future__ import annotations

import random
from typing import Any

import botocore.exceptions
import botocore.parsers
import pytest
from ansible_collections.evernat.aws.plugins.module_utils._ec2 import (
    Ec2,
    connect_by,
    to_api_error,
    to_interface,
    to_result,
)
from ansible_collections.evernat.aws.plugins.module_utils._eni_move import ApiError, Wanted, move
from ansible_collections.evernat.aws.tests.unit.plugins.module_utils.ec2_model import VirtualClock
from ansible_collections.evernat.aws.tests.unit.plugins.module_utils.fake_boto import (
    ENI,
    A,
    B,
    FakeBoto,
    attachment,
    interface,
    refusal,
)

THROTTLED = refusal("RequestLimitExceeded", status=503)


def make(boto: FakeBoto, seconds: float = 60) -> tuple[Ec2, VirtualClock]:
    clock = VirtualClock()
    return Ec2(lambda cap: boto, clock, clock.now() + seconds, random.Random(1)), clock


def test_the_engine_moves_an_interface_with_it() -> None:
    boto = FakeBoto()
    ec2, clock = make(boto)
    outcome = move(ec2, clock, Wanted(ENI, B), clock.now() + 60)
    assert outcome.interface.holder == B
    assert boto.writes() == ["detach_network_interface", "attach_network_interface"]
    assert ec2.raw["Attachment"]["AttachmentId"] == "eni-attach-2"


@pytest.mark.parametrize(
    ("error", "code", "lost", "busy"),
    [
        (refusal("UnauthorizedOperation"), "UnauthorizedOperation", False, False),
        (refusal("InvalidNetworkInterface.InUse"), "InvalidNetworkInterface.InUse", False, False),
        (THROTTLED, "RequestLimitExceeded", False, True),
        (refusal("InternalError", status=500), "InternalError", True, False),
        (refusal("502", "Bad Gateway", status=502), "InternalError", True, False),
        (refusal("503", "Service Unavailable", status=503), "Unavailable", False, True),
        (refusal("429", "Too Many Requests", status=429), "RequestLimitExceeded", False, True),
        (botocore.exceptions.ConnectTimeoutError(endpoint_url="x"), "Timeout", True, False),
        (botocore.exceptions.ReadTimeoutError(endpoint_url="x"), "Timeout", True, False),
        (botocore.exceptions.EndpointConnectionError(endpoint_url="x"), "ConnectionError", True, False),
        (botocore.exceptions.ConnectionClosedError(endpoint_url="x"), "ConnectionError", True, False),
        (botocore.exceptions.SSLError(endpoint_url="x", error="x"), "SSLError", False, False),
        (botocore.exceptions.NoCredentialsError(), "NoCredentialsError", False, False),
        (botocore.parsers.ResponseParserError("no XML"), "BadAnswer", True, False),
    ],
)
def test_errors(error: Exception, code: str, lost: bool, busy: bool) -> None:
    found = to_api_error(error)
    assert (found.code, found.lost, found.busy) == (code, lost, busy)


def test_an_error_keeps_the_request_id() -> None:
    assert to_api_error(THROTTLED).request_id == "req-7"


def test_an_unknown_interface_is_an_error() -> None:
    ec2, _clock = make(FakeBoto())
    with pytest.raises(ApiError, match="'eni-9' does not exist") as caught:
        ec2.interface("eni-9")
    assert caught.value.code == "InvalidNetworkInterfaceID.NotFound"


def test_an_unknown_instance_is_an_error() -> None:
    ec2, _clock = make(FakeBoto())
    with pytest.raises(ApiError, match="'i-9' does not exist") as caught:
        ec2.instance("i-9")
    assert caught.value.code == "InvalidInstanceID.NotFound"


def test_reads_outlive_trouble_with_short_pauses() -> None:
    boto = FakeBoto()
    boto.prepared["describe_network_interfaces"] = [THROTTLED, botocore.exceptions.ReadTimeoutError(endpoint_url="x")]
    ec2, clock = make(boto)
    assert ec2.interface(ENI).holder == A
    assert 0.6 <= clock.now() - 1000 <= 4


def test_retries_end_at_the_deadline_with_the_last_error() -> None:
    boto = FakeBoto()
    boto.prepared["describe_network_interfaces"] = [THROTTLED] * 99
    ec2, clock = make(boto, seconds=10)
    with pytest.raises(ApiError, match="RequestLimitExceeded"):
        ec2.interface(ENI)
    assert clock.now() <= 1010


def test_a_refusal_is_not_repeated() -> None:
    boto = FakeBoto()
    boto.prepared["describe_network_interfaces"] = [refusal("UnauthorizedOperation")] * 2
    ec2, _clock = make(boto)
    with pytest.raises(ApiError, match="UnauthorizedOperation"):
        ec2.interface(ENI)
    assert len(boto.calls) == 1


def test_reads_are_filtered_and_follow_pages() -> None:
    boto = FakeBoto()
    page = {"NetworkInterfaces": [interface("eni-0")], "NextToken": "more"}
    boto.prepared["describe_network_interfaces"] = [page]
    ec2, _clock = make(boto)
    found = ec2.interfaces({"network-interface-id": [ENI]})
    assert [raw["NetworkInterfaceId"] for raw in found] == ["eni-0", ENI]
    assert boto.calls[0][1] == {"Filters": [{"Name": "network-interface-id", "Values": [ENI]}]}
    assert boto.calls[1][1]["NextToken"] == "more"


@pytest.mark.parametrize(("seconds", "cap"), [(60, 10.0), (10, 10.0), (9.9, 5.0), (1.5, 1.0), (0.1, 0.5)])
def test_a_calls_timeout_is_cut_to_what_is_left(seconds: float, cap: float) -> None:
    caps: list[float] = []

    def connect(seconds: float) -> FakeBoto:
        caps.append(seconds)
        return FakeBoto()

    clock = VirtualClock()
    ec2 = Ec2(connect, clock, clock.now() + seconds)
    ec2.interface(ENI)
    ec2.interface(ENI)
    assert caps == [cap]


def test_connections_make_one_attempt_and_leave_retries_to_us() -> None:
    class Module:
        def client(self, service: str, config: Any) -> Any:
            assert service == "ec2"
            return config

    config = connect_by(Module())(10.0)
    assert config.connect_timeout + config.read_timeout == pytest.approx(10)
    assert config.retries["total_max_attempts"] == 1


def test_conversion() -> None:
    raw = interface(ENI, attachment(A, 2, Status="detaching", DeleteOnTermination=True), RequesterManaged=True)
    found = to_interface(raw)
    assert found.requester_managed
    assert found.held is not None
    assert (found.held.instance_id, found.held.device_index, found.held.status) == (A, 2, "detaching")
    assert found.held.delete_on_termination
    assert to_interface(interface(ENI)).held is None


def test_conversion_of_an_attachment_to_a_service() -> None:
    held = {"AttachmentId": "ela-attach-1", "InstanceOwnerId": "amazon-aws", "Status": "attached"}
    assert to_interface(interface(ENI, held)).holder == "amazon-aws"


def test_result() -> None:
    result = to_result(interface(ENI, attachment(A, 1)))
    assert result["tags"] == {"Name": "nat"}
    assert result["association"]["public_ip"] == "198.51.100.7"
    assert result["attachment"]["instance_id"] == A
    assert "tag_set" not in result
