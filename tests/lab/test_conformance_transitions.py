# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Transitions take time and are told as EC2 tells them; the hooks that realise them are called in their order.

EC2 publishes no times. Sources for the states: EC2's API reference; for slow ones: ansible-collections/amazon.aws#501
(a detach of 200 s), AndrewGuenther/fck-nat#43 (an attach races the dying instance).
"""

from __future__ import annotations

import threading
import time
from typing import Any

from conformance import Account, account, refused, until

from lab.aws import Hooks, InstanceRecord, InterfaceRecord, Snapshot

STEP = 0.8  # seconds that a transition is set to take


class Recorder(Hooks):
    """Hooks that write down what they were told."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.dead: set[str] = set()
        self.snapshots: list[Snapshot] = []
        self.boot_takes = 0.0
        self.held = threading.Event()
        self.held.set()
        self.plug_held = threading.Event()
        self.plug_held.set()

    def instance_boot(self, instance: InstanceRecord) -> None:
        self.held.wait(10)
        time.sleep(self.boot_takes)
        self.events.append(("boot", instance.id, [item.id for item in instance.interfaces.values()]))

    def instance_power_off(self, instance_id: str, graceful: bool, terminate: bool) -> None:
        self.held.wait(10)
        self.events.append(("off", instance_id, graceful, terminate))

    def interface_plug(self, interface: InterfaceRecord, instance_id: str, device_index: int) -> None:
        self.plug_held.wait(10)
        self.events.append(("plug", interface.id, instance_id, device_index))

    def interface_unplug(self, interface_id: str, instance_id: str) -> None:
        self.events.append(("unplug", interface_id, instance_id))

    def holder_is_dead(self, instance_id: str) -> bool:
        return instance_id in self.dead

    def network_changed(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)


def test_attach_and_detach_take_their_time() -> None:
    """Attachment.Status goes attaching, attached, detaching; Status is in-use throughout, then available."""
    with account(attach_delay=STEP, detach_delay=STEP) as aws:
        eni, (instance,) = aws.new_interface(), aws.launch()
        began = time.monotonic()
        attachment = aws.attach(eni, instance)
        assert aws.status(eni) == ("in-use", "attaching")
        until(lambda: aws.status(eni) == ("in-use", "attached"), "attached")
        assert time.monotonic() - began >= STEP
        began = time.monotonic()
        aws.ec2.detach_network_interface(AttachmentId=attachment)
        assert aws.status(eni) == ("in-use", "detaching")
        until(lambda: aws.status(eni) == ("available", None), "available")
        assert time.monotonic() - began >= STEP


def test_states_of_an_instance() -> None:
    """pending, running, stopping, stopped, pending, running, shutting-down, terminated; wrong changes are refused."""
    hooks = Recorder()
    hooks.held.clear()
    with account(hooks) as aws:
        (instance,) = aws.launch()

        def reaches(state: str) -> None:
            hooks.held.set()
            until(lambda: aws.state(instance) == state, state)
            hooks.held.clear()

        assert aws.state(instance) == "pending"
        with refused("IncorrectInstanceState"):
            aws.ec2.stop_instances(InstanceIds=[instance])
        reaches("running")
        told = aws.ec2.stop_instances(InstanceIds=[instance])["StoppingInstances"][0]
        assert (told["PreviousState"]["Name"], told["CurrentState"]["Name"]) == ("running", "stopping")
        with refused("IncorrectInstanceState"):
            aws.ec2.start_instances(InstanceIds=[instance])
        reaches("stopped")
        told = aws.ec2.start_instances(InstanceIds=[instance])["StartingInstances"][0]
        assert (told["PreviousState"]["Name"], told["CurrentState"]["Name"]) == ("stopped", "pending")
        reaches("running")
        told = aws.ec2.terminate_instances(InstanceIds=[instance])["TerminatingInstances"][0]
        assert (told["PreviousState"]["Name"], told["CurrentState"]["Name"]) == ("running", "shutting-down")
        reaches("terminated")
        with refused("IncorrectInstanceState"):
            aws.ec2.start_instances(InstanceIds=[instance])


