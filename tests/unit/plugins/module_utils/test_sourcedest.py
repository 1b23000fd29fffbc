# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the module nat_sourcedest refuses, does and returns."""

from __future__ import annotations

import random
from typing import Any

import pytest
from ansible_collections.evernat.aws.plugins.module_utils._ec2 import Ec2, Failure
from ansible_collections.evernat.aws.plugins.module_utils._sourcedest import run
from ansible_collections.evernat.aws.tests.unit.plugins.module_utils.ec2_model import VirtualClock
from ansible_collections.evernat.aws.tests.unit.plugins.module_utils.fake_boto import (
    ENI,
    A,
    B,
    FakeBoto,
    interface,
    refusal,
)

MODIFY = "modify_network_interface_attribute"


def task(boto: FakeBoto, check_mode: bool = False, **params: Any) -> dict[str, Any]:
    clock = VirtualClock()
    ec2 = Ec2(lambda cap: boto, clock, clock.now() + 60, random.Random(1))
    defaults = {"instance_ids": None, "eni_ids": None, "source_dest_check": False, "interfaces": "all"}
    return run({**defaults, **params}, check_mode, ec2)


@pytest.mark.parametrize("check_mode", [False, True])
def test_each_interface_by_itself(check_mode: bool) -> None:
    boto = FakeBoto()
    result = task(boto, check_mode, instance_ids=[A, B])
    assert boto.writes() == ([] if check_mode else [MODIFY] * 3)
    assert result["changed"] is True
    assert result["diff"] == {
        "before": {ENI: True, "eni-i-a": True, "eni-i-b": True},
        "after": {ENI: False, "eni-i-a": False, "eni-i-b": False},
    }
    assert result["interfaces"][0] == {
        "eni_id": ENI,
        "instance_id": A,
        "device_index": 1,
        "before": True,
        "after": False,
    }


def test_the_same_again_changes_nothing() -> None:
    boto = FakeBoto()
    task(boto, instance_ids=[A], eni_ids=[ENI])
    boto.calls.clear()
    result = task(boto, instance_ids=[A], eni_ids=[ENI])
    assert result["changed"] is False
    assert not boto.writes()


def test_only_what_is_wrong_is_written() -> None:
    boto = FakeBoto(interface(ENI, SourceDestCheck=False))
    task(boto, instance_ids=[A], eni_ids=[ENI])
    assert [parameters["NetworkInterfaceId"] for name, parameters in boto.calls if name == MODIFY] == ["eni-i-a"]


def test_primary_interfaces_only() -> None:
    boto = FakeBoto()
    result = task(boto, instance_ids=[A], interfaces="primary")
    assert [each["eni_id"] for each in result["interfaces"]] == ["eni-i-a"]


def test_on_again() -> None:
    boto = FakeBoto(interface(ENI, SourceDestCheck=False))
    result = task(boto, eni_ids=[ENI], source_dest_check=True)
    assert result["diff"]["after"] == {ENI: True}
    assert result["interfaces"][0]["instance_id"] is None


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"eni_ids": [ENI, "eni-8", "eni-9"]}, "there is no network interface eni-8, eni-9"),
        ({"instance_ids": [A, "i-9"]}, "i-9 has no network interface: there is no such instance"),
    ],
)
def test_unknown_ids_are_refused_before_the_first_write(params: dict[str, Any], text: str) -> None:
    boto = FakeBoto()
    with pytest.raises(Failure, match=text):
        task(boto, **params)
    assert not boto.writes()


def test_a_denied_write_tells_what_was_done_before() -> None:
    boto = FakeBoto()
    boto.prepared[MODIFY] = [{}, refusal("UnauthorizedOperation")]
    with pytest.raises(Failure, match="the source/dest check of eni-i-a could not be set to False") as caught:
        task(boto, instance_ids=[A])
    assert caught.value.details["changed"] is True
    assert caught.value.details["diff"]["after"] == {ENI: False, "eni-i-a": True}


def test_a_denied_read_is_a_failure() -> None:
    boto = FakeBoto()
    boto.prepared["describe_network_interfaces"] = [refusal("UnauthorizedOperation")]
    with pytest.raises(Failure, match="could not be read: UnauthorizedOperation"):
        task(boto, eni_ids=[ENI])


def test_trouble_is_outlived() -> None:
    boto = FakeBoto()
    boto.prepared[MODIFY] = [refusal("RequestLimitExceeded", status=503)]
    assert task(boto, eni_ids=[ENI])["changed"] is True
    assert boto.writes() == [MODIFY] * 2


def test_it_is_read_back_until_it_shows() -> None:
    boto = FakeBoto()
    old = {"NetworkInterfaces": [interface(ENI)]}
    boto.prepared["describe_network_interfaces"] = [old, old, old]
    task(boto, eni_ids=[ENI])
    assert len([name for name, _parameters in boto.calls if name.startswith("describe")]) == 4


def test_what_does_not_show_in_time_is_a_failure() -> None:
    boto = FakeBoto()
    boto.prepared[MODIFY] = [{}]  # accepted, without effect
    with pytest.raises(Failure, match="accepted source/dest check False for eni-1, but does not show it in time"):
        task(boto, eni_ids=[ENI])
