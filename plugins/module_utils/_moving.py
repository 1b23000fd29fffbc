# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the module eni_move does. This module util is PRIVATE to the collection.

Find the interface, predict the move, check what EC2 would refuse half-way (an interface taken from its holder and
then refused by the new one is an outage), move, and see to delete_on_termination. All under one deadline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Optional, Protocol

from ansible_collections.evernat.aws.plugins.module_utils._ec2 import (
    CALL_TIMEOUT,
    Ec2,
    Failure,
    to_interface,
    to_result,
)
from ansible_collections.evernat.aws.plugins.module_utils._eni_move import (
    Action,
    ApiError,
    Attachment,
    Clock,
    Interface,
    MoveError,
    Outcome,
    Wanted,
    move,
    predict,
)

MODIFY = "ModifyNetworkInterfaceAttribute"


class Module(Protocol):
    """What is used of AnsibleAWSModule."""

    check_mode: bool
    params: dict[str, Any]

    def warn(self, warning: str) -> None: ...


@dataclass(frozen=True)
class Instance:
    """The instance that shall hold the interface. interfaces: interface id per device index."""

    instance_id: str
    instance_type: str
    state: str
    availability_zone: str
    interfaces: Mapping[int, str]

    @classmethod
    def from_raw(cls, raw: dict[str, Any]) -> Instance:
        return cls(
            instance_id=raw["InstanceId"],
            instance_type=raw["InstanceType"],
            state=raw["State"]["Name"],
            availability_zone=raw["Placement"]["AvailabilityZone"],
            interfaces={
                each["Attachment"]["DeviceIndex"]: each["NetworkInterfaceId"]
                for each in raw.get("NetworkInterfaces", [])
            },
        )


def run(module: Module, ec2: Ec2, clock: Clock, deadline: float) -> dict[str, Any]:
    """Carry out the module's task, or raise Failure. Returns the module's result."""
    wanted = to_wanted(module.params)
    try:
        interface = find(ec2, module.params["eni_id"], module.params["filters"])
        wanted = replace(wanted, interface_id=interface.interface_id)
        before, raw_before = interface, ec2.raw
        after, actions = predict(interface, wanted)
        if actions:
            wanted = check(module, ec2, raw_before, interface, wanted)
            after, actions = predict(interface, wanted)
        else:
            refuse_other_index(interface, wanted)
        if module.check_mode:
            return predicted(module.params, before, after, actions, raw_before)
        outcome = move(ec2, clock, wanted, deadline, call_timeout=CALL_TIMEOUT, seen=interface)
    except MoveError as error:
        raise Failure(str(error), **failure_details(error)) from error
    except ApiError as error:
        raise Failure(f"EC2 could not be asked about the move: {error}", code=error.code) from error
    return finish(module.params, ec2, outcome)


def to_wanted(params: dict[str, Any]) -> Wanted:
    if params["state"] == "detached" and params["instance_id"]:
        raise Failure(
            "instance_id says where an interface goes, so it is not for state=detached. "
            "To detach the interface only from a certain instance, use from_instance_id."
        )
    try:
        return Wanted(
            interface_id=params["eni_id"] or "",
            instance_id=params["instance_id"],
            device_index=params["device_index"],
            from_instance_id=params["from_instance_id"],
            force=params["force"],
            detach_grace=params["detach_timeout"],
            wait=params["wait"],
        )
    except ValueError as error:
        raise Failure(str(error)) from error


def find(ec2: Ec2, eni_id: Optional[str], filters: Optional[dict[str, Any]]) -> Interface:
    """The one interface that is meant; Failure if there is none, or more than one."""
    if not eni_id and not filters:
        raise Failure("filters is empty: it would match every network interface of the region")
    wanted = {"network-interface-id": eni_id} if eni_id else dict(filters or {})
    found = ec2.interfaces(wanted)
    if not found:
        what = f"no network interface {eni_id}" if eni_id else f"no network interface that matches {wanted}"
        raise Failure(f"there is {what} in this account and region")
    if len(found) > 1:
        ids = ", ".join(sorted(each["NetworkInterfaceId"] for each in found))
        raise Failure(f"{len(found)} network interfaces match {wanted}, not one: {ids}")
    ec2.raw = found[0]
    return to_interface(found[0])


def check(module: Module, ec2: Ec2, raw: dict[str, Any], interface: Interface, wanted: Wanted) -> Wanted:
    """Refuse what EC2 would refuse, before the first write. Returns wanted with the instance's used indexes."""
    refuse_immovable(raw, interface)
    if wanted.instance_id is None:
        return wanted
    try:
        instance = Instance.from_raw(ec2.instance(wanted.instance_id))
    except ApiError as error:
        if error.code.startswith("InvalidInstanceID"):
            raise Failure(f"there is no instance {wanted.instance_id} in this account and region") from error
        raise
    refuse_instance(interface, wanted, instance)
    try:
        limit = ec2.interface_limit(instance.instance_type)
    except ApiError as error:
        if error.code != "UnauthorizedOperation":
            raise
        module.warn(
            "The instance type's limit of network interfaces was not checked: ec2:DescribeInstanceTypes is denied."
        )
    else:
        refuse_full(interface, instance, limit)
    others = {index for index, eni_id in instance.interfaces.items() if eni_id != interface.interface_id}
    return replace(wanted, used_indexes=frozenset(others))


