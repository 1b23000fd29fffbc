# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Public addresses: Elastic IPs that are moved, not doubled, and the ones that instances get at launch."""

from __future__ import annotations

from functools import partial
from typing import Any

import moto.ec2.models.elastic_ip_addresses as eips
from moto.core.responses import ActionResult
from moto.ec2.models.elastic_ip_addresses import ElasticAddress, ElasticAddressBackend
from moto.ec2.responses.elastic_ip_addresses import ElasticIPAddresses
from moto.ec2.utils import EC2_PREFIX_TO_RESOURCE, generate_dns_from_ip, random_eip_association_id

from lab.aws.errors import refusal
from lab.aws.patching import replace
from lab.aws.world import world

ELASTIC_PREFIX = "198.51.100."  # RFC 5737 TEST-NET-2
INSTANCE_PREFIX = "203.0.113."  # RFC 5737 TEST-NET-3


class Pool:
    """The addresses .1 to .254 of a prefix, each handed out again only after all the others."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.last = 0

    def next(self, in_use: set[str]) -> str:
        for step in range(1, 255):
            number = (self.last + step - 1) % 254 + 1
            if self.prefix + str(number) not in in_use:
                self.last = number
                return self.prefix + str(number)
        raise refusal("InsufficientAddressCapacity", "Insufficient address capacity.")


elastic_pool = Pool(ELASTIC_PREFIX)
instance_pool = Pool(INSTANCE_PREFIX)


def reset() -> None:
    elastic_pool.last = instance_pool.last = 0


def _backends() -> list[Any]:
    from moto.ec2.models import ec2_backends

    return [backend for account in ec2_backends.values() for backend in account.values()]


def next_elastic_address() -> str:
    return elastic_pool.next({eip.public_ip for backend in _backends() for eip in backend.addresses})


def next_instance_address() -> str:
    return instance_pool.next(
        {getattr(eni, "_auto_public_ip", None) or "" for backend in _backends() for eni in backend.enis.values()}
    )


# --- what an interface shows -----------------------------------------------------------------------------------


def public_ips_by_private_ip(eni: Any) -> dict[str, str]:
    """Each private address that has a public one, with it: an Elastic IP comes before the launch's address."""
    result = {eip.private_ip: eip.public_ip for eip in eni.ec2_backend.addresses if eip.eni is eni}
    auto = getattr(eni, "_auto_public_ip", None)
    if auto:
        result.setdefault(eni.private_ip_address, auto)
    return result


def interface_public_ip(eni: Any) -> str | None:
    return public_ips_by_private_ip(eni).get(eni.private_ip_address)


def set_auto_public_ip(eni: Any, address: str | None) -> None:
    eni._auto_public_ip = address


def release_auto_public_ip(eni: Any) -> None:
    eni._auto_public_ip = None


def assign_auto_public_ip(eni: Any) -> None:
    """At a start: none is given to an instance with several interfaces, nor beside an Elastic IP."""
    alone = eni.instance is None or len(eni.instance.nics) == 1
    wanted = str(eni.public_ip_auto_assign).lower() == "true"
    if wanted and alone and not interface_public_ip(eni):
        eni._auto_public_ip = next_instance_address()


def association(eni: Any, public_ip: str) -> dict[str, Any]:
    """The Association element of an address."""
    shown: dict[str, Any] = {
        "PublicIp": public_ip,
        "PublicDnsName": generate_dns_from_ip(public_ip),
        "IpOwnerId": "amazon",
    }
    eip = next((eip for eip in eni.ec2_backend.addresses if eip.eni is eni and eip.public_ip == public_ip), None)
    if eip:
        shown.update(
            AllocationId=eip.allocation_id, AssociationId=eip.association_id, IpOwnerId=eni.ec2_backend.account_id
        )
    return shown


def interface_association(eni: Any) -> dict[str, Any]:
    public_ip = interface_public_ip(eni)
    return association(eni, public_ip) if public_ip else {}


# --- Elastic IPs ---------------------------------------------------------------------------------------------------


