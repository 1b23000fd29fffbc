# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the module eni_move refuses, does and returns."""

from __future__ import annotations

import random
from typing import Any, Optional

import pytest
from ansible_collections.evernat.aws.plugins.module_utils._ec2 import Ec2, Failure
from ansible_collections.evernat.aws.plugins.module_utils._moving import run
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

MOVE = ["detach_network_interface", "attach_network_interface"]


class Module:
    def __init__(self, check_mode: bool, **params: Any) -> None:
        self.check_mode = check_mode
        self.warnings: list[str] = []
        self.params = {
            "eni_id": ENI,
            "filters": None,
            "state": "attached",
            "instance_id": B,
            "device_index": None,
            "from_instance_id": None,
            "force": "on_timeout",
            "detach_timeout": 30.0,
            "wait": True,
            "wait_timeout": 120.0,
            "delete_on_termination": False,
            **params,
        }

    def warn(self, warning: str) -> None:
        self.warnings.append(warning)


def task(boto: FakeBoto, check_mode: bool = False, module: Optional[Module] = None, **params: Any) -> dict[str, Any]:
    clock = VirtualClock()
    module = module or Module(check_mode, **params)
    ec2 = Ec2(lambda cap: boto, clock, clock.now() + 120, random.Random(1))
    return run(module, ec2, clock, clock.now() + 120)


@pytest.mark.parametrize("check_mode", [False, True])
def test_a_move(check_mode: bool) -> None:
    boto = FakeBoto()
    result = task(boto, check_mode)
    assert boto.writes() == ([] if check_mode else MOVE)
    assert result["changed"] is True
    assert result["instance_id"] == B
    assert result["previous_instance_id"] == A
    assert result["forced"] is False
    assert [action["action"] for action in result["actions"]] == ["DetachNetworkInterface", "AttachNetworkInterface"]
    assert {action["result"] for action in result["actions"]} == ({"predicted"} if check_mode else {"ok"})
    assert result["interface"]["attachment"]["instance_id"] == B
    assert result["interface"]["attachment"]["device_index"] == 1
    assert result["interface"]["association"]["public_ip"] == "198.51.100.7"
    assert result["diff"] == {
        "before": {"instance_id": A, "device_index": 1, "status": "in-use"},
        "after": {"instance_id": B, "device_index": 1, "status": "in-use"},
    }


@pytest.mark.parametrize("check_mode", [False, True])
def test_the_same_again_changes_nothing(check_mode: bool) -> None:
    boto = FakeBoto()
    task(boto)
    boto.calls.clear()
    result = task(boto, check_mode)
    assert not boto.writes()
    assert result["changed"] is False
    assert result["actions"] == []
    assert result["diff"]["before"] == result["diff"]["after"]


@pytest.mark.parametrize("check_mode", [False, True])
def test_detach(check_mode: bool) -> None:
    boto = FakeBoto()
    result = task(boto, check_mode, state="detached", instance_id=None)
    assert boto.writes() == ([] if check_mode else MOVE[:1])
    assert result["changed"] is True
    assert result["instance_id"] is None
    assert result["previous_instance_id"] == A
    assert result["interface"].get("attachment") is None
    assert result["interface"]["status"] == "available"


@pytest.mark.parametrize("check_mode", [False, True])
def test_detach_from_one_that_does_not_hold_it(check_mode: bool) -> None:
    boto = FakeBoto()
    result = task(boto, check_mode, state="detached", instance_id=None, from_instance_id=B)
    assert result["changed"] is False
    assert not boto.writes()


@pytest.mark.parametrize("check_mode", [False, True])
def test_the_first_free_index_is_taken(check_mode: bool) -> None:
    boto = FakeBoto(interface(ENI, attachment(A, 1)), interface("eni-2", attachment(B, 1, "9")))
    boto.limit = 3
    result = task(boto, check_mode)
    assert result["interface"]["attachment"]["device_index"] == 2


@pytest.mark.parametrize("check_mode", [False, True])
def test_delete_on_termination_is_put_right(check_mode: bool) -> None:
    boto = FakeBoto(interface(ENI, attachment(B, 1, DeleteOnTermination=True)))
    result = task(boto, check_mode)
    assert boto.writes() == ([] if check_mode else ["modify_network_interface_attribute"])
    assert result["changed"] is True
    assert [action["action"] for action in result["actions"]] == ["ModifyNetworkInterfaceAttribute"]
    assert result["interface"]["attachment"]["delete_on_termination"] is False


def test_a_delete_on_termination_that_cannot_be_set_says_that_the_move_is_done() -> None:
    boto = FakeBoto()
    boto.prepared["modify_network_interface_attribute"] = [refusal("UnauthorizedOperation")]
    with pytest.raises(Failure, match=r"eni-1 is attached to i-b .*, but delete_on_termination") as caught:
        task(boto, delete_on_termination=True)
    assert caught.value.details["changed"] is True


def test_filters_find_the_interface() -> None:
    boto = FakeBoto(interface(ENI, attachment(A, 1), TagSet=[{"Key": "Name", "Value": "the-one"}]))
    assert task(boto, eni_id=None, filters={"tag:Name": "the-one"})["instance_id"] == B


