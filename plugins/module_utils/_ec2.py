# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""EC2 through boto3 and amazon.aws, under one deadline. This module util is PRIVATE to the collection.

All that the collection takes from amazon.aws is imported here. Errors are the engine's ApiError. amazon.aws's own
helpers retry for minutes and know no deadline, so calls go to the client without them and are retried here.
"""

from __future__ import annotations

import random
from typing import Any, Callable, Optional

try:
    import botocore.config
    import botocore.exceptions
    import botocore.parsers
except ImportError:
    pass  # AnsibleAWSModule says what is missing

from ansible.module_utils.common.dict_transformations import camel_dict_to_snake_dict
from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule
from ansible_collections.amazon.aws.plugins.module_utils.tagging import boto3_tag_list_to_ansible_dict
from ansible_collections.amazon.aws.plugins.module_utils.transformation import ansible_dict_to_boto3_filter_list
from ansible_collections.evernat.aws.plugins.module_utils._eni_move import (
    BACKOFF_MAX,
    BACKOFF_MIN,
    ApiError,
    Attachment,
    Clock,
    Interface,
)

CALL_TIMEOUT = 10.0
# boto3 fixes a client's timeouts when it is made: one client for each of these, made when it is needed.
TIMEOUTS = (CALL_TIMEOUT, 5.0, 2.0, 1.0, 0.5)


class Failure(Exception):
    """The module fails with this message; `details` go into its result."""

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.details = details


def make_module(argument_spec: dict[str, Any], **settings: Any) -> AnsibleAWSModule:
    """An AWS module with check mode, which accepts amazon.aws's common options."""
    return AnsibleAWSModule(argument_spec=argument_spec, supports_check_mode=True, **settings)


class Ec2:
    """The EC2 of a module's region; a `Client` of the engine.

    raw: the last answer about an interface, as EC2 gave it.
    """

    def __init__(
        self,
        connect: Callable[[float], Any],
        clock: Clock,
        deadline: float,
        rng: Optional[random.Random] = None,
    ) -> None:
        """connect: makes a boto3 client whose calls take at most so many seconds."""
        self._connect = connect
        self._clients: dict[float, Any] = {}
        self._clock = clock
        self._deadline = deadline
        self._rng = rng or random.Random()
        self.raw: dict[str, Any] = {}

    # The engine's client: one call each, no retries.

    def describe(self, interface_id: str, timeout: float) -> Interface:
        found = self._interfaces({"network-interface-id": interface_id}, timeout)
        if not found:
            raise _unknown_interface(interface_id)
        self.raw = found[0]
        return to_interface(found[0])

    def attach(self, interface_id: str, instance_id: str, device_index: int, timeout: float) -> str:
        answer = self._call(
            "attach_network_interface",
            timeout,
            NetworkInterfaceId=interface_id,
            InstanceId=instance_id,
            DeviceIndex=device_index,
        )
        return str(answer["AttachmentId"])

    def detach(self, attachment_id: str, force: bool, timeout: float) -> None:
        self._call("detach_network_interface", timeout, AttachmentId=attachment_id, Force=force)

    # Calls that are retried until the deadline.

    def interface(self, interface_id: str) -> Interface:
        """Read one interface; ApiError InvalidNetworkInterfaceID.NotFound if there is none."""
        return self.retrying(lambda left: self.describe(interface_id, left))

    def interfaces(self, filters: dict[str, Any]) -> list[dict[str, Any]]:
        return self.retrying(lambda left: self._interfaces(filters, left))

    def instance(self, instance_id: str) -> dict[str, Any]:
        """Read one instance; ApiError InvalidInstanceID.NotFound if there is none."""
        answer = self.retrying(
            lambda left: self._call(
                "describe_instances", left, Filters=[{"Name": "instance-id", "Values": [instance_id]}]
            )
        )
        for reservation in answer["Reservations"]:
            for instance in reservation["Instances"]:
                return dict(instance)
        raise ApiError("InvalidInstanceID.NotFound", f"The instance ID '{instance_id}' does not exist")

    def interface_limit(self, instance_type: str) -> int:
        """How many network interfaces an instance of this type takes."""
        answer = self.retrying(lambda left: self._call("describe_instance_types", left, InstanceTypes=[instance_type]))
        return int(answer["InstanceTypes"][0]["NetworkInfo"]["MaximumNetworkInterfaces"])

    def set_delete_on_termination(self, interface_id: str, attachment_id: str, value: bool) -> None:
        self._modify(interface_id, Attachment={"AttachmentId": attachment_id, "DeleteOnTermination": value})

    def set_source_dest_check(self, interface_id: str, value: bool) -> None:
        self._modify(interface_id, SourceDestCheck={"Value": value})

    def _modify(self, interface_id: str, **attribute: Any) -> None:
        # Setting an attribute to a value may be repeated after a lost reply.
        self.retrying(
            lambda left: self._call(
                "modify_network_interface_attribute", left, NetworkInterfaceId=interface_id, **attribute
            )
        )

    def retrying(self, call: Callable[[float], Any]) -> Any:
        """Carry out a call that may be repeated, until it succeeds, is refused for good, or the deadline passes."""
        times = 0
        while True:
            left = self._deadline - self._clock.now()
            try:
                return call(max(left, TIMEOUTS[-1]))
            except ApiError as error:
                times += 1
                pause = self._rng.uniform(BACKOFF_MIN, min(BACKOFF_MAX, BACKOFF_MIN * 2**times))
                if not (error.lost or error.busy) or self._clock.now() + pause >= self._deadline:
                    raise
                self._clock.sleep(pause)

    def pause(self, seconds: float) -> bool:
        """Sleep, if the deadline allows it."""
        if self._clock.now() + seconds >= self._deadline:
            return False
        self._clock.sleep(seconds)
        return True

    def _interfaces(self, filters: dict[str, Any], timeout: float) -> list[dict[str, Any]]:
        # By filter, also for an id: EC2 throttles unfiltered reads five times as early.
        found: list[dict[str, Any]] = []
        token: dict[str, str] = {}
        while True:
            answer = self._call(
                "describe_network_interfaces", timeout, Filters=ansible_dict_to_boto3_filter_list(filters), **token
            )
            found += answer["NetworkInterfaces"]
            if not answer.get("NextToken"):
                return found
            token = {"NextToken": answer["NextToken"]}

    def _call(self, operation: str, timeout: float, **parameters: Any) -> Any:
        try:
            return getattr(self._client(timeout), operation)(**parameters)
        except (
            botocore.exceptions.ClientError,
            botocore.exceptions.BotoCoreError,
            botocore.parsers.ResponseParserError,
        ) as error:
            raise to_api_error(error) from error

    def _client(self, timeout: float) -> Any:
        cap = next((cap for cap in TIMEOUTS if cap <= timeout), TIMEOUTS[-1])
        if cap not in self._clients:
            self._clients[cap] = self._connect(cap)
        return self._clients[cap]


