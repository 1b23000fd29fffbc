# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attachments: who gets an interface, when, and how it is let go. (EC2's attachment is the arbiter of the pair.)"""

from __future__ import annotations

import threading
from typing import Any

import pytest
from botocore.exceptions import ClientError
from conformance import ERRORS, UNCONFIRMED, Account, refused


def in_use(aws: Account) -> None:
    eni, (first, _) = aws.new_interface(), aws.launch(2)
    aws.attach(eni, first)
    aws.attach(eni, first, index=1)


def in_use_elsewhere(aws: Account) -> None:
    eni, (first, second) = aws.new_interface(), aws.launch(2)
    aws.attach(eni, first)
    aws.attach(eni, second)


def index_taken(aws: Account) -> None:
    (instance,) = aws.launch(1, InstanceType="m5.large")
    aws.attach(aws.new_interface(), instance)
    aws.attach(aws.new_interface(), instance)


def index_zero(aws: Account) -> None:
    aws.attach(aws.new_interface(), aws.launch()[0], index=0)


def other_zone(aws: Account) -> None:
    aws.attach(aws.new_interface(SubnetId=aws.new_subnet("10.0.9.0/24", "eu-west-1b")), aws.launch()[0])


def over_the_limit(aws: Account) -> None:
    (instance,) = aws.launch()
    aws.attach(aws.new_interface(), instance)
    aws.attach(aws.new_interface(), instance, index=2)


def terminated(aws: Account) -> None:
    (instance,) = aws.launch()
    aws.ec2.terminate_instances(InstanceIds=[instance])
    aws.attach(aws.new_interface(), instance)


def unknown_interface(aws: Account) -> None:
    aws.attach("eni-0123456789abcdef0", aws.launch()[0])


def unknown_instance(aws: Account) -> None:
    aws.attach(aws.new_interface(), "i-0123456789abcdef0")


def detach_primary_alone(aws: Account) -> None:
    attachment = aws.interface(aws.primary(aws.launch()[0]))["Attachment"]["AttachmentId"]
    aws.ec2.detach_network_interface(AttachmentId=attachment)


def detach_primary_of_two(aws: Account) -> None:
    (instance,) = aws.launch()
    aws.attach(aws.new_interface(), instance)
    attachment = aws.interface(aws.primary(instance))["Attachment"]["AttachmentId"]
    aws.ec2.detach_network_interface(AttachmentId=attachment, Force=True)


def detach_unknown(aws: Account) -> None:
    aws.ec2.detach_network_interface(AttachmentId="eni-attach-0123456789abcdef0")


def detach_ended(aws: Account) -> None:
    attachment = aws.attach(aws.new_interface(), aws.launch()[0])
    aws.ec2.detach_network_interface(AttachmentId=attachment)
    aws.ec2.detach_network_interface(AttachmentId=attachment)


def delete_in_use(aws: Account) -> None:
    eni = aws.new_interface()
    aws.attach(eni, aws.launch()[0])
    aws.ec2.delete_network_interface(NetworkInterfaceId=eni)


def launch_with_one_in_use(aws: Account) -> None:
    eni = aws.new_interface()
    aws.attach(eni, aws.launch()[0])
    aws.launch(NetworkInterfaces=[{"DeviceIndex": 0, "NetworkInterfaceId": eni}])


# what is called, EC2's code, its message, the source
REFUSALS = [
    (in_use, "InvalidNetworkInterface.InUse", "in use", "hashicorp/terraform-provider-aws#27513"),
    (in_use_elsewhere, "InvalidNetworkInterface.InUse", "in use", "hashicorp/terraform-provider-aws#27513"),
    (
        index_taken,
        "InvalidParameterValue",
        "already has an interface attached at device index '1'.",
        "lstoll/k8s-vpcnet#71, cilium/cilium#42512",
    ),
    (
        index_zero,
        "InvalidParameterValue",
        "already has an interface attached at device index '0'.",
        "lstoll/k8s-vpcnet#71",
    ),
    (other_zone, "InvalidParameterCombination", "not in the same availability zone", UNCONFIRMED),
    (over_the_limit, "AttachmentLimitExceeded", "Interface count 3 exceeds the limit for t3.micro", "cilium#15877"),
    (terminated, "IncorrectState", "", UNCONFIRMED),
    (unknown_interface, "InvalidNetworkInterfaceID.NotFound", "", ERRORS),
    (unknown_instance, "InvalidInstanceID.NotFound", "", ERRORS),
    (detach_primary_alone, "OperationNotPermitted", "device index 0 cannot be detached", "cloud-governance#952"),
    (detach_primary_of_two, "OperationNotPermitted", "device index 0 cannot be detached", "cloud-governance#952"),
    (detach_unknown, "InvalidAttachmentID.NotFound", "", ERRORS),
    (detach_ended, "InvalidAttachmentID.NotFound", "", ERRORS),
    (delete_in_use, "InvalidParameterValue", "is currently in use.", "gruntwork-io/cloud-nuke#1132, #431"),
    (launch_with_one_in_use, "InvalidNetworkInterface.InUse", "in use", ERRORS),
]


@pytest.mark.parametrize(("call", "code", "message", "source"), REFUSALS, ids=[row[0].__name__ for row in REFUSALS])
def test_refused(aws: Account, call: Any, code: str, message: str, source: str) -> None:
    """The last call of each case is refused with this code and message."""
    assert source
    with refused(code, message):
        call(aws)


def test_a_refused_attach_changes_nothing(aws: Account) -> None:
    """AttachNetworkInterface refused: the holder keeps its attachment, id and all. Source: EC2's error codes."""
    eni, (first, second) = aws.new_interface(), aws.launch(2)
    attachment = aws.attach(eni, first)
    with refused("InvalidNetworkInterface.InUse"):
        aws.attach(eni, second)
    assert aws.interface(eni)["Attachment"]["AttachmentId"] == attachment
    assert len(aws.instance(second)["NetworkInterfaces"]) == 1