def test_delays_of_an_instance() -> None:
    """The settings add their seconds to each change of state."""
    with account(pending_delay=STEP, stopping_delay=STEP, terminating_delay=STEP) as aws:
        began = time.monotonic()
        (instance,) = aws.launch()
        until(lambda: aws.state(instance) == "running", "running")
        assert time.monotonic() - began >= STEP
        aws.ec2.stop_instances(InstanceIds=[instance])
        until(lambda: aws.state(instance) == "stopped", "stopped")
        assert time.monotonic() - began >= 2 * STEP
        aws.ec2.terminate_instances(InstanceIds=[instance])
        until(lambda: aws.state(instance) == "terminated", "terminated")
        assert time.monotonic() - began >= 3 * STEP


def test_hooks_in_their_order() -> None:
    """The host boots before `running` is told; a link comes after `attached` and is gone before `available`."""
    hooks = Recorder()
    hooks.held.clear()
    with account(hooks) as aws:
        (instance,) = aws.launch()
        primary = aws.primary(instance)
        assert aws.state(instance) == "pending"
        assert hooks.events == []
        hooks.held.set()
        until(lambda: aws.state(instance) == "running", "running")
        assert hooks.events == [("boot", instance, [primary])]
        hooks.plug_held.clear()
        eni = aws.new_interface()
        attachment = aws.attach(eni, instance)
        until(lambda: aws.status(eni)[1] == "attached", "attached")
        assert hooks.events[1:] == []  # the link is still on its way
        hooks.plug_held.set()
        aws.ec2.detach_network_interface(AttachmentId=attachment)
        until(lambda: aws.status(eni)[0] == "available", "available")
        assert hooks.events[1:] == [("plug", eni, instance, 1), ("unplug", eni, instance)]
        aws.ec2.terminate_instances(InstanceIds=[instance])
        until(lambda: aws.state(instance) == "terminated", "terminated")
        assert hooks.events[3:] == [("off", instance, True, True), ("unplug", primary, instance)]


def test_a_boot_plugs_what_is_attached() -> None:
    """An interface attached while the host is off comes with its boot, and only once."""
    hooks = Recorder()
    with account(hooks) as aws:
        (instance,) = aws.launch()
        until(lambda: aws.state(instance) == "running", "running")
        aws.ec2.stop_instances(InstanceIds=[instance], Force=True)
        until(lambda: aws.state(instance) == "stopped", "stopped")
        eni = aws.new_interface()
        aws.attach(eni, instance)
        until(lambda: aws.status(eni)[1] == "attached", "attached")
        aws.ec2.start_instances(InstanceIds=[instance])
        until(lambda: aws.state(instance) == "running", "running again")
        assert hooks.events[1:] == [
            ("off", instance, False, False),
            ("boot", instance, [aws.primary(instance), eni]),
        ]


def test_a_reboot_keeps_everything() -> None:
    """RebootInstances: the host is down and up again, `running` all the time, interfaces kept."""
    hooks = Recorder()
    with account(hooks) as aws:
        (instance,) = aws.launch()
        until(lambda: aws.state(instance) == "running", "running")
        aws.ec2.reboot_instances(InstanceIds=[instance])
        until(lambda: len(hooks.events) == 3, "off and boot")
        assert [event[0] for event in hooks.events] == ["boot", "off", "boot"]
        assert aws.state(instance) == "running"


def test_a_dead_guest_lets_go_at_once() -> None:
    """dead_detach=completes: a polite detach from a dead guest ends like any other. (What EC2 does: unpublished.)"""
    hooks = Recorder()
    with account(hooks, dead_detach="completes") as aws:
        eni, (instance,) = aws.new_interface(), aws.launch()
        attachment = aws.attach(eni, instance)
        hooks.dead.add(instance)
        aws.ec2.detach_network_interface(AttachmentId=attachment)
        until(lambda: aws.status(eni)[0] == "available", "available")