def associate(
    backend: Any,
    instance: Any = None,
    eni: Any = None,
    address: str | None = None,
    allocation_id: str | None = None,
    reassociate: bool = False,
    private_ip: str | None = None,
) -> str:
    """Move an Elastic IP to a private address. Returns the association's id."""
    eip = (backend.address_by_ip([address]) if address else backend.address_by_allocation([allocation_id]))[0]
    if eni is None:
        if len(instance.nics) != 1 and private_ip is None:
            raise refusal(
                "InvalidInstanceID",
                f"There are multiple interfaces attached to instance '{instance.id}'. "
                "Please specify an interface ID for the operation instead.",
            )
        eni = _interface_with(instance, private_ip) if private_ip else instance.nics[0]
    private_ip = private_ip or eni.private_ip_address
    if private_ip not in [entry["PrivateIpAddress"] for entry in eni.private_ip_addresses]:
        raise refusal("InvalidParameterValue", f"Address {private_ip} is not assigned to interface {eni.id}.")
    _check_gateway(backend, eni)
    if eip.eni is eni and eip.private_ip == private_ip:
        return str(eip.association_id)
    if not reassociate:
        _check_unassociated(backend, eip, eni, private_ip)
    association_id = random_eip_association_id()
    moves = eip.eni is not None
    delay = world().settings.reassign_delay if moves else 0.0
    world().take_effect(delay, partial(_put, backend, eip, eni, private_ip, association_id))
    return association_id


def _put(backend: Any, eip: Any, eni: Any, private_ip: str, association_id: str) -> None:
    """Give an Elastic IP to a private address, which loses any that it has."""
    for other in backend.addresses:
        if other.eni is eni and other.private_ip == private_ip:
            _disassociate(other)
    eip.eni, eip.instance, eip.private_ip = eni, eni.instance, private_ip
    eip.association_id = association_id
    if private_ip == eni.private_ip_address:
        eni._auto_public_ip = None  # the launch's address goes back to the pool


def follow(backend: Any, private_ip: str, old: Any, new: Any) -> None:
    """A private address goes to another interface: its Elastic IP goes along."""
    for eip in backend.addresses:
        if eip.eni is old and eip.private_ip == private_ip:
            eip.eni, eip.instance = new, new.instance


def leave(backend: Any, private_ip: str, eni: Any) -> None:
    """A private address is taken off an interface: its Elastic IP is free again."""
    for eip in backend.addresses:
        if eip.eni is eni and eip.private_ip == private_ip:
            _disassociate(eip)


def private_addresses(eni: Any) -> list[dict[str, Any]]:
    """The private addresses of an interface, each with what it is associated with, as Describe calls show them."""
    public_ips = public_ips_by_private_ip(eni)
    shown = []
    for address in eni.private_ip_addresses:
        entry = {name: value for name, value in address.items() if name != "Association"}
        public_ip = public_ips.get(address["PrivateIpAddress"])
        shown.append({**entry, "Association": association(eni, public_ip)} if public_ip else entry)
    return shown


def _interface_with(instance: Any, private_ip: str) -> Any:
    for eni in instance.nics.values():
        if private_ip in [entry["PrivateIpAddress"] for entry in eni.private_ip_addresses]:
            return eni
    raise refusal("InvalidParameterValue", f"Address {private_ip} is not assigned to instance {instance.id}.")


def _check_gateway(backend: Any, eni: Any) -> None:
    if not any(gateway.vpc and gateway.vpc.id == eni.vpc_id for gateway in backend.internet_gateways.values()):
        raise refusal("Gateway.NotAttached", f"Network {eni.vpc_id} is not attached to any internet gateway")


def _check_unassociated(backend: Any, eip: Any, eni: Any, private_ip: str) -> None:
    if eip.eni is not None:
        raise refusal("Resource.AlreadyAssociated", f"resource {eip.allocation_id} is already associated")
    if any(other.eni is eni and other.private_ip == private_ip for other in backend.addresses):
        raise refusal("Resource.AlreadyAssociated", f"resource {eni.id} is already associated with an address")


