# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses: private ones of a subnet, Elastic IPs, and the public ones that instances get at launch."""

from __future__ import annotations

import ipaddress

import pytest
from conformance import Account, refused

# address, EC2's code, its message, the source
BAD_ADDRESSES = [
    ("10.0.2.1", "InvalidParameterValue", "does not fall within the subnet's address range", "EC2's error codes"),
    ("10.0.1.0", "InvalidParameterValue", "reserved", "EC2 user guide: the first four and the last are reserved"),
    ("10.0.1.1", "InvalidParameterValue", "reserved", "EC2 user guide"),
    ("10.0.1.3", "InvalidParameterValue", "reserved", "EC2 user guide"),
    ("10.0.1.255", "InvalidParameterValue", "reserved", "EC2 user guide"),
    ("10.0.1.50", "InvalidIPAddress.InUse", "already in use", "pulumi/pulumi-aws#2169"),
    ("10.0.1", "InvalidParameterValue", "", "EC2's error codes"),
]


@pytest.mark.parametrize(("address", "code", "message", "source"), BAD_ADDRESSES)
def test_a_private_address_is_checked(aws: Account, address: str, code: str, message: str, source: str) -> None:
    """CreateNetworkInterface and RunInstances with an address that can't be had, 10.0.1.50 being in use."""
    assert source
    aws.new_interface(PrivateIpAddress="10.0.1.50")
    with refused(code, message):
        aws.new_interface(PrivateIpAddress=address)
    with refused(code, message):
        aws.launch(PrivateIpAddress=address)
    assert aws.ec2.describe_instances()["Reservations"] == []


def test_an_instances_address_is_in_use_too(aws: Account) -> None:
    """CreateNetworkInterface with an instance's address: InvalidIPAddress.InUse. Source: pulumi/pulumi-aws#2169."""
    aws.launch(PrivateIpAddress="10.0.1.60")
    with refused("InvalidIPAddress.InUse"):
        aws.new_interface(PrivateIpAddress="10.0.1.60")


def test_automatic_addresses_are_free_ones(aws: Account) -> None:
    """A subnet of 16 has 11 addresses to give; the floating one is never among them. Source: EC2 user guide."""
    subnet = aws.new_subnet("10.0.7.0/28")
    aws.new_interface(SubnetId=subnet, PrivateIpAddress="10.0.7.6")
    given = {aws.interface(aws.new_interface(SubnetId=subnet))["PrivateIpAddress"] for _ in range(10)}
    hosts = {str(address) for address in ipaddress.ip_network("10.0.7.0/28")}
    assert len(given) == 10
    assert given <= hosts - {f"10.0.7.{number}" for number in (0, 1, 2, 3, 6, 15)}
    with refused("InsufficientFreeAddressesInSubnet"):
        aws.new_interface(SubnetId=subnet)


def test_a_deleted_interface_frees_its_address(aws: Account) -> None:
    """DeleteNetworkInterface: its address can be had again. Source: EC2 user guide."""
    eni = aws.new_interface(PrivateIpAddress="10.0.1.50")
    aws.ec2.delete_network_interface(NetworkInterfaceId=eni)
    aws.new_interface(PrivateIpAddress="10.0.1.50")


def test_secondary_addresses(aws: Account) -> None:
    """AssignPrivateIpAddresses checks as creation does. Source: EC2's error codes."""
    eni = aws.new_interface(PrivateIpAddress="10.0.1.50")
    aws.ec2.assign_private_ip_addresses(NetworkInterfaceId=eni, PrivateIpAddresses=["10.0.1.51"])
    with refused("InvalidIPAddress.InUse"):
        aws.ec2.assign_private_ip_addresses(NetworkInterfaceId=aws.new_interface(), PrivateIpAddresses=["10.0.1.51"])
    addresses = aws.interface(eni)["PrivateIpAddresses"]
    assert [item["PrivateIpAddress"] for item in addresses] == ["10.0.1.50", "10.0.1.51"]
    assert [item["Primary"] for item in addresses] == [True, False]


def secondary(aws: Account, address: str = "10.0.1.51") -> str:
    """An interface with this secondary address."""
    eni = aws.new_interface()
    aws.ec2.assign_private_ip_addresses(NetworkInterfaceId=eni, PrivateIpAddresses=[address])
    return eni


def addresses_of(aws: Account, eni: str) -> list[str]:
    return [item["PrivateIpAddress"] for item in aws.interface(eni)["PrivateIpAddresses"]]