def test_a_dead_guest_is_stuck_until_force() -> None:
    """dead_detach=stuck: detaching for as long as nobody forces it. Force: aws/amazon-vpc-cni-k8s#458, reference."""
    hooks = Recorder()
    with account(hooks, dead_detach="stuck") as aws:
        eni, (instance, other) = aws.new_interface(), aws.launch(2)
        until(lambda: aws.state(other) == "running", "running")
        attachment = aws.attach(eni, instance)
        hooks.dead.add(instance)
        aws.ec2.detach_network_interface(AttachmentId=attachment)
        aws.ec2.detach_network_interface(AttachmentId=attachment)  # polite again: no help
        time.sleep(STEP)
        assert aws.status(eni) == ("in-use", "detaching")
        with refused("InvalidNetworkInterface.InUse"):
            aws.attach(eni, other)
        aws.ec2.detach_network_interface(AttachmentId=attachment, Force=True)
        until(lambda: aws.status(eni)[0] == "available", "available after Force")
        aws.attach(eni, other)


def test_force_from_the_start_is_never_stuck() -> None:
    """DetachNetworkInterface Force=true of a dead guest's: no wait but the usual one. Source: API reference."""
    hooks = Recorder()
    with account(hooks, dead_detach="stuck") as aws:
        eni, (instance,) = aws.new_interface(), aws.launch()
        attachment = aws.attach(eni, instance)
        hooks.dead.add(instance)
        aws.ec2.detach_network_interface(AttachmentId=attachment, Force=True)
        until(lambda: aws.status(eni)[0] == "available", "available")


def test_a_thawed_or_stopped_guest_is_no_longer_stuck() -> None:
    """A guest that answers again lets go, and so does an instance that EC2 knows to be stopped."""
    hooks = Recorder()
    with account(hooks, dead_detach="stuck") as aws:
        first, second = aws.launch(2)
        until(lambda: aws.state(second) == "running", "running")
        frozen, cut = aws.new_interface(), aws.new_interface()
        attachments = [aws.attach(frozen, first), aws.attach(cut, second)]
        hooks.dead |= {first, second}
        for attachment in attachments:
            aws.ec2.detach_network_interface(AttachmentId=attachment)
        time.sleep(STEP)
        assert aws.status(frozen)[1] == aws.status(cut)[1] == "detaching"
        hooks.dead.discard(first)
        aws.ec2.stop_instances(InstanceIds=[second], Force=True)
        until(lambda: aws.status(frozen)[0] == aws.status(cut)[0] == "available", "available")


def test_a_guest_may_detach_while_it_shuts_down() -> None:
    """A detach during a graceful stop ends before the stop does: the host that stops waits for it."""
    hooks = Recorder()
    with account(hooks) as aws:
        eni, (instance,) = aws.new_interface(), aws.launch()
        attachment = aws.attach(eni, instance)
        until(lambda: aws.status(eni)[1] == "attached", "attached")
        until(lambda: aws.state(instance) == "running", "running")
        hooks.held.clear()
        aws.ec2.stop_instances(InstanceIds=[instance])
        aws.ec2.detach_network_interface(AttachmentId=attachment)
        until(lambda: aws.status(eni)[0] == "available", "available")
        assert aws.state(instance) == "stopping"
        hooks.held.set()
        until(lambda: aws.state(instance) == "stopped", "stopped")


def test_a_termination_overtakes_a_detach() -> None:
    """An interface freed by the end of its instance may be somebody else's when the old detach ends."""
    hooks = Recorder()
    with account(hooks, dead_detach="stuck") as aws:
        eni, (first, second) = aws.new_interface(), aws.launch(2)
        until(lambda: aws.state(second) == "running", "running")
        hooks.dead.add(first)
        attachment = aws.attach(eni, first)
        aws.ec2.detach_network_interface(AttachmentId=attachment)
        aws.aws.settings.detach_delay = 0.1
        aws.ec2.terminate_instances(InstanceIds=[first])
        until(lambda: aws.status(eni)[0] == "available", "available")
        aws.attach(eni, second)
        until(lambda: aws.status(eni)[1] == "attached", "attached")
        until(lambda: ("plug", eni, second, 1) in hooks.events, "plugged")
        with refused("InvalidAttachmentID.NotFound"):
            aws.ec2.detach_network_interface(AttachmentId=attachment, Force=True)
        time.sleep(STEP / 2)
        assert hooks.events[-1] == ("plug", eni, second, 1)
        assert aws.interface(eni)["Attachment"]["InstanceId"] == second


