# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Network interfaces: one attachment at most, states that take time, addresses that are checked."""

from __future__ import annotations

import ipaddress
import threading
from functools import partial
from typing import Any

import moto.ec2.models.elastic_network_interfaces as enis
from moto.core.responses import ActionResult, EmptyResult
from moto.core.utils import utcnow
from moto.ec2.exceptions import InvalidNetworkAttachmentIdError
from moto.ec2.models.elastic_network_interfaces import Attachment, NetworkInterface, NetworkInterfaceBackend
from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.ec2.models.instances import Instance
from moto.ec2.responses.elastic_network_interfaces import ElasticNetworkInterfaces
from moto.ec2.utils import random_eni_attach_id

from lab.aws import addresses, snapshot
from lab.aws.errors import refusal
from lab.aws.patching import add, replace
from lab.aws.world import world

RUNNING = ("pending", "running")
GONE = ("shutting-down", "terminated")


# --- attach ---------------------------------------------------------------------------------------------------


def attach(backend: Any, eni_id: str, instance_id: str, device_index: int) -> Attachment:
    eni = backend.get_network_interface(eni_id)
    instance = backend.get_instance(instance_id)
    index = int(device_index)
    check_free(eni)
    if instance.state in GONE:
        raise refusal("IncorrectState", f"Instance '{instance.id}' is not in a valid state: {instance.state}.")
    if eni.subnet.availability_zone != instance.availability_zone:
        raise refusal(
            "InvalidParameterCombination",
            "You may not attach a network interface to an instance if they are not in the same availability zone",
        )
    if eni.subnet.vpc_id != instance.vpc_id:
        raise refusal("InvalidParameterCombination", "You may not attach a network interface of another VPC")
    if index < 0:
        raise refusal("InvalidParameterValue", f"'{index}' is not a valid device index.")
    if index in instance.nics:
        raise refusal(
            "InvalidParameterValue",
            f"Instance '{instance.id}' already has an interface attached at device index '{index}'.",
        )
    limit = interface_limit(instance.instance_type)
    if len(instance.nics) + 1 > limit:
        raise refusal(
            "AttachmentLimitExceeded",
            f"Interface count {len(instance.nics) + 1} exceeds the limit for {instance.instance_type}",
        )
    hold(instance, eni, index)
    eni.attachment_status = "attaching"
    eni.plugged = threading.Event()
    delay = world().settings.attach_delay
    world().after_call(delay, partial(_finish_attach, eni, eni.attachment_id, eni.plugged, delay))
    return Attachment(eni)


def check_free(eni: Any) -> None:
    if eni.attachment_id or eni.status != "available":
        raise refusal("InvalidNetworkInterface.InUse", f"Interface: [{eni.id}] in use.")


def interface_limit(instance_type: str) -> int:
    """How many interfaces an instance of this type may have."""
    return int(INSTANCE_TYPES[instance_type]["NetworkInfo"]["MaximumNetworkInterfaces"])


def hold(instance: Any, eni: Any, device_index: int) -> str:
    """The bookkeeping of an attachment that is complete at once, as those made by RunInstances are."""
    instance.nics[int(device_index)] = eni
    eni.instance = instance
    eni.attachment_id = random_eni_attach_id()
    eni.attachment_status = "attached"
    eni.attach_time = utcnow()
    eni.status = "in-use"
    eni.device_index = int(device_index)
    eni.delete_on_termination = False
    eni.forced = threading.Event()
    return eni.attachment_id


def _finish_attach(eni: Any, attachment_id: str, plugged: threading.Event, delay: float) -> None:
    try:
        _plug(eni, attachment_id, delay)
    finally:
        plugged.set()


def _plug(eni: Any, attachment_id: str, delay: float) -> None:
    """Tell `attached` when its time has come, and have the link plugged into a host that runs."""
    here = world()
    here.wait(delay)
    with here.lock:
        instance = eni.instance
        if eni.attachment_id != attachment_id:
            return  # the instance was terminated meanwhile
        if eni.attachment_status == "attaching":
            eni.attachment_status = "attached"
    here.changed()
    if instance.state in RUNNING:
        here.wait_for(instance.booted)
    with here.lock:
        # a boot in between has plugged it; a host that is off plugs it when it boots
        if eni.attachment_id != attachment_id or eni.linked or instance.state not in RUNNING:
            return
        eni.linked = True
        record = snapshot.interface_record(eni)
    here.hook(here.hooks.interface_plug, record, instance.id, eni.device_index)