def test_a_secondary_address_is_moved_with_leave(aws: Account) -> None:
    """AssignPrivateIpAddresses AllowReassignment=true takes it from the other interface. Source: API reference."""
    old, new = secondary(aws), aws.new_interface()
    told = aws.ec2.assign_private_ip_addresses(
        NetworkInterfaceId=new, PrivateIpAddresses=["10.0.1.51"], AllowReassignment=True
    )
    assert told["AssignedPrivateIpAddresses"] == [{"PrivateIpAddress": "10.0.1.51"}]
    assert "10.0.1.51" in addresses_of(aws, new)
    assert "10.0.1.51" not in addresses_of(aws, old)


def test_a_moved_address_takes_its_elastic_ip_along(aws: Account) -> None:
    """AssignPrivateIpAddresses AllowReassignment=true: "any Elastic IP address ... is also moved" (API reference)."""
    instances = aws.launch(2)
    old, new = (aws.primary(instance) for instance in instances)
    aws.ec2.assign_private_ip_addresses(NetworkInterfaceId=old, PrivateIpAddresses=["10.0.1.51"])
    allocation, public = allocate(aws)
    associated = aws.ec2.associate_address(
        AllocationId=allocation, NetworkInterfaceId=old, PrivateIpAddress="10.0.1.51"
    )
    aws.ec2.assign_private_ip_addresses(
        NetworkInterfaceId=new, PrivateIpAddresses=["10.0.1.51"], AllowReassignment=True
    )
    (address,) = aws.ec2.describe_addresses(AllocationIds=[allocation])["Addresses"]
    assert (address["NetworkInterfaceId"], address["InstanceId"]) == (new, instances[1])
    assert address["AssociationId"] == associated["AssociationId"]
    shown = aws.instance(instances[1])["NetworkInterfaces"][0]["PrivateIpAddresses"]
    assert [item.get("Association", {}).get("PublicIp") for item in shown][-1] == public
    assert public not in str(aws.instance(instances[0]))


def test_a_primary_address_is_not_moved(aws: Account) -> None:
    """AssignPrivateIpAddresses of another interface's primary address: refused. Source: EC2 user guide."""
    aws.new_interface(PrivateIpAddress="10.0.1.50")
    new = aws.new_interface()
    with refused("InvalidParameterValue", "primary"):
        aws.ec2.assign_private_ip_addresses(
            NetworkInterfaceId=new, PrivateIpAddresses=["10.0.1.50"], AllowReassignment=True
        )


def test_an_instance_type_limits_addresses(aws: Account) -> None:
    """A t3.micro's interface has two addresses: PrivateIpAddressLimitExceeded. Source: EC2's error codes."""
    (instance,) = aws.launch()
    with refused("PrivateIpAddressLimitExceeded"):
        aws.ec2.assign_private_ip_addresses(NetworkInterfaceId=aws.primary(instance), SecondaryPrivateIpAddressCount=2)


def test_addresses_or_their_number(aws: Account) -> None:
    """AssignPrivateIpAddresses with both, and with neither: refused. Source: API reference."""
    eni = aws.new_interface()
    with refused("InvalidParameterCombination"):
        aws.ec2.assign_private_ip_addresses(
            NetworkInterfaceId=eni, PrivateIpAddresses=["10.0.1.51"], SecondaryPrivateIpAddressCount=1
        )
    with refused("MissingParameter"):
        aws.ec2.assign_private_ip_addresses(NetworkInterfaceId=eni)


def test_an_unassigned_address_leaves_its_elastic_ip(aws: Account) -> None:
    """UnassignPrivateIpAddresses: the Elastic IP is associated with nothing then. Source: EC2 user guide."""
    eni = secondary(aws)
    allocation, _ = allocate(aws)
    aws.ec2.associate_address(AllocationId=allocation, NetworkInterfaceId=eni, PrivateIpAddress="10.0.1.51")
    aws.ec2.unassign_private_ip_addresses(NetworkInterfaceId=eni, PrivateIpAddresses=["10.0.1.51"])
    assert "10.0.1.51" not in addresses_of(aws, eni)
    assert "AssociationId" not in aws.ec2.describe_addresses(AllocationIds=[allocation])["Addresses"][0]


def test_what_cannot_be_unassigned(aws: Account) -> None:
    """UnassignPrivateIpAddresses of an address that is not there, or primary: refused. Source: EC2's error codes."""
    eni = aws.new_interface(PrivateIpAddress="10.0.1.50")
    for address in ("10.0.1.51", "10.0.1.50"):
        with refused("InvalidParameterValue"):
            aws.ec2.unassign_private_ip_addresses(NetworkInterfaceId=eni, PrivateIpAddresses=[address])


