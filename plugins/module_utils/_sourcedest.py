# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the module nat_sourcedest does. This module util is PRIVATE to the collection.

The check is an attribute of each interface. EC2 refuses to set it by the instance once that has two interfaces.
"""

from __future__ import annotations

from typing import Any

from ansible_collections.evernat.aws.plugins.module_utils._ec2 import Ec2, Failure
from ansible_collections.evernat.aws.plugins.module_utils._eni_move import ApiError

READ_BACK_INTERVAL = 0.5


def run(params: dict[str, Any], check_mode: bool, ec2: Ec2) -> dict[str, Any]:
    """Carry out the module's task, or raise Failure. Returns the module's result."""
    wanted: bool = params["source_dest_check"]
    try:
        found = find(ec2, params["eni_ids"], params["instance_ids"], params["interfaces"])
    except ApiError as error:
        raise Failure(f"the network interfaces could not be read: {error}", code=error.code) from error
    to_set = [eni_id for eni_id, raw in found.items() if raw["SourceDestCheck"] != wanted]
    done: list[str] = []
    if not check_mode:
        for eni_id in to_set:
            try:
                ec2.set_source_dest_check(eni_id, wanted)
            except ApiError as error:
                message = f"the source/dest check of {eni_id} could not be set to {wanted}: {error}"
                raise Failure(message, code=error.code, **result(found, done, wanted)) from error
            done.append(eni_id)
        if done:
            read_back(ec2, found, done, wanted)
    return result(found, to_set, wanted)


def find(ec2: Ec2, eni_ids: list[str], instance_ids: list[str], interfaces: str) -> dict[str, dict[str, Any]]:
    """The interfaces that are meant, by id; Failure if an id leads to none."""
    found: dict[str, dict[str, Any]] = {}
    if eni_ids:
        found.update(_by_id(ec2.interfaces({"network-interface-id": eni_ids})))
        unknown = sorted(set(eni_ids) - set(found))
        if unknown:
            raise Failure(f"there is no network interface {', '.join(unknown)} in this account and region")
    if instance_ids:
        filters: dict[str, Any] = {"attachment.instance-id": instance_ids}
        if interfaces == "primary":
            filters["attachment.device-index"] = "0"
        held = ec2.interfaces(filters)
        empty = sorted(set(instance_ids) - {raw["Attachment"]["InstanceId"] for raw in held})
        if empty:
            raise Failure(
                f"{', '.join(empty)} has no network interface: there is no such instance, or it is terminated"
            )
        found.update(_by_id(held))
    return dict(sorted(found.items()))


def read_back(ec2: Ec2, found: dict[str, dict[str, Any]], done: list[str], wanted: bool) -> None:
    """Wait until EC2 shows what it accepted; Failure at the deadline."""
    while True:
        try:
            shown = ec2.interfaces({"network-interface-id": done})
        except ApiError as error:
            message = f"the source/dest check was set, but could not be read back: {error}"
            raise Failure(message, code=error.code, **result(found, done, wanted)) from error
        right = {raw["NetworkInterfaceId"] for raw in shown if raw["SourceDestCheck"] == wanted}
        wrong = [eni_id for eni_id in done if eni_id not in right]
        if not wrong:
            return
        if not ec2.pause(READ_BACK_INTERVAL):
            message = f"EC2 accepted source/dest check {wanted} for {', '.join(wrong)}, but does not show it in time"
            raise Failure(message, **result(found, done, wanted))


def result(found: dict[str, dict[str, Any]], changed: list[str], wanted: bool) -> dict[str, Any]:
    """changed: the ids whose check was set, or would be."""
    before = {eni_id: raw["SourceDestCheck"] for eni_id, raw in found.items()}
    after = {eni_id: wanted if eni_id in changed else value for eni_id, value in before.items()}
    return {
        "changed": bool(changed),
        "interfaces": [
            {
                "eni_id": eni_id,
                "instance_id": (raw.get("Attachment") or {}).get("InstanceId"),
                "device_index": (raw.get("Attachment") or {}).get("DeviceIndex"),
                "before": before[eni_id],
                "after": after[eni_id],
            }
            for eni_id, raw in found.items()
        ],
        "diff": {"before": before, "after": after},
    }


def _by_id(listed: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {raw["NetworkInterfaceId"]: raw for raw in listed}
