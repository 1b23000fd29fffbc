# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Instances: checked when they are launched, with states that take time, and what their end does to interfaces."""

from __future__ import annotations

import copy
import threading
from functools import partial
from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.core.utils import utcnow
from moto.ec2.models.iam_instance_profile import IamInstanceProfileAssociation
from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.ec2.models.instances import Instance, InstanceBackend, StateReason
from moto.ec2.responses.instances import InstanceResponse
from moto.iam.exceptions import NotFoundException

from lab.aws import interfaces, snapshot
from lab.aws.errors import refusal
from lab.aws.patching import replace
from lab.aws.world import world

STATE_CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}


def set_state(instance: Any, name: str) -> None:
    instance._state.name = name
    instance._state.code = STATE_CODES[name]


# --- launch ---------------------------------------------------------------------------------------------------


def init_instance(self: Instance, *arguments: Any, **more: Any) -> None:
    self.booted = threading.Event()  # type: ignore[attr-defined]  # the hook instance_boot has returned
    self._groups = []  # type: ignore[attr-defined]
    self.nics = {}
    _init_instance(self, *arguments, **more)
    set_state(self, "pending")


def respond_run(self: Any) -> ActionResult:
    """RunInstances: all or nothing, once for a client token."""
    get = self._get_param
    count, least = int(get("MaxCount")), int(get("MinCount"))
    if not 1 <= least <= count:
        raise refusal("InvalidParameterValue", f"Value ({least}) for parameter minCount is invalid.")
    backend = self.ec2_backend
    _check_launch(backend, get)
    profile = _profile(self.current_account, self.partition, get)
    self.error_on_dryrun()
    tokens = backend.__dict__.setdefault("launch_tokens", {})
    token, asked = get("ClientToken"), {key: value for key, value in self.data.items() if key != "DryRun"}
    if token in tokens:
        before, reservation = tokens[token]
        if before != asked:
            raise refusal("IdempotentParameterMismatch", "Arguments on this idempotent request are inconsistent.")
        return ActionResult(reservation)
    reservation = _launch(self, count, profile)
    if token:
        tokens[token] = (asked, reservation)
    return ActionResult(reservation)


def _check_launch(backend: Any, get: Any) -> None:
    """What EC2 refuses before it makes anything."""
    instance_type = get("InstanceType") or "m1.small"
    if instance_type not in INSTANCE_TYPES:
        raise refusal("InvalidParameterValue", f"Invalid value '{instance_type}' for InstanceType.")
    if not get("ImageId") and not get("LaunchTemplate"):
        raise refusal("MissingParameter", "The request must contain the parameter ImageId")
    nics = get("NetworkInterfaces") or []
    if nics and get("SubnetId"):
        raise refusal(
            "InvalidParameterCombination",
            "Network interfaces and an instance-level subnet ID may not be specified on the same request",
        )
    if nics and get("SecurityGroupIds"):
        raise refusal(
            "InvalidParameterCombination",
            "Network interfaces and an instance-level security groups may not be specified on the same request",
        )
    if not nics and not get("SubnetId"):
        raise refusal("MissingInput", "No subnets found for the default VPC. Please specify a subnet.")
    _check_nics(backend, nics, instance_type)
    if get("PrivateIpAddress"):
        if int(get("MaxCount")) > 1:
            raise refusal("InvalidParameterCombination", "A private address is for one instance only")
        interfaces.check_address(backend.get_subnet(get("SubnetId")), get("PrivateIpAddress"))


def _check_nics(backend: Any, nics: list[dict[str, Any]], instance_type: str) -> None:
    indexes = [int(nic.get("DeviceIndex", 0)) for nic in nics]
    if nics and (0 not in indexes or len(set(indexes)) != len(indexes)):
        raise refusal("InvalidParameterValue", "Each interface needs a device index of its own, and one of them is 0")
    limit = interfaces.interface_limit(instance_type)
    if len(nics) > limit:
        raise refusal("AttachmentLimitExceeded", f"Interface count {len(nics)} exceeds the limit for {instance_type}")
    if len(nics) > 1 and any(nic.get("AssociatePublicIpAddress") for nic in nics):
        raise refusal(
            "InvalidParameterCombination",
            "The associatePublicIPAddress parameter cannot be specified when launching with "
            "multiple network interfaces.",
        )
    for nic in nics:
        if nic.get("NetworkInterfaceId"):
            interfaces.check_free(backend.get_network_interface(nic["NetworkInterfaceId"]))