# --- detach ---------------------------------------------------------------------------------------------------


def detach(backend: Any, attachment_id: str, force: bool = False) -> None:
    eni = next((eni for eni in backend.enis.values() if eni.attachment_id == attachment_id), None)
    if eni is None:
        raise InvalidNetworkAttachmentIdError(attachment_id)
    if eni.device_index == 0:
        raise refusal("OperationNotPermitted", "The network interface at device index 0 cannot be detached.")
    if force:
        eni.forced.set()
    if eni.attachment_status == "detaching":
        return
    eni.attachment_status = "detaching"
    delay = world().settings.detach_delay
    waits = delay if eni.plugged.is_set() else max(delay, world().settings.attach_delay)
    world().after_call(waits, partial(_finish_detach, eni, attachment_id, delay))


def _finish_detach(eni: Any, attachment_id: str, delay: float) -> None:
    here = world()
    instance, plugged = eni.instance, eni.plugged
    here.wait(delay)
    while _is_stuck(eni, attachment_id, instance):
        here.wait(0.05)
    here.wait_for(plugged)
    if eni.attachment_id != attachment_id:
        return  # the instance was terminated meanwhile
    here.hook(here.hooks.interface_unplug, eni.id, instance.id)
    with here.lock:
        if eni.attachment_id == attachment_id:
            let_go(instance, eni)
    here.changed()


def _is_stuck(eni: Any, attachment_id: str, instance: Any) -> bool:
    """A dead guest never answers a polite detach, as long as its instance is said to run."""
    here = world()
    return (
        here.settings.dead_detach == "stuck"
        and not eni.forced.is_set()
        and eni.attachment_id == attachment_id
        and instance.state == "running"
        and bool(here.hook(here.hooks.holder_is_dead, instance.id))
    )


def let_go(instance: Any, eni: Any) -> None:
    """End an attachment: the interface is available again, with its addresses."""
    instance.nics.pop(eni.device_index, None)
    eni.instance = eni.attachment_id = eni.attach_time = eni.device_index = None
    eni.attachment_status = None
    eni.delete_on_termination = False
    eni.linked = False
    eni.status = "available"


# --- create, delete, modify, describe ----------------------------------------------------------------------------


def create(
    backend: Any,
    subnet: Any,
    private_ip_address: Any,
    private_ip_addresses: Any = None,
    group_ids: list[str] | None = None,
    description: str | None = None,
    tags: dict[str, str] | None = None,
    **more: Any,
) -> Any:
    """As moto's, but for addresses and groups that EC2 refuses."""
    if isinstance(subnet, str):
        subnet = backend.get_subnet(subnet)
    for group_id in group_ids or []:
        group = backend.get_security_group_from_id(group_id)
        if group is None:
            raise refusal("InvalidGroup.NotFound", f"The security group '{group_id}' does not exist")
        if group.vpc_id != subnet.vpc_id:
            raise refusal(
                "InvalidParameter", f"Security group {group_id} and subnet {subnet.id} belong to different networks."
            )
    count = int(more.pop("secondary_ips_count", None) or 0)
    entries = _address_entries(subnet, private_ip_address, private_ip_addresses or [], count)
    primary = next(entry["PrivateIpAddress"] for entry in entries if entry["Primary"])
    return _create(backend, subnet, primary, entries, group_ids, description, tags, **more)


def _address_entries(subnet: Any, primary: Any, listed: list[Any], count: int) -> list[dict[str, Any]]:
    """The checked private addresses of a new interface: its primary one and `count` or the listed others."""
    if isinstance(primary, list):
        primary = primary[0] if primary else None
    entries = [item if isinstance(item, dict) else {"PrivateIpAddress": item} for item in listed]
    entries = [{"PrivateIpAddress": e["PrivateIpAddress"], "Primary": bool(e.get("Primary"))} for e in entries]
    if primary and not any(entry["PrivateIpAddress"] == primary for entry in entries):
        entries.insert(0, {"PrivateIpAddress": primary, "Primary": True})
    for entry in entries:
        check_address(subnet, entry["PrivateIpAddress"])
    taken = {entry["PrivateIpAddress"] for entry in entries}
    if not any(entry["Primary"] for entry in entries):
        address = free_address(subnet, taken)
        taken.add(address)
        entries.insert(0, {"PrivateIpAddress": address, "Primary": True})
    for _ in range(count):
        address = free_address(subnet, taken)
        taken.add(address)
        entries.append({"PrivateIpAddress": address, "Primary": False})
    return entries