def test_changes_of_the_network_are_told() -> None:
    """network_changed gets a picture that holds what was made before it was asked for."""
    hooks = Recorder()
    with account(hooks) as aws:
        eni, (instance,) = aws.new_interface(PrivateIpAddress="10.0.1.100"), aws.launch()
        aws.attach(eni, instance)
        until(lambda: aws.status(eni)[1] == "attached", "attached")
        aws.aws.settle()
        record = hooks.snapshots[-1].interfaces[eni]
        assert record.private_ips == ("10.0.1.100",)
        assert record.attachment is not None
        assert (record.attachment.instance_id, record.attachment.device_index) == (instance, 1)
        assert hooks.snapshots[-1] == aws.aws.snapshot()


def test_a_failing_hook_stops_nothing() -> None:
    """An error in a hook is logged; the transition goes on."""

    class Failing(Hooks):
        def instance_boot(self, instance: InstanceRecord) -> None:
            raise OSError("no host")

    with account(Failing()) as aws:
        (instance,) = aws.launch()
        until(lambda: aws.state(instance) == "running", "running")


def test_delays_are_of_the_call_alone() -> None:
    """api_delay holds a call up, not the calls beside it; hooks and transitions hold up none."""
    hooks = Recorder()
    hooks.boot_takes = 2.0
    with account(hooks) as aws:
        aws.launch()
        clients = [aws.client("ec2") for _ in range(6)]
        aws.aws.settings.api_delay = STEP
        began = time.monotonic()
        threads = [threading.Thread(target=client.describe_vpcs) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        took = time.monotonic() - began
        assert STEP <= took < 4 * STEP


# --- moves by one call -----------------------------------------------------------------------------------------------


def holder_of(aws: Account, *interfaces: str) -> list[str]:
    """Those of the interfaces that have 10.0.1.51."""
    return [eni for eni in interfaces if "10.0.1.51" in str(aws.interface(eni)["PrivateIpAddresses"])]


def test_a_moved_address_takes_effect_when_the_lab_says_so() -> None:
    """AssignPrivateIpAddresses: "Remapping an IP address is an asynchronous operation". Source: API reference."""
    with account(reassign_delay=STEP) as aws:
        old, new = aws.new_interface(), aws.new_interface()
        aws.ec2.assign_private_ip_addresses(NetworkInterfaceId=old, PrivateIpAddresses=["10.0.1.51"])
        start = time.monotonic()
        aws.ec2.assign_private_ip_addresses(
            NetworkInterfaceId=new, PrivateIpAddresses=["10.0.1.51"], AllowReassignment=True
        )
        assert holder_of(aws, old, new) == [old]
        until(lambda: holder_of(aws, old, new) == [new], "the address is with the other")
        assert time.monotonic() - start >= STEP


def test_a_replaced_route_and_a_moved_elastic_ip_take_effect_when_the_lab_says_so() -> None:
    """ReplaceRoute, AssociateAddress of one that is in use: the same delay. Source: no figure is published."""
    with account(reassign_delay=STEP) as aws:
        old, new = aws.new_interface(), aws.new_interface()
        table = aws.ec2.create_route_table(VpcId=aws.vpc)["RouteTable"]["RouteTableId"]
        route = {"RouteTableId": table, "DestinationCidrBlock": "0.0.0.0/0"}
        aws.ec2.create_route(NetworkInterfaceId=old, **route)
        allocation = aws.ec2.allocate_address(Domain="vpc")["AllocationId"]
        aws.ec2.associate_address(AllocationId=allocation, NetworkInterfaceId=old)

        def targets() -> tuple[str, str]:
            routes = aws.ec2.describe_route_tables(RouteTableIds=[table])["RouteTables"][0]["Routes"]
            (address,) = aws.ec2.describe_addresses(AllocationIds=[allocation])["Addresses"]
            return routes[-1]["NetworkInterfaceId"], address["NetworkInterfaceId"]

        start = time.monotonic()
        aws.ec2.replace_route(NetworkInterfaceId=new, **route)
        aws.ec2.associate_address(AllocationId=allocation, NetworkInterfaceId=new, AllowReassociation=True)
        assert targets() == (old, old)
        until(lambda: targets() == (new, new), "route and Elastic IP lead to the other")
        assert time.monotonic() - start >= STEP