def _profile(account: str, partition: str, get: Any) -> Any:
    """The instance profile that is asked for, or None."""
    from moto.iam.models import iam_backends

    name, arn = get("IamInstanceProfile.Name"), get("IamInstanceProfile.Arn")
    if not name and not arn:
        return None
    backend = iam_backends[account][partition]
    try:
        return backend.get_instance_profile_by_arn(arn) if arn else backend.get_instance_profile(name)
    except NotFoundException:
        which, value = ("arn", arn) if arn else ("name", name)
        raise refusal(
            "InvalidParameterValue",
            f"Value ({value}) for parameter iamInstanceProfile.{which} is invalid. "
            f"Invalid IAM Instance Profile {which}",
        ) from None


def _launch(response: Any, count: int, profile: Any) -> Any:
    """Let moto launch; then what it leaves out: all instances get the profile, their interfaces go with them."""
    backend, get = response.ec2_backend, response._get_param
    response._get_param = lambda name, if_none=None: (
        count if name == "MinCount" else None if name.startswith("IamInstanceProfile.") else get(name, if_none)
    )
    try:
        result = _respond_run(response)
    finally:
        response._get_param = get
    reservation = result.result
    kept = {nic["NetworkInterfaceId"] for nic in get("NetworkInterfaces") or [] if nic.get("NetworkInterfaceId")}
    asked = {int(nic.get("DeviceIndex", 0)): nic for nic in get("NetworkInterfaces") or []}
    for instance in reservation.instances:
        instance.reservation_id = reservation.id
        instance.client_token = get("ClientToken")
        for index, eni in instance.nics.items():
            eni.delete_on_termination = (
                eni.id not in kept and asked.get(index, {}).get("DeleteOnTermination") is not False
            )
        if profile is not None:
            backend.associate_iam_instance_profile(instance.id, iam_instance_profile_name=profile.name)
        power_on(instance)
    return reservation


def init_profile_association(self: Any, *arguments: Any, **more: Any) -> None:
    _init_profile_association(self, *arguments, **more)
    self.instance.iam_instance_profile = {"Arn": self.iam_instance_profile.arn, "Id": self.iam_instance_profile.id}


# --- power --------------------------------------------------------------------------------------------------------


def power_on(instance: Any) -> None:
    delay = world().settings.pending_delay
    instance.booted.clear()
    world().after_call(delay, partial(_boot, instance, delay))


def _boot(instance: Any, delay: float) -> None:
    here = world()
    with here.lock:
        if instance.state not in interfaces.RUNNING:
            instance.booted.set()
            return
        record = snapshot.instance_record(instance)
        for index in record.interfaces:
            instance.nics[index].linked = True
    here.hook(here.hooks.instance_boot, record)
    instance.booted.set()
    here.wait(delay)
    with here.lock:
        if instance.state == "pending":
            set_state(instance, "running")
    here.changed()


def _after(delay: float, instance: Any, task: Any) -> None:
    """After the call; one that has to wait for a boot to end does not hold the call up."""
    world().after_call(delay if instance.booted.is_set() else max(delay, 0.001), task)


def _power_off(instance: Any, graceful: bool, terminate: bool, delay: float) -> None:
    here = world()
    here.wait_for(instance.booted)
    here.hook(here.hooks.instance_power_off, instance.id, graceful, terminate)
    here.wait(delay)
    with here.lock:
        for eni in instance.nics.values():
            eni.linked = False
    if terminate:
        _end(instance)
    else:
        with here.lock:
            if instance.state == "stopping":
                _stop(instance)
    here.changed()


def _end(instance: Any) -> None:
    """Terminated: interfaces made to go with it are deleted, the others are available."""
    here = world()
    with here.lock:
        leaving = list(instance.nics.values())
    for eni in leaving:
        here.hook(here.hooks.interface_unplug, eni.id, instance.id)
    with here.lock:
        for eni in list(instance.nics.values()):
            goes = eni.delete_on_termination
            interfaces.let_go(instance, eni)
            if goes:
                interfaces.remove(instance.ec2_backend, eni)
        _terminate(instance)


def start_instances(backend: Any, instance_ids: list[str]) -> list[tuple[Any, Any]]:
    found = backend.get_multi_instances_by_id(instance_ids)
    for instance in found:
        if instance.state not in ("stopped", "running", "pending"):
            raise _wrong_state(instance, "started")
    changes = []
    for instance in found:
        previous = copy.copy(instance._state)
        if instance.state == "stopped":
            instance.start()
            set_state(instance, "pending")
            instance.launch_time = utcnow()
            power_on(instance)
        changes.append((instance, previous))
    return changes


