# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A boto3 client of EC2 without a network: two hosts, an interface between them, and answers that can be prepared."""

from __future__ import annotations

import copy
from typing import Any, Optional

from botocore.exceptions import ClientError

ENI, A, B = "eni-1", "i-a", "i-b"


def refusal(code: str, message: str = "no", status: int = 400) -> ClientError:
    response = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status, "RequestId": "req-7", "HTTPHeaders": {}},
    }
    return ClientError(response, "SomeCall")


def attachment(instance_id: str, index: int, number: str = "1", **more: Any) -> dict[str, Any]:
    return {
        "AttachmentId": f"eni-attach-{number}",
        "InstanceId": instance_id,
        "DeviceIndex": index,
        "Status": "attached",
        "DeleteOnTermination": False,
        **more,
    }


def interface(eni_id: str, held: Optional[dict[str, Any]] = None, **more: Any) -> dict[str, Any]:
    raw = {
        "NetworkInterfaceId": eni_id,
        "Status": "in-use" if held else "available",
        "AvailabilityZone": "eu-west-1a",
        "MacAddress": "02:00:00:00:00:01",
        "PrivateIpAddress": "10.0.0.10",
        "RequesterManaged": False,
        "SourceDestCheck": True,
        "SubnetId": "subnet-1",
        "TagSet": [{"Key": "Name", "Value": "nat"}],
        "Association": {"PublicIp": "198.51.100.7", "AllocationId": "eipalloc-1"},
        **more,
    }
    return {**raw, "Attachment": held} if held else raw


class FakeBoto:
    """Acts at once. `prepared` holds, per operation, errors and answers to give first; `calls` what was asked."""

    def __init__(self, *interfaces: dict[str, Any], **instances: dict[str, Any]) -> None:
        if not interfaces:
            interfaces = (interface(ENI, attachment(A, 1)),)
        self.interfaces = {raw["NetworkInterfaceId"]: raw for raw in interfaces}
        for name in (A, B):
            self.interfaces[f"eni-{name}"] = interface(f"eni-{name}", attachment(name, 0, f"{name}-0"))
        self.instances = {name: {"zone": "eu-west-1a", "state": "running"} for name in (A, B)}
        self.instances.update({name.replace("_", "-"): facts for name, facts in instances.items()})
        self.limit = 2
        self.prepared: dict[str, list[Any]] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def writes(self) -> list[str]:
        return [name for name, _parameters in self.calls if not name.startswith("describe")]

    def __getattr__(self, operation: str) -> Any:
        act = object.__getattribute__(self, f"do_{operation}")

        def call(**parameters: Any) -> Any:
            self.calls.append((operation, parameters))
            prepared = self.prepared.get(operation)
            answer = prepared.pop(0) if prepared else None
            if isinstance(answer, Exception):
                raise answer
            return copy.deepcopy(answer if answer is not None else act(**parameters))

        return call

    def do_describe_network_interfaces(self, Filters: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        found = [raw for raw in self.interfaces.values() if all(_matches(raw, each) for each in Filters)]
        return {"NetworkInterfaces": found}

    def do_describe_instances(self, Filters: list[dict[str, Any]]) -> dict[str, Any]:
        found = [self._instance(name) for name in Filters[0]["Values"] if name in self.instances]
        return {"Reservations": [{"Instances": found}] if found else []}

    def _instance(self, name: str) -> dict[str, Any]:
        facts = self.instances[name]
        held = [raw for raw in self.interfaces.values() if raw.get("Attachment", {}).get("InstanceId") == name]
        return {
            "InstanceId": name,
            "InstanceType": "t3.micro",
            "State": {"Name": facts["state"]},
            "Placement": {"AvailabilityZone": facts["zone"]},
            "NetworkInterfaces": held,
        }

    def do_describe_instance_types(self, InstanceTypes: list[str]) -> dict[str, Any]:
        network = {"MaximumNetworkInterfaces": self.limit}
        return {"InstanceTypes": [{"InstanceType": InstanceTypes[0], "NetworkInfo": network}]}

    def do_attach_network_interface(self, NetworkInterfaceId: str, InstanceId: str, DeviceIndex: int) -> dict[str, Any]:
        raw = self.interfaces[NetworkInterfaceId]
        if "Attachment" in raw:
            raise refusal("InvalidNetworkInterface.InUse")
        raw.update(Status="in-use", Attachment=attachment(InstanceId, DeviceIndex, "2"))
        return {"AttachmentId": "eni-attach-2"}

    def do_detach_network_interface(self, AttachmentId: str, Force: bool) -> dict[str, Any]:
        for raw in self.interfaces.values():
            if raw.get("Attachment", {}).get("AttachmentId") == AttachmentId:
                del raw["Attachment"]
                raw["Status"] = "available"
                return {}
        raise refusal("InvalidAttachmentID.NotFound")

    def do_modify_network_interface_attribute(self, NetworkInterfaceId: str, **attribute: Any) -> dict[str, Any]:
        raw = self.interfaces[NetworkInterfaceId]
        if "SourceDestCheck" in attribute:
            raw["SourceDestCheck"] = attribute["SourceDestCheck"]["Value"]
        else:
            assert attribute["Attachment"]["AttachmentId"] == raw["Attachment"]["AttachmentId"]
            raw["Attachment"]["DeleteOnTermination"] = attribute["Attachment"]["DeleteOnTermination"]
        return {}


def _matches(raw: dict[str, Any], wanted: dict[str, Any]) -> bool:
    held = raw.get("Attachment", {})
    tags = {tag["Key"]: tag["Value"] for tag in raw["TagSet"]}
    values = {
        "network-interface-id": raw["NetworkInterfaceId"],
        "attachment.instance-id": held.get("InstanceId"),
        "attachment.device-index": str(held.get("DeviceIndex")),
        "tag:Name": tags.get("Name"),
    }
    return values[wanted["Name"]] in wanted["Values"]