def refuse_immovable(raw: dict[str, Any], interface: Interface) -> None:
    held = interface.held
    if held and held.device_index == 0:
        raise Failure(f"{interface.interface_id} is the primary interface of {held.instance_id}: EC2 never detaches it")
    operator = raw.get("Operator") or {}
    if interface.requester_managed or operator.get("Managed"):
        manager = operator.get("Principal") or raw.get("RequesterId") or "an AWS service"
        raise Failure(f"{interface.interface_id} is managed by {manager}: it cannot be attached or detached by others")


def refuse_instance(interface: Interface, wanted: Wanted, instance: Instance) -> None:
    if instance.state in ("shutting-down", "terminated"):
        raise Failure(f"{instance.instance_id} is {instance.state}: nothing can be attached to it")
    if instance.availability_zone != interface.availability_zone:
        raise Failure(
            f"{interface.interface_id} is in {interface.availability_zone} and {instance.instance_id} in "
            f"{instance.availability_zone}: a network interface cannot leave its availability zone"
        )
    there = instance.interfaces.get(wanted.device_index) if wanted.device_index is not None else None
    if there not in (None, interface.interface_id):
        raise Failure(f"device index {wanted.device_index} of {instance.instance_id} is taken by {there}")


def refuse_full(interface: Interface, instance: Instance, limit: int) -> None:
    others = sorted(set(instance.interfaces.values()) - {interface.interface_id})
    if len(others) >= limit:
        raise Failure(
            f"{instance.instance_id} is full: an instance of type {instance.instance_type} takes {limit} "
            f"network interface{'' if limit == 1 else 's'}, and it has {', '.join(others)}"
        )


def refuse_other_index(interface: Interface, wanted: Wanted) -> None:
    held = interface.held
    if held and held.instance_id == wanted.instance_id and wanted.device_index not in (None, held.device_index):
        raise Failure(
            f"{interface.interface_id} is on {held.instance_id} already, at device index {held.device_index} and not "
            f"{wanted.device_index}. Detach it first if it has to change its index."
        )


def predicted(
    params: dict[str, Any], before: Interface, after: Interface, actions: tuple[Action, ...], raw: dict[str, Any]
) -> dict[str, Any]:
    """The result of check mode; `interface` is as it is, with the attachment that it would have."""
    listed = [as_result(action) for action in actions]
    held = after.held
    if held is not None and wrong_flag(params, held):
        listed.append(flag_action(after, held, "predicted"))
        after = replace(after, attachment=replace(held, delete_on_termination=params["delete_on_termination"]))
    interface = to_result(raw)
    interface["status"] = after.status
    interface.pop("attachment", None)
    if after.held is not None:
        interface["attachment"] = asdict(after.held)
    return {
        "changed": bool(listed),
        "interface": interface,
        "instance_id": after.holder,
        "previous_instance_id": before.holder,
        "forced": any(action.force for action in actions),
        "duration": 0.0,
        "actions": listed,
        "diff": diff(before, after),
    }


def finish(params: dict[str, Any], ec2: Ec2, outcome: Outcome) -> dict[str, Any]:
    """See to delete_on_termination after the move, and build the result."""
    interface, listed = outcome.interface, [as_result(action) for action in outcome.actions]
    held, changed = interface.held, outcome.changed
    if held is not None and wrong_flag(params, held):
        wanted_flag = params["delete_on_termination"]
        try:
            ec2.set_delete_on_termination(interface.interface_id, held.attachment_id, wanted_flag)
            interface = ec2.interface(interface.interface_id)
        except ApiError as error:
            raise Failure(
                f"{interface}, but delete_on_termination could not be set to {wanted_flag}: {error}",
                code=error.code,
                changed=changed,
                actions=listed,
            ) from error
        listed.append(flag_action(interface, held, "ok"))
        changed = True
    return {
        "changed": changed,
        "interface": to_result(ec2.raw),
        "instance_id": interface.holder,
        "previous_instance_id": outcome.previous_instance_id,
        "forced": outcome.forced,
        "duration": round(outcome.duration, 3),
        "actions": listed,
        "diff": diff(outcome.before, interface),
    }


def wrong_flag(params: dict[str, Any], held: Attachment) -> bool:
    return params["state"] == "attached" and held.delete_on_termination != params["delete_on_termination"]


def flag_action(interface: Interface, held: Attachment, result: str) -> dict[str, Any]:
    return as_result(Action(MODIFY, result, held.instance_id, held.attachment_id or None))


def as_result(action: Action) -> dict[str, Any]:
    return {key: value for key, value in asdict(action).items() if value is not None}


def failure_details(error: MoveError) -> dict[str, Any]:
    seen = error.last_seen
    return {
        "code": error.code,
        "changed": any(action.may_have_acted for action in error.actions),
        "instance_id": seen.holder if seen else None,
        "duration": round(error.duration, 3),
        "actions": [as_result(action) for action in error.actions],
    }


def diff(before: Interface, after: Interface) -> dict[str, Any]:
    return {"before": _shown(before), "after": _shown(after)}


def _shown(interface: Interface) -> dict[str, Any]:
    held = interface.held
    return {
        "instance_id": interface.holder,
        "device_index": held.device_index if held else None,
        "status": interface.status,
    }