def stop_instances(backend: Any, instance_ids: list[str], force: bool = False) -> list[tuple[Any, Any]]:
    found = backend.get_multi_instances_by_id(instance_ids)
    for instance in found:
        if instance.state not in ("running", "stopping", "stopped"):
            raise _wrong_state(instance, "stopped")
        if instance.disable_api_stop:
            raise refusal("OperationNotPermitted", f"The instance '{instance.id}' may not be stopped.")
    changes = []
    for instance in found:
        previous = copy.copy(instance._state)
        if instance.state == "running":
            set_state(instance, "stopping")
            instance.state_reason = StateReason(
                "Client.UserInitiatedShutdown: User initiated shutdown", "Client.UserInitiatedShutdown"
            )
            delay = world().settings.stopping_delay
            _after(delay, instance, partial(_power_off, instance, not force, False, delay))
        changes.append((instance, previous))
    return changes


def terminate_instances(backend: Any, instance_ids: list[str]) -> list[tuple[Any, Any]]:
    found = backend.get_multi_instances_by_id(instance_ids)
    for instance in found:
        if instance.disable_api_termination:
            raise refusal(
                "OperationNotPermitted",
                f"The instance '{instance.id}' may not be terminated. Modify its 'disableApiTermination' instance "
                "attribute and try again.",
            )
    changes = []
    for instance in found:
        previous = copy.copy(instance._state)
        if instance.state not in interfaces.GONE:
            set_state(instance, "shutting-down")
            delay = world().settings.terminating_delay
            _after(delay, instance, partial(_power_off, instance, True, True, delay))
        changes.append((instance, previous))
    return changes


def reboot_instances(backend: Any, instance_ids: list[str]) -> list[Any]:
    found = backend.get_multi_instances_by_id(instance_ids)
    for instance in found:
        if instance.state != "running":
            raise _wrong_state(instance, "rebooted")
    for instance in found:
        world().after_call(0, partial(_reboot, instance))
    return found


def _reboot(instance: Any) -> None:
    here = world()
    instance.booted.clear()
    here.hook(here.hooks.instance_power_off, instance.id, True, False)
    with here.lock:
        for eni in instance.nics.values():
            eni.linked = False
    _boot(instance, 0)


def _wrong_state(instance: Any, verb: str) -> Exception:
    return refusal(
        "IncorrectInstanceState", f"The instance '{instance.id}' is not in a state from which it can be {verb}."
    )


def respond_power(action: str, element: str) -> Any:
    """Start-, Stop- and TerminateInstances tell the state before and now."""

    def respond(self: Any) -> ActionResult:
        self.error_on_dryrun()
        more = {}
        if action == "stop_instances":
            more["force"] = str(self._get_param("Force")).lower() == "true"
        changes = getattr(self.ec2_backend, action)(self._get_param("InstanceIds", []), **more)
        shown = [
            {"InstanceId": instance.id, "CurrentState": copy.copy(instance._state), "PreviousState": previous}
            for instance, previous in changes
        ]
        return ActionResult({element: shown})

    return respond


# --- attributes -----------------------------------------------------------------------------------------------------


def respond_modify(self: Any) -> EmptyResult:
    self.error_on_dryrun()
    instance = self.ec2_backend.get_instance(self._get_param("InstanceId"))
    of_interface = self._get_param("SourceDestCheck.Value") is not None or self._get_param("Groups")
    if of_interface or self._get_param("Attribute") in ("sourceDestCheck", "groupSet"):
        _check_one_interface(instance)
    if self._get_param("Groups"):
        interfaces.set_groups(self.ec2_backend, instance.nics[0], self._get_param("Groups"))
        return EmptyResult()
    needs_stop = [
        name for name in ("InstanceType", "UserData", "Kernel") if self._get_param(f"{name}.Value") is not None
    ]
    if needs_stop and instance.state != "stopped":
        raise refusal("IncorrectInstanceState", f"The instance '{instance.id}' is not in the 'stopped' state.")
    return _respond_modify(self)


def _check_one_interface(instance: Any) -> None:
    if len(instance.nics) > 1:
        raise refusal(
            "InvalidInstanceID",
            f"There are multiple interfaces attached to instance '{instance.id}'. "
            "Please specify an interface ID for the operation instead.",
        )