def connect_by(module: AnsibleAWSModule) -> Callable[[float], Any]:
    """Clients with the module's options and, unless its aws_config says otherwise, the given seconds for a call."""

    def connect(seconds: float) -> Any:
        config = botocore.config.Config(
            connect_timeout=seconds * 0.3,
            read_timeout=seconds * 0.7,
            retries={"mode": "standard", "total_max_attempts": 1},
        )
        return module.client("ec2", config=config)

    return connect


def to_api_error(error: Exception) -> ApiError:
    """botocore's exception as the engine's."""
    if isinstance(error, botocore.exceptions.ClientError):
        return _from_answer(error.response)
    name, text = type(error).__name__, str(error)
    if isinstance(error, (botocore.exceptions.ConnectTimeoutError, botocore.exceptions.ReadTimeoutError)):
        return ApiError("Timeout", text)
    if isinstance(error, botocore.exceptions.SSLError):
        return ApiError(name, text)  # a certificate that is not trusted is not trusted the next time either
    if isinstance(error, (botocore.exceptions.HTTPClientError, botocore.exceptions.ConnectionError)):
        return ApiError("ConnectionError", text)
    if isinstance(error, botocore.parsers.ResponseParserError):
        return ApiError("BadAnswer", text)
    return ApiError(name, text)


def _from_answer(response: dict[str, Any]) -> ApiError:
    error, metadata = response.get("Error", {}), response.get("ResponseMetadata", {})
    code = str(error.get("Code") or "Unknown")
    status = metadata.get("HTTPStatusCode", 0)
    known = ApiError(code, str(error.get("Message") or ""), str(metadata.get("RequestId") or ""))
    if known.lost or known.busy or status not in (429, 500, 502, 503, 504):
        return known
    # What stands before EC2 (a proxy, a load balancer) answers in its own words.
    code = {429: "RequestLimitExceeded", 503: "Unavailable"}.get(status, "InternalError")
    return ApiError(code, f"{known.message} (HTTP status {status})", known.request_id)


def to_interface(raw: dict[str, Any]) -> Interface:
    """EC2's description of an interface as the engine's."""
    held = raw.get("Attachment")
    return Interface(
        interface_id=raw["NetworkInterfaceId"],
        status=raw["Status"],
        attachment=to_attachment(held) if held else None,
        mac_address=raw.get("MacAddress", ""),
        private_ip=raw.get("PrivateIpAddress", ""),
        subnet_id=raw.get("SubnetId", ""),
        availability_zone=raw.get("AvailabilityZone", ""),
        source_dest_check=raw.get("SourceDestCheck"),
        requester_managed=bool(raw.get("RequesterManaged")),
    )


def to_attachment(raw: dict[str, Any]) -> Attachment:
    return Attachment(
        attachment_id=raw["AttachmentId"],
        instance_id=raw.get("InstanceId") or raw.get("InstanceOwnerId", ""),
        device_index=raw.get("DeviceIndex", 0),
        status=raw.get("Status", "attached"),
        delete_on_termination=bool(raw.get("DeleteOnTermination")),
    )


def to_result(raw: dict[str, Any]) -> dict[str, Any]:
    """EC2's description of an interface as a module returns it: snake_case, tags as a dictionary."""
    result = camel_dict_to_snake_dict({key: value for key, value in raw.items() if key != "TagSet"})
    result["tags"] = boto3_tag_list_to_ansible_dict(raw.get("TagSet") or [])
    return dict(result)


def _unknown_interface(interface_id: str) -> ApiError:
    return ApiError("InvalidNetworkInterfaceID.NotFound", f"The networkInterface ID '{interface_id}' does not exist")