def addresses_in_use(subnet: Any) -> set[str]:
    return {
        address["PrivateIpAddress"]
        for eni in subnet.ec2_backend.enis.values()
        if eni.subnet.id == subnet.id
        for address in eni.private_ip_addresses
    }


def check_address(subnet: Any, text: str) -> None:
    """Refuse a private address that is none, not of the subnet, reserved, or in use."""
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        raise refusal("InvalidParameterValue", f"Value ({text}) for parameter privateIpAddress is invalid.") from None
    if address not in subnet.cidr:
        raise refusal("InvalidParameterValue", f"Address {text} does not fall within the subnet's address range")
    if is_reserved(subnet, address):
        raise refusal("InvalidParameterValue", f"Address {text} is in subnet's reserved address range")
    if text in addresses_in_use(subnet):
        raise refusal("InvalidIPAddress.InUse", "The specified address is already in use.")


def is_reserved(subnet: Any, address: ipaddress.IPv4Address) -> bool:
    """AWS keeps the first four addresses of a subnet and the last one."""
    offset = int(address) - int(subnet.cidr.network_address)
    return offset < 4 or address == subnet.cidr.broadcast_address


def free_address(subnet: Any, also_taken: set[str] = frozenset()) -> str:  # type: ignore[assignment]
    """The next address after the one handed out last that nobody has."""
    taken = addresses_in_use(subnet) | also_taken
    size = subnet.cidr.num_addresses
    last = getattr(subnet, "last_offset", 3)
    for step in range(1, size + 1):
        offset = (last + step) % size
        address = subnet.cidr.network_address + offset
        if not is_reserved(subnet, address) and str(address) not in taken:
            subnet.last_offset = offset
            return str(address)
    raise refusal("InsufficientFreeAddressesInSubnet", f"There are no free addresses left in the subnet '{subnet.id}'.")


def delete(backend: Any, eni_id: str) -> None:
    eni = backend.get_network_interface(eni_id)
    if eni.attachment_id:
        raise refusal("InvalidParameterValue", f"Network interface '{eni_id}' is currently in use.")
    remove(backend, eni)


def remove(backend: Any, eni: Any) -> None:
    """Take an interface away, and its Elastic IPs off it."""
    addresses.forget_interface(backend, eni)
    backend.enis.pop(eni.id, None)
    backend.tags.pop(eni.id, None)


def respond_attach(self: Any) -> ActionResult:
    self.error_on_dryrun()
    attachment = self.ec2_backend.attach_network_interface(
        self._get_param("NetworkInterfaceId"), self._get_param("InstanceId"), self._get_param("DeviceIndex")
    )
    return ActionResult({"AttachmentId": attachment.attachment_id, "NetworkCardIndex": 0})


def respond_detach(self: Any) -> EmptyResult:
    self.error_on_dryrun()
    force = str(self._get_param("Force")).lower() == "true"
    self.ec2_backend.detach_network_interface(self._get_param("AttachmentId"), force)
    return EmptyResult()


def respond_modify(self: Any) -> EmptyResult:
    """Exactly one attribute a call; the attachment's flag needs the attachment's id."""
    self.error_on_dryrun()
    backend = self.ec2_backend
    eni = backend.get_network_interface(self._get_param("NetworkInterfaceId"))
    given = {
        "groupSet": self._get_param("Groups"),
        "sourceDestCheck": self._get_param("SourceDestCheck.Value"),
        "description": self._get_param("Description"),
        "attachment": self._get_param("Attachment"),
    }
    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        raise refusal("InvalidParameterCombination", f"Exactly one attribute must be specified, not {len(named)}")
    if given["groupSet"] is not None:
        set_groups(backend, eni, given["groupSet"])
    elif given["sourceDestCheck"] is not None:
        eni.source_dest_check = bool(given["sourceDestCheck"])
    elif given["description"] is not None:
        eni.description = given["description"].get("Value", "") if isinstance(given["description"], dict) else ""
    else:
        _modify_attachment(eni, given["attachment"])
    return EmptyResult()


def set_groups(backend: Any, eni: Any, group_ids: list[str]) -> None:
    groups = [backend.get_security_group_from_id(group_id) for group_id in group_ids]
    for group_id, group in zip(group_ids, groups):
        if group is None or group.vpc_id != eni.vpc_id:
            raise refusal("InvalidGroup.NotFound", f"The security group '{group_id}' does not exist")
    eni._group_set = groups