# --- Elastic IPs ---------------------------------------------------------------------------------------------------


def allocate(aws: Account) -> tuple[str, str]:
    made = aws.ec2.allocate_address(Domain="vpc")
    return made["AllocationId"], made["PublicIp"]


def test_an_elastic_ip_is_a_public_address(aws: Account) -> None:
    """AllocateAddress: never loopback's. Source: EC2 user guide."""
    assert not ipaddress.ip_address(allocate(aws)[1]).is_loopback


def test_an_association_is_moved_not_doubled(aws: Account) -> None:
    """AssociateAddress AllowReassociation=true to another interface: the old one has none. Source: API reference."""
    old, new = aws.new_interface(), aws.new_interface()
    allocation, address = allocate(aws)
    first = aws.ec2.associate_address(AllocationId=allocation, NetworkInterfaceId=old)["AssociationId"]
    assert aws.interface(old)["Association"]["PublicIp"] == address
    assert aws.interface(old)["PrivateIpAddresses"][0]["Association"]["AllocationId"] == allocation
    second = aws.ec2.associate_address(AllocationId=allocation, NetworkInterfaceId=new, AllowReassociation=True)[
        "AssociationId"
    ]
    assert second != first
    assert "Association" not in aws.interface(old)
    assert aws.interface(new)["Association"]["AssociationId"] == second


def test_associate_is_idempotent(aws: Account) -> None:
    """AssociateAddress twice with the same target: no error, the same association. Source: API reference."""
    eni, (allocation, _) = aws.new_interface(), allocate(aws)
    ids = {
        aws.ec2.associate_address(AllocationId=allocation, NetworkInterfaceId=eni)["AssociationId"] for _ in range(2)
    }
    assert len(ids) == 1


def test_without_leave_nothing_is_taken(aws: Account) -> None:
    """AssociateAddress without AllowReassociation, address elsewhere: Resource.AlreadyAssociated. Source: ERRORS."""
    allocation, _ = allocate(aws)
    aws.ec2.associate_address(AllocationId=allocation, NetworkInterfaceId=aws.new_interface())
    with refused("Resource.AlreadyAssociated"):
        aws.ec2.associate_address(
            AllocationId=allocation, NetworkInterfaceId=aws.new_interface(), AllowReassociation=False
        )


def test_one_elastic_ip_per_private_address(aws: Account) -> None:
    """AssociateAddress of a second one: Resource.AlreadyAssociated; when allowed, the first is free after it."""
    eni, (first, _), (second, address) = aws.new_interface(), allocate(aws), allocate(aws)
    aws.ec2.associate_address(AllocationId=first, NetworkInterfaceId=eni)
    with refused("Resource.AlreadyAssociated"):
        aws.ec2.associate_address(AllocationId=second, NetworkInterfaceId=eni)
    aws.ec2.associate_address(AllocationId=second, NetworkInterfaceId=eni, AllowReassociation=True)
    assert aws.interface(eni)["Association"]["PublicIp"] == address
    assert "AssociationId" not in aws.ec2.describe_addresses(AllocationIds=[first])["Addresses"][0]


def test_release_of_one_in_use(aws: Account) -> None:
    """ReleaseAddress while associated: InvalidIPAddress.InUse; after DisassociateAddress done. Source: error codes."""
    eni, (allocation, _) = aws.new_interface(), allocate(aws)
    association = aws.ec2.associate_address(AllocationId=allocation, NetworkInterfaceId=eni)["AssociationId"]
    with refused("InvalidIPAddress.InUse"):
        aws.ec2.release_address(AllocationId=allocation)
    aws.ec2.disassociate_address(AssociationId=association)
    aws.ec2.release_address(AllocationId=allocation)
    with refused("InvalidAllocationID.NotFound"):
        aws.ec2.release_address(AllocationId=allocation)


def test_an_elastic_ip_moves_with_its_interface(aws: Account) -> None:
    """Attach and detach leave the association alone; the address' instance is the holder. Source: EC2 user guide."""
    eni, instances = aws.new_interface(), aws.launch(2)
    allocation, address = allocate(aws)
    aws.ec2.associate_address(AllocationId=allocation, NetworkInterfaceId=eni)
    for instance in instances:
        attachment = aws.attach(eni, instance)
        shown = aws.ec2.describe_addresses(AllocationIds=[allocation])["Addresses"][0]
        assert (shown["InstanceId"], shown["NetworkInterfaceId"]) == (instance, eni)
        assert aws.interface(eni)["Association"]["PublicIp"] == address
        aws.ec2.detach_network_interface(AttachmentId=attachment)