def respond_metadata_options(self: Any) -> ActionResult:
    """Options that a call does not name stay as they are."""
    self.error_on_dryrun()
    get = self._get_param
    options = self.ec2_backend.get_instance(get("InstanceId")).metadata_options
    for attribute, value in (
        ("http_tokens", get("HttpTokens")),
        ("http_put_response_hop_limit", get("HttpPutResponseHopLimit")),
        ("http_endpoint", get("HttpEndpoint")),
        ("http_protocol_ipv6", get("HttpProtocolIpv6")),
        ("instance_metadata_tags", get("InstanceMetadataTags")),
    ):
        if value is not None:
            setattr(options, attribute, value)
    return ActionResult({"InstanceId": get("InstanceId"), "InstanceMetadataOptions": options})


def of_primary(name: str, default: Any = None) -> property:
    """An attribute of an instance that is its primary interface's; it has none once it is terminated."""

    def get(instance: Any) -> Any:
        return getattr(instance.nics[0], name) if 0 in instance.nics else default

    def put(instance: Any, value: Any) -> None:
        if 0 in instance.nics:
            setattr(instance.nics[0], name, value)

    return property(get, put)


def _get_groups(instance: Any) -> list[Any]:
    return list(instance.nics[0].group_set) if 0 in instance.nics else instance._groups


def _set_groups(instance: Any, groups: list[Any]) -> None:
    instance._groups = groups
    if 0 in instance.nics:
        instance.nics[0]._group_set = groups


def _in_subnet(name: str) -> property:
    """The subnet and VPC of an instance, which it has no more once it is terminated."""

    def get(instance: Any) -> Any:
        if instance.state == "terminated":
            return None
        if 0 in instance.nics:
            return getattr(instance.nics[0], name)
        if not getattr(instance, "_subnet_id", None):
            return None
        return (
            instance._subnet_id if name == "subnet_id" else instance.ec2_backend.get_subnet(instance._subnet_id).vpc_id
        )

    return property(get)


def _private_dns_name(instance: Any) -> str:
    if not instance.private_ip:
        return ""
    return f"ip-{instance.private_ip.replace('.', '-')}.{instance.ec2_backend.region_name}.compute.internal"


def apply() -> None:
    """Put all of this in moto's place."""
    global _init_instance, _respond_run, _respond_modify, _stop, _terminate, _init_profile_association
    # RunInstances: MaxCount, checks before anything is made, one launch per client token, the profile for all.
    _init_instance = replace(Instance, "__init__", init_instance)
    _respond_run = replace(InstanceResponse, "run_instances", respond_run)
    # The id of an instance's profile is the profile's.
    _init_profile_association = replace(IamInstanceProfileAssociation, "__init__", init_profile_association)
    # States take time and are checked; a terminated instance never starts again.
    _stop, _terminate = Instance.stop, Instance.terminate
    for action, element in (
        ("start_instances", "StartingInstances"),
        ("stop_instances", "StoppingInstances"),
        ("terminate_instances", "TerminatingInstances"),
    ):
        replace(InstanceBackend, action, globals()[action])
        replace(InstanceResponse, action, respond_power(action, element))
    replace(InstanceBackend, "reboot_instances", reboot_instances)
    # ModifyInstanceAttribute of what belongs to an interface is refused when there are several.
    _respond_modify = replace(InstanceResponse, "modify_instance_attribute", respond_modify)
    replace(InstanceResponse, "modify_instance_metadata_options", respond_metadata_options)
    # The addresses, the groups and the one source/dest flag of an instance are its primary interface's.
    Instance.source_dest_check = of_primary("source_dest_check", True)  # type: ignore[assignment]
    Instance.security_groups = property(_get_groups, _set_groups)  # type: ignore[assignment]
    for name in ("private_ip", "private_ip_address"):
        replace(Instance, name, of_primary("private_ip_address"))
    for name in ("public_ip", "public_ip_address"):
        replace(Instance, name, of_primary("public_ip"))
    replace(Instance, "subnet_id", _in_subnet("subnet_id"))
    replace(Instance, "vpc_id", _in_subnet("vpc_id"))
    replace(Instance, "private_dns_name", property(_private_dns_name))


_init_instance: Any = None
_respond_run: Any = None
_respond_modify: Any = None
_stop: Any = None
_terminate: Any = None
_init_profile_association: Any = None