def _modify_attachment(eni: Any, given: dict[str, Any]) -> None:
    if "AttachmentId" not in given:
        raise refusal("MissingParameter", "The request must contain the parameter attachmentId")
    if given["AttachmentId"] != eni.attachment_id:
        raise InvalidNetworkAttachmentIdError(given["AttachmentId"])
    if "DeleteOnTermination" in given:
        eni.delete_on_termination = bool(given["DeleteOnTermination"])


def respond_describe(self: Any) -> ActionResult:
    self.error_on_dryrun()
    found = self.ec2_backend.get_all_network_interfaces(
        self._get_param("NetworkInterfaceIds", []), self._filters_from_querystring()
    )
    found, next_token = page(found, self._get_param("MaxResults"), self._get_param("NextToken"))
    for eni in found:
        eni.private_ip_addresses = addresses.private_addresses(eni)
    return ActionResult({"NetworkInterfaces": found, "NextToken": next_token})


def page(items: list[Any], max_results: Any, token: str | None) -> tuple[list[Any], str | None]:
    """One page of a listing, and the token of the next one."""
    if token is not None and not (token.startswith("page-") and token[5:].isdigit()):
        raise refusal("InvalidNextToken", f"The token '{token}' is invalid.")
    start = int(token[5:]) if token else 0
    if max_results is None:
        return items[start:], None
    size = int(max_results)
    if not 5 <= size <= 1000:
        raise refusal("InvalidParameterValue", f"Value ( {size} ) for parameter maxResults is invalid.")
    end = start + size
    return items[start:end], f"page-{end}" if end < len(items) else None


def respond_assign(self: Any) -> ActionResult:
    """AssignPrivateIpAddresses: addresses or their number, not both."""
    backend, get = self.ec2_backend, self._get_param
    eni = backend.get_network_interface(get("NetworkInterfaceId"))
    listed, count = get("PrivateIpAddresses", []), int(get("SecondaryPrivateIpAddressCount") or 0)
    if listed and count:
        raise refusal("InvalidParameterCombination", "Either addresses or their number can be specified, not both.")
    if not listed and not count:
        raise refusal("MissingParameter", "Either private IP addresses or their number must be specified")
    new = assign(backend, eni, listed, count, may_move=str(get("AllowReassignment")).lower() == "true")
    shown = [{"PrivateIpAddress": address} for address in new]
    return ActionResult({"NetworkInterfaceId": eni.id, "AssignedPrivateIpAddresses": shown})


def assign(backend: Any, eni: Any, listed: list[str], count: int, may_move: bool) -> list[str]:
    """Give an interface more private addresses; one that another interface has is moved if that is allowed."""
    own = [address["PrivateIpAddress"] for address in eni.private_ip_addresses]
    wanted = [address for address in listed if address not in own]
    holders = {address: _holder(eni.subnet, address) for address in wanted} if may_move else {}
    for address in wanted:
        if holders.get(address) is None:
            check_address(eni.subnet, address)
        elif holders[address].private_ip_address == address:
            raise refusal("InvalidParameterValue", f"Address {address} is the primary address of another interface.")
    limit = address_limit(eni)
    if limit is not None and len(own) + len(wanted) + count > limit:
        raise refusal("PrivateIpAddressLimitExceeded", f"Number of private addresses will exceed limit ({limit}).")
    for _ in range(count):
        wanted.append(free_address(eni.subnet, set(wanted)))
    for address in wanted:
        old = holders.get(address)
        delay = world().settings.reassign_delay if old is not None else 0.0
        world().take_effect(delay, partial(_give, backend, address, old, eni))
    return wanted


def _holder(subnet: Any, address: str) -> Any:
    """The interface of a subnet that has a private address, if there is one."""
    for eni in subnet.ec2_backend.enis.values():
        if eni.subnet.id == subnet.id and address in [entry["PrivateIpAddress"] for entry in eni.private_ip_addresses]:
            return eni
    return None


def _give(backend: Any, address: str, old: Any, new: Any) -> None:
    if old is not None:
        _drop(old, address)
        addresses.follow(backend, address, old, new)
    new.private_ip_addresses.append({"Primary": False, "PrivateIpAddress": address})