def test_deleting_the_interface_frees_the_address(aws: Account) -> None:
    """DeleteNetworkInterface: its Elastic IP is disassociated. Source: EC2 user guide."""
    eni, (allocation, _) = aws.new_interface(), allocate(aws)
    aws.ec2.associate_address(AllocationId=allocation, NetworkInterfaceId=eni)
    aws.ec2.delete_network_interface(NetworkInterfaceId=eni)
    aws.ec2.release_address(AllocationId=allocation)


def test_by_instance_only_with_one_interface(aws: Account) -> None:
    """AssociateAddress by InstanceId, two interfaces: InvalidInstanceID. Source: bobtfish/AWSnycast#28."""
    (instance,), (allocation, _) = aws.launch(), allocate(aws)
    aws.attach(aws.new_interface(), instance)
    with refused("InvalidInstanceID", "multiple interfaces"):
        aws.ec2.associate_address(AllocationId=allocation, InstanceId=instance)


def test_without_a_gateway(aws: Account) -> None:
    """AssociateAddress in a VPC without internet gateway: Gateway.NotAttached. Source: EC2's error codes."""
    aws.ec2.detach_internet_gateway(InternetGatewayId=aws.gateway, VpcId=aws.vpc)
    with refused("Gateway.NotAttached"):
        aws.ec2.associate_address(AllocationId=allocate(aws)[0], NetworkInterfaceId=aws.new_interface())


def test_tags_of_an_address(aws: Account) -> None:
    """DescribeTags resource-type=elastic-ip finds an address' tags. Source: API reference."""
    tags = [{"ResourceType": "elastic-ip", "Tags": [{"Key": "Name", "Value": "nat"}]}]
    allocation = aws.ec2.allocate_address(Domain="vpc", TagSpecifications=tags)["AllocationId"]
    found = aws.ec2.describe_tags(Filters=[{"Name": "resource-type", "Values": ["elastic-ip"]}])["Tags"]
    assert [(tag["ResourceId"], tag["ResourceType"]) for tag in found] == [(allocation, "elastic-ip")]


# --- public addresses of instances ---------------------------------------------------------------------------------


def test_a_public_address_is_asked_for(aws: Account) -> None:
    """RunInstances: by the subnet's attribute, or by AssociatePublicIpAddress, which wins. Source: API reference."""

    def launched(**nic: bool) -> str | None:
        (instance,) = aws.launch(NetworkInterfaces=[{"DeviceIndex": 0, "SubnetId": aws.subnet, **nic}])
        return aws.instance(instance).get("PublicIpAddress")

    assert launched() is None
    assert launched(AssociatePublicIpAddress=True) is not None
    aws.ec2.modify_subnet_attribute(SubnetId=aws.subnet, MapPublicIpOnLaunch={"Value": True})
    assert launched() is not None
    assert launched(AssociatePublicIpAddress=False) is None


def with_public_address(aws: Account) -> str:
    nic = {"DeviceIndex": 0, "SubnetId": aws.subnet, "AssociatePublicIpAddress": True}
    return aws.launch(NetworkInterfaces=[nic])[0]


def test_a_stop_releases_it_and_a_start_gives_another(aws: Account) -> None:
    """StopInstances: the public address is gone; StartInstances: another. Source: EC2 user guide (IP addressing)."""
    instance = with_public_address(aws)
    before = aws.instance(instance)["PublicIpAddress"]
    aws.ec2.stop_instances(InstanceIds=[instance])
    assert "PublicIpAddress" not in aws.instance(instance)
    aws.ec2.start_instances(InstanceIds=[instance])
    assert aws.instance(instance)["PublicIpAddress"] != before


def test_a_start_with_two_interfaces_gives_none(aws: Account) -> None:
    """StartInstances with a second interface: no public address is given. Source: EC2 user guide (IP addressing)."""
    instance = with_public_address(aws)
    aws.attach(aws.new_interface(), instance)
    aws.ec2.stop_instances(InstanceIds=[instance])
    aws.ec2.start_instances(InstanceIds=[instance])
    assert "PublicIpAddress" not in aws.instance(instance)


def test_an_elastic_ip_takes_its_place(aws: Account) -> None:
    """AssociateAddress to a primary interface: its public address goes back to the pool. Source: EC2 user guide."""
    instance, (allocation, address) = with_public_address(aws), allocate(aws)
    aws.ec2.associate_address(AllocationId=allocation, InstanceId=instance)
    assert aws.instance(instance)["PublicIpAddress"] == address
    aws.ec2.stop_instances(InstanceIds=[instance])
    assert aws.instance(instance)["PublicIpAddress"] == address