def disassociate(backend: Any, address: str | None = None, association_id: str | None = None) -> None:
    found = backend.address_by_ip([address]) if address else backend.address_by_association([association_id])
    _disassociate(found[0])


def _disassociate(eip: Any) -> None:
    eip.eni = eip.instance = eip.association_id = eip.private_ip = None


def forget_interface(backend: Any, eni: Any) -> None:
    """The interface goes: its Elastic IPs are free again."""
    for eip in backend.addresses:
        if eip.eni is eni:
            _disassociate(eip)


def release(backend: Any, address: str | None = None, allocation_id: str | None = None) -> None:
    eip = (backend.address_by_ip([address]) if address else backend.address_by_allocation([allocation_id]))[0]
    if eip.eni is not None:
        raise refusal("InvalidIPAddress.InUse", f"Address {eip.public_ip} is in use.")
    backend.addresses.remove(eip)
    backend.tags.pop(eip.id, None)


def init_address(self: ElasticAddress, *arguments: Any, **more: Any) -> None:
    self.private_ip = None  # type: ignore[attr-defined]  # the private address it is mapped to
    _init_address(self, *arguments, **more)


def address_filter(self: Any, name: str, method: str | None = None) -> Any:
    if name == "network-interface-owner-id":
        return self.network_interface_owner_id
    if name == "private-ip-address":
        return self.private_ip
    if name == "instance-id":
        return self.instance_id
    return _address_filter(self, name, method)


def respond_associate(self: Any) -> ActionResult:
    self.error_on_dryrun()
    backend, get = self.ec2_backend, self._get_param
    if bool(get("InstanceId")) == bool(get("NetworkInterfaceId")):
        raise refusal("MissingParameter", "Either 'InstanceId' or 'NetworkInterfaceId' must be provided")
    if not get("AllocationId") and not get("PublicIp"):
        raise refusal("MissingParameter", "Either public IP or allocation id must be specified")
    association_id = backend.associate_address(
        instance=backend.get_instance(get("InstanceId")) if get("InstanceId") else None,
        eni=backend.get_network_interface(get("NetworkInterfaceId")) if get("NetworkInterfaceId") else None,
        address=get("PublicIp"),
        allocation_id=get("AllocationId"),
        reassociate=str(get("AllowReassociation")).lower() == "true",
        private_ip=get("PrivateIpAddress"),
    )
    return ActionResult({"AssociationId": association_id})


def apply() -> None:
    """Put all of this in moto's place."""
    global _init_address, _address_filter
    # An Elastic IP has one association and a private address has one Elastic IP; a repeated call changes nothing.
    # (Taking one from elsewhere has to be allowed. The API reference calls that automatic: here, say it.)
    replace(ElasticAddressBackend, "associate_address", associate)
    replace(ElasticIPAddresses, "associate_address", respond_associate)
    replace(ElasticAddressBackend, "disassociate_address", disassociate)
    # An associated address can't be released.
    replace(ElasticAddressBackend, "release_address", release)
    # The instance of an address is the one that its interface is attached to now.
    replace(ElasticAddress, "instance_id", property(_holder_of))
    replace(ElasticAddress, "network_interface_id", property(lambda self: self.eni.id if self.eni else None))
    replace(ElasticAddress, "private_ip_address", property(lambda self: self.private_ip))
    _init_address = replace(ElasticAddress, "__init__", init_address)
    _address_filter = replace(ElasticAddress, "get_filter_value", address_filter)
    # Elastic IPs are public addresses, not loopback's.
    replace(eips, "random_ip", next_elastic_address)
    # Their resource type is elastic-ip, as DescribeTags' filter says.
    EC2_PREFIX_TO_RESOURCE["eipalloc"] = "elastic-ip"


def _holder_of(eip: Any) -> str | None:
    return eip.eni.instance.id if eip.eni and eip.eni.instance else None


_init_address: Any = None
_address_filter: Any = None