def _drop(eni: Any, address: str) -> None:
    eni.private_ip_addresses = [entry for entry in eni.private_ip_addresses if entry["PrivateIpAddress"] != address]


def address_limit(eni: Any) -> int | None:
    """How many private addresses an interface may have: a matter of the instance that it is attached to."""
    if eni.instance is None:
        return None
    return int(INSTANCE_TYPES[eni.instance.instance_type]["NetworkInfo"]["Ipv4AddressesPerInterface"])


def unassign(backend: Any, eni_id: str, private_ip_address: list[str] | None = None) -> None:
    eni = backend.get_network_interface(eni_id)
    own = [entry["PrivateIpAddress"] for entry in eni.private_ip_addresses]
    for address in private_ip_address or []:
        if address not in own:
            raise refusal("InvalidParameterValue", f"Some of {address} are not assigned to interface {eni.id}")
        if address == eni.private_ip_address:
            raise refusal("InvalidParameterValue", f"The primary address {address} of {eni.id} cannot be unassigned.")
    for address in private_ip_address or []:
        addresses.leave(backend, address, eni)
        _drop(eni, address)


def init_attachment(self: Attachment, eni: Any) -> None:
    _init_attachment(self, eni)
    self.status = eni.attachment_status


def init_interface(self: NetworkInterface, *arguments: Any, **more: Any) -> None:
    self.attachment_status = None  # type: ignore[attr-defined]
    self.linked = False  # type: ignore[attr-defined]  # the host has the link, or somebody is plugging it
    self.forced = threading.Event()  # type: ignore[attr-defined]  # a detach with Force has come
    self.plugged = threading.Event()  # type: ignore[attr-defined]  # nothing of the attach is left to do
    self.plugged.set()  # type: ignore[attr-defined]
    _init_interface(self, *arguments, **more)


def apply() -> None:
    """Put all of this in moto's place."""
    global _create, _init_attachment, _init_interface
    backend, response = NetworkInterfaceBackend, ElasticNetworkInterfaces
    # An interface has one attachment; index, zone, VPC, limit and state of the instance are checked.
    replace(backend, "attach_network_interface", attach)
    replace(Instance, "attach_eni", hold)
    replace(response, "attach_network_interface", respond_attach)
    # A detach takes time, with Force too; the primary interface can't be detached.
    replace(backend, "detach_network_interface", detach)
    replace(Instance, "detach_eni", let_go)
    replace(response, "detach_network_interface", respond_detach)
    # Attachment.Status tells attaching, attached, detaching.
    _init_attachment = replace(Attachment, "__init__", init_attachment)
    _init_interface = replace(NetworkInterface, "__init__", init_interface)
    # A private address is of the subnet, not reserved, not in use; a security group exists, in the same VPC.
    _create = replace(backend, "create_network_interface", create)
    # A secondary address is taken from another interface only with leave, and its Elastic IP goes along.
    replace(response, "assign_private_ip_addresses", respond_assign)
    # A primary address stays; one that is unassigned loses its Elastic IP.
    replace(backend, "unassign_private_ip_addresses", unassign)
    # An interface in use can't be deleted; one that goes loses its Elastic IP.
    replace(backend, "delete_network_interface", delete)
    # ModifyNetworkInterfaceAttribute takes one attribute; an empty description and DeleteOnTermination are applied.
    replace(response, "modify_network_interface_attribute", respond_modify)
    # DescribeNetworkInterfaces pages; it and DescribeInstances show what each private address is associated with.
    replace(response, "describe_network_interfaces", respond_describe)
    replace(NetworkInterface, "instance_private_ip_address_list", property(addresses.private_addresses))
    # The groups of an interface are its own, whatever those of the instance's primary interface are.
    replace(NetworkInterface, "group_set", property(lambda self: self._group_set))
    # An address is shown from what it is associated with: an Elastic IP first, else the one given at launch.
    replace(NetworkInterface, "association", property(addresses.interface_association))
    add(NetworkInterface, "public_ip", property(addresses.interface_public_ip, addresses.set_auto_public_ip))
    add(NetworkInterface, "public_ips_by_private_ip", property(addresses.public_ips_by_private_ip))
    replace(NetworkInterface, "stop", addresses.release_auto_public_ip)
    replace(NetworkInterface, "start", addresses.assign_auto_public_ip)
    replace(enis, "random_public_ip", addresses.next_instance_address)


_create: Any = None
_init_attachment: Any = None
_init_interface: Any = None