def test_attach_to_a_stopped_instance(aws: Account) -> None:
    """AttachNetworkInterface, holder stopped: done, and kept over a start. Source: EC2 user guide (warm attach)."""
    eni, (instance,) = aws.new_interface(), aws.launch()
    aws.ec2.stop_instances(InstanceIds=[instance])
    aws.attach(eni, instance)
    aws.ec2.start_instances(InstanceIds=[instance])
    assert aws.status(eni) == ("in-use", "attached")


def test_a_stop_keeps_the_attachment(aws: Account) -> None:
    """StopInstances: the interface stays attached, until somebody detaches it. Source: EC2 user guide."""
    eni, (instance,) = aws.new_interface(), aws.launch()
    attachment = aws.attach(eni, instance)
    aws.ec2.stop_instances(InstanceIds=[instance])
    assert aws.status(eni) == ("in-use", "attached")
    aws.ec2.detach_network_interface(AttachmentId=attachment)
    assert aws.status(eni) == ("available", None)


def test_terminate_frees_the_second_and_deletes_the_primary(aws: Account) -> None:
    """TerminateInstances: DeleteOnTermination decides; false for what was attached later. Source: user guide."""
    eni, (instance,) = aws.new_interface(), aws.launch()
    aws.attach(eni, instance)
    primary = aws.primary(instance)
    aws.ec2.terminate_instances(InstanceIds=[instance])
    assert aws.status(eni) == ("available", None)
    with refused("InvalidNetworkInterfaceID.NotFound"):
        aws.interface(primary)
    assert aws.instance(instance)["NetworkInterfaces"] == []


def test_delete_on_termination_is_set_on_the_attachment(aws: Account) -> None:
    """ModifyNetworkInterfaceAttribute Attachment.DeleteOnTermination is applied; a new attachment has false."""
    eni, (first, second) = aws.new_interface(), aws.launch(2)
    attachment = aws.attach(eni, first)
    aws.ec2.modify_network_interface_attribute(
        NetworkInterfaceId=eni, Attachment={"AttachmentId": attachment, "DeleteOnTermination": True}
    )
    assert aws.interface(eni)["Attachment"]["DeleteOnTermination"] is True
    aws.ec2.detach_network_interface(AttachmentId=attachment)
    aws.attach(eni, second)
    assert aws.interface(eni)["Attachment"]["DeleteOnTermination"] is False


def test_delete_on_termination_deletes_it(aws: Account) -> None:
    """TerminateInstances of an instance whose second interface says so: the interface goes. Source: user guide."""
    eni, (instance,) = aws.new_interface(), aws.launch()
    attachment = aws.attach(eni, instance)
    aws.ec2.modify_network_interface_attribute(
        NetworkInterfaceId=eni, Attachment={"AttachmentId": attachment, "DeleteOnTermination": True}
    )
    aws.ec2.terminate_instances(InstanceIds=[instance])
    with refused("InvalidNetworkInterfaceID.NotFound"):
        aws.interface(eni)


def test_modify_takes_one_attribute(aws: Account) -> None:
    """ModifyNetworkInterfaceAttribute with two: InvalidParameterCombination. Source: unconfirmed."""
    with refused("InvalidParameterCombination"):
        aws.ec2.modify_network_interface_attribute(
            NetworkInterfaceId=aws.new_interface(), Description={"Value": "x"}, SourceDestCheck={"Value": False}
        )


def test_an_empty_description_is_applied(aws: Account) -> None:
    """ModifyNetworkInterfaceAttribute Description="": applied. Source: unconfirmed."""
    eni = aws.new_interface(Description="old")
    aws.ec2.modify_network_interface_attribute(NetworkInterfaceId=eni, Description={"Value": ""})
    assert aws.interface(eni)["Description"] == ""


def test_dry_runs_do_nothing(aws: Account) -> None:
    """Attach and detach with DryRun: DryRunOperation, no change. Source: EC2's API reference."""
    eni, (instance,) = aws.new_interface(), aws.launch()
    with refused("DryRunOperation"):
        aws.attach(eni, instance, DryRun=True)
    assert aws.status(eni) == ("available", None)
    attachment = aws.attach(eni, instance)
    with refused("DryRunOperation"):
        aws.ec2.detach_network_interface(AttachmentId=attachment, DryRun=True)
    assert aws.status(eni) == ("in-use", "attached")


def test_two_movers_race_and_one_wins(aws: Account) -> None:
    """Two AttachNetworkInterface at once: one gets it, one InvalidNetworkInterface.InUse. Source: EC2's error codes."""
    eni, instances = aws.new_interface(), aws.launch(2)
    clients = [aws.client("ec2"), aws.client("ec2")]
    for number in range(100):
        barrier = threading.Barrier(2)
        answers: dict[str, str] = {}

        def move(client: Any, instance: str, gate: Any = barrier, told: dict[str, str] = answers) -> None:
            gate.wait(5)
            try:
                client.attach_network_interface(NetworkInterfaceId=eni, InstanceId=instance, DeviceIndex=1)
                told[instance] = "ok"
            except ClientError as error:
                told[instance] = error.response["Error"]["Code"]

        threads = [threading.Thread(target=move, args=pair) for pair in zip(clients, instances)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert sorted(answers.values()) == ["InvalidNetworkInterface.InUse", "ok"], f"round {number}: {answers}"
        attachment = aws.interface(eni)["Attachment"]
        assert answers[attachment["InstanceId"]] == "ok"
        aws.ec2.detach_network_interface(AttachmentId=attachment["AttachmentId"])