REFUSED: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("unknown", {}, {"eni_id": "eni-9"}, "there is no network interface eni-9"),
    ("no match", {}, {"eni_id": None, "filters": {"tag:Name": "x"}}, "no network interface that matches"),
    ("ambiguous", {}, {"eni_id": None, "filters": {"tag:Name": "nat"}}, "3 network interfaces match .*eni-1, eni-i-a"),
    ("no filters", {}, {"eni_id": None, "filters": {}}, "filters is empty"),
    ("primary", {}, {"eni_id": "eni-i-a"}, "eni-i-a is the primary interface of i-a"),
    ("no instance", {}, {"instance_id": "i-9"}, "there is no instance i-9"),
    ("terminated", {"i_b": {"zone": "eu-west-1a", "state": "terminated"}}, {}, "i-b is terminated"),
    ("other zone", {"i_b": {"zone": "eu-west-1b", "state": "running"}}, {}, "in eu-west-1a and i-b in eu-west-1b"),
    ("index 0", {}, {"device_index": 0}, "0 is the instance's primary interface"),
    ("not from there", {}, {"from_instance_id": "i-c"}, "eni-1 is attached to i-a .*, not held by i-c"),
    ("where to detach", {}, {"state": "detached"}, "instance_id .* is not for state=detached"),
]


@pytest.mark.parametrize("check_mode", [False, True])
@pytest.mark.parametrize(("instances", "params", "text"), [case[1:] for case in REFUSED], ids=[c[0] for c in REFUSED])
def test_refused_before_the_first_write(
    instances: dict[str, Any], params: dict[str, Any], text: str, check_mode: bool
) -> None:
    boto = FakeBoto(**instances)
    with pytest.raises(Failure, match=text):
        task(boto, check_mode, **params)
    assert not boto.writes()


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"RequesterManaged": True, "RequesterId": "amazon-elb"}, "managed by amazon-elb"),
        ({"Operator": {"Managed": True, "Principal": "eks.amazonaws.com"}}, "managed by eks.amazonaws.com"),
    ],
)
def test_a_services_interface_is_refused(more: dict[str, Any], text: str) -> None:
    boto = FakeBoto(interface(ENI, attachment(A, 1), **more))
    with pytest.raises(Failure, match=text):
        task(boto)
    assert not boto.writes()


def test_a_taken_index_is_refused() -> None:
    boto = FakeBoto(interface(ENI, attachment(A, 1)), interface("eni-2", attachment(B, 1, "9")))
    boto.limit = 3
    with pytest.raises(Failure, match="device index 1 of i-b is taken by eni-2"):
        task(boto, device_index=1)
    assert not boto.writes()


def test_a_full_instance_is_refused() -> None:
    boto = FakeBoto(interface(ENI, attachment(A, 1)), interface("eni-2", attachment(B, 1, "9")))
    with pytest.raises(
        Failure, match=r"i-b is full: .* t3.micro takes 2 network interfaces, and it has eni-2, eni-i-b"
    ):
        task(boto)
    assert not boto.writes()


def test_another_index_of_the_same_instance_is_refused() -> None:
    boto = FakeBoto(interface(ENI, attachment(B, 1)))
    with pytest.raises(Failure, match="on i-b already, at device index 1 and not 2"):
        task(boto, device_index=2)


def test_a_denied_look_at_the_types_limit_is_a_warning() -> None:
    boto = FakeBoto()
    boto.prepared["describe_instance_types"] = [refusal("UnauthorizedOperation")]
    module = Module(False)
    assert task(boto, module=module)["changed"] is True
    assert "DescribeInstanceTypes is denied" in module.warnings[0]


@pytest.mark.parametrize("operation", ["describe_network_interfaces", "describe_instances"])
def test_a_denied_read_is_a_failure(operation: str) -> None:
    boto = FakeBoto()
    boto.prepared[operation] = [refusal("UnauthorizedOperation", "You are not authorized")]
    with pytest.raises(Failure, match="UnauthorizedOperation: You are not authorized") as caught:
        task(boto)
    assert caught.value.details["code"] == "UnauthorizedOperation"


def test_a_failed_move_tells_what_was_done() -> None:
    boto = FakeBoto()
    boto.prepared["attach_network_interface"] = [refusal("AttachmentLimitExceeded")]
    with pytest.raises(Failure, match=r"AttachNetworkInterface was refused: .*Last seen: eni-1 is available") as caught:
        task(boto)
    details = caught.value.details
    assert details["changed"] is True
    assert details["instance_id"] is None
    assert [(action["action"], action["result"]) for action in details["actions"]] == [
        ("DetachNetworkInterface", "ok"),
        ("AttachNetworkInterface", "AttachmentLimitExceeded"),
    ]


def test_a_holder_newer_than_the_checks_is_left_alone() -> None:
    boto = FakeBoto()
    newer = interface(ENI, attachment("i-c", 1, "5"))

    def somebody_else(InstanceTypes: list[str]) -> dict[str, Any]:
        boto.interfaces[ENI] = newer
        return {"InstanceTypes": [{"NetworkInfo": {"MaximumNetworkInterfaces": 2}}]}

    boto.do_describe_instance_types = somebody_else
    with pytest.raises(Failure, match=r"lost the race .* attached to i-c"):
        task(boto)
    assert not boto.writes()
