# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The VPC in network namespaces: router and internet gateway, internet, operator, hosts and clients.

    evernat-NAME-vpc     the VPC's router (a device for each interface) and the internet gateway
    evernat-NAME-inet    servers at 192.0.2.10 and 192.0.2.20, the EC2 endpoint's address 192.0.2.100
    evernat-NAME-oper    the operator, 192.0.2.50, on a link of its own
    evernat-NAME-host-*  one for each host, made anew at each power_on, as a boot makes a new kernel
    evernat-NAME-client  (or another name) one for each client

All that the fabric makes hangs on these names: `Fabric(NAME).down()` in a new process removes it, however the old
one died.
"""

from __future__ import annotations

import itertools
import re
import socket
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from types import TracebackType

from lab import netns
from lab.vpc import namespaces, rules, tracking
from lab.vpc.faults import PARTNERS, Cut, Fault, Isolation, Links, faults_ruleset
from lab.vpc.network import Ingress, Interface, Network, SecurityGroup

GATEWAY_ADDRESS = "192.0.2.1"
SERVER_ADDRESSES = ("192.0.2.10", "192.0.2.20")
OPERATOR_ADDRESS = "192.0.2.50"
API_ADDRESS = "192.0.2.100"
METADATA_ADDRESS = rules.METADATA_ADDRESS
BRIDGE_MAC = "02:00:c0:00:02:01"  # fixed: a bridge's own choice changes with its ports

_CLIENT_GROUP = SecurityGroup("clients", (Ingress("all", cidrs=("0.0.0.0/0",)),))

# A new namespace copies these from the machine's own, so each is said. The defaults hold for devices made later.
_ROUTER_SWITCHES = {
    "ipv4/ip_forward": 1,
    "ipv4/conf/all/proxy_arp": 0,
    "ipv4/conf/default/proxy_arp": 1,
    "bridge/bridge-nf-call-iptables": 0,
    **{
        f"{family}/conf/{scope}/{switch}": value
        for scope in ("all", "default")
        for family, switch, value in (
            ("ipv4", "rp_filter", 0),
            ("ipv4", "send_redirects", 0),
            ("ipv4", "accept_redirects", 0),
            ("ipv4", "arp_ignore", 0),
            ("ipv4", "arp_announce", 0),
            ("ipv4", "arp_filter", 0),
            ("ipv4", "log_martians", 0),
            ("ipv6", "disable_ipv6", 1),
        )
    },
}

# These exist only once a ruleset has asked for connection tracking.
_TRACKING_SWITCHES = {
    "netfilter/nf_conntrack_tcp_be_liberal": 1,  # security groups don't judge TCP windows
    "netfilter/nf_conntrack_tcp_loose": 1,
}

# A host starts with the kernel's own defaults, whatever the machine below has set.
_HOST_SWITCHES = {
    "ipv4/ip_forward": 0,
    **{
        f"{family}/conf/{scope}/{switch}": value
        for scope in ("all", "default")
        for family, switch, value in (
            ("ipv4", "rp_filter", 0),
            ("ipv4", "send_redirects", 1),
            ("ipv4", "accept_redirects", 1),
            ("ipv4", "arp_ignore", 0),
            ("ipv4", "arp_announce", 0),
            ("ipv4", "arp_filter", 0),
            ("ipv4", "proxy_arp", 0),
            ("ipv4", "log_martians", 0),
            ("ipv6", "disable_ipv6", 1),  # no IPv6 in this VPC
        )
    },
}


class FabricError(Exception):
    """The fabric was asked for something that its state does not allow."""


@dataclass(frozen=True)
class Plug:
    """An interface in the slot of a host (or of a client)."""

    interface: Interface
    host: str
    link: str
    configure: bool


class Fabric:
    """The network of one lab. Its methods may be called from several threads. Errors: FabricError, NamespaceError."""

    def __init__(self, name: str) -> None:
        """`name`: lower case letters and digits. Without a dash, so that no lab's namespaces begin like another's."""
        if not re.fullmatch(r"[a-z0-9]{1,24}", name):
            raise FabricError(f"a fabric's name is 1-24 lower case letters and digits, not {name!r}")
        self.name = name
        self.vpc_netns = self._namespace("vpc")
        self.internet_netns = self._namespace("inet")
        self.operator_netns = self._namespace("oper")
        self._lock = threading.RLock()
        self._forget()

    def __enter__(self) -> Fabric:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    # --- the whole ----------------------------------------------------------------------------------------------------

    def up(self) -> None:
        """Make router, internet and operator, without any interface. What an earlier run left is removed."""
        with self._lock:
            self.down()
            namespaces.create([self.vpc_netns, self.internet_netns, self.operator_netns])
            namespaces.sysctl(self.vpc_netns, _ROUTER_SWITCHES)
            for outside in (self.internet_netns, self.operator_netns):
                namespaces.sysctl(outside, _HOST_SWITCHES)
            namespaces.ip(self.vpc_netns, self._router_lines())
            namespaces.sysctl(self.vpc_netns, {f"ipv4/conf/{rules.INTERNET_DEVICE}/proxy_arp": 0})
            namespaces.ip(self.internet_netns, _outside_lines((*SERVER_ADDRESSES, API_ADDRESS)))
            namespaces.ip(self.operator_netns, _outside_lines((OPERATOR_ADDRESS,)))
            self._realise()
            namespaces.sysctl(self.vpc_netns, _TRACKING_SWITCHES)
            self._load_faults()

    def down(self) -> None:
        """Remove every namespace of this name, and kill what runs inside. Nothing there is fine."""
        with self._lock:
            mine = namespaces.names(self._namespace(""))
            namespaces.kill_processes(mine)
            namespaces.delete(mine)
            self._forget()

    def apply(self, network: Network) -> None:
        """Make the kernel hold this picture. What stays the same is not touched, so its traffic is not disturbed."""
        with self._lock:
            self._network = network
            self._realise()

    # --- hosts and clients --------------------------------------------------------------------------------------------

    def add_host(self, key: str) -> str:
        """The name of a host's namespace, which is made if the host is new."""
        with self._lock:
            if key in self._spaces:
                return self._spaces[key]
            return self._add_space(key, f"host-{key}")

    def remove_host(self, key: str) -> None:
        """Unplug everything of the host and delete its namespace. An unknown host is fine."""
        with self._lock:
            space = self._spaces.get(key)
            if space is None:
                return
            for plug in self._plugs_of(key):
                self.unplug(plug.interface.id)
            del self._spaces[key]
            self._off.discard(key)
            namespaces.delete([space])

    def add_client(self, subnet_id: str, address: str, name: str = "client") -> str:
        """Make a client in a subnet of the applied network, which follows its route table. Returns its namespace."""
        with self._lock:
            if self._network.subnet(subnet_id) is None:
                raise FabricError(f"no subnet {subnet_id} in the applied network, so no client can be put into it")
            space = self._add_space(name, name)
            mac = "02:ff:" + ":".join(f"{byte:02x}" for byte in IPv4Address(address).packed)
            interface = Interface(
                f"eni-{name}", mac, subnet_id, (address,), security_group_ids=(_CLIENT_GROUP.id,), metadata=False
            )
            self._clients[name] = interface
            self.plug(interface, name, "ens5", configure=True)
            return space

    def namespace(self, key: str) -> str:
        """Name of the namespace of a host or a client."""
        try:
            return self._spaces[key]
        except KeyError:
            raise FabricError(f"no host or client {key!r} in the fabric {self.name}") from None

    # --- interfaces ---------------------------------------------------------------------------------------------------

    def plug(self, interface: Interface, host: str, link: str, configure: bool = False) -> None:
        """Give the host a link of this name with the interface's MAC. Plugged there already is fine.

        `configure`: up, with address and default route, as DHCP leaves a primary link. Without it the link is down and
        has no address, as a second one on a Debian AMI. On a host without power the link appears at power_on.
        """
        with self._lock:
            self.namespace(host)
            plug = Plug(interface, host, link, configure)
            present = self._plugs.get(interface.id)
            if present is not None:
                if (present.host, present.link) != (host, link):
                    raise FabricError(f"{interface.id} is plugged in as {present.link} of {present.host} already")
                return
            self._plugs[interface.id] = plug
            if interface.id not in {known.id for known in self._clients.values()}:
                self._network = self._network.with_interface(interface)
            try:
                self._connect([plug] if host not in self._off else [])
            except (namespaces.NamespaceError, FabricError):
                self.unplug(interface.id)
                raise

    def unplug(self, interface_id: str) -> None:
        """Take the link out of its host; its security groups forget the flows. Not plugged is fine."""
        with self._lock:
            plug = self._plugs.pop(interface_id, None)
            if plug is None:
                return
            self._realise()
            self._remove_links([plug])
            self._forget_flows(plug.interface)
            self._load_faults_if_any()

    def holder(self, interface_id: str) -> str | None:
        """Key of the host into which the interface is plugged."""
        with self._lock:
            plug = self._plugs.get(interface_id)
            return plug.host if plug else None

    def power_cut(self, host: str) -> None:
        """Take all links of the host down at once. Links plugged later stay away too, until power_on."""
        with self._lock:
            self.namespace(host)
            if host in self._off:
                return
            self._off.add(host)
            namespaces.ip(self.vpc_netns, [f"link set {_device(plug)} down" for plug in self._plugs_of(host)])
            self._realise()

    def power_on(self, host: str) -> None:
        """Give the host a fresh namespace, as a boot gives it a fresh kernel, with links for all that is plugged."""
        with self._lock:
            space = self.namespace(host)
            plugs = self._plugs_of(host)
            self._off.add(host)
            self._realise()
            self._remove_links(plugs)
            namespaces.delete([space])
            self._make_space(space)
            self._off.discard(host)
            self._connect(plugs)

    # --- faults -------------------------------------------------------------------------------------------------------

    def cut(
        self,
        host_a: str,
        host_b: str,
        udp_ports: Iterable[int] | None = None,
        one_way: bool = False,
        percent: float = 100.0,
    ) -> int:
        """Lose packets between the primary interfaces of two hosts; returns the fault's number for heal().

        `udp_ports`: only those to these UDP ports (the ring alone: [5405]). `one_way`: only from a to b.
        `percent`: how many of them, at random.
        """
        ports = tuple(udp_ports or ())
        cuts = [Cut(host_a, host_b, ports, percent)]
        if not one_way:
            cuts.append(Cut(host_b, host_a, ports, percent))
        return self._add_fault(cuts)

    def isolate(self, host: str, from_: Iterable[str] = PARTNERS, percent: float = 100.0) -> int:
        """Lose packets between all links of a host and these partners ("ring", "api", "internet", "imds", "clients").

        "internet" is all that goes through the internet gateway but for the EC2 endpoint, so it includes the operator.
        """
        partners = frozenset(from_)
        if not partners <= PARTNERS:
            raise FabricError(f"unknown partners {sorted(partners - PARTNERS)}: choose from {sorted(PARTNERS)}")
        return self._add_fault([Isolation(host, partners, percent)])

    def heal(self, number: int | None = None) -> None:
        """End one fault, or all."""
        with self._lock:
            if number is None:
                self._faults.clear()
            else:
                self._faults.pop(number, None)
            self._load_faults()

    def _add_fault(self, faults: list[Cut] | list[Isolation]) -> int:
        with self._lock:
            number = next(self._fault_numbers)
            self._faults[number] = tuple(faults)
            self._load_faults()
            return number

    def _load_faults_if_any(self) -> None:
        if self._faults:
            self._load_faults()

    def _load_faults(self) -> None:
        hosts = {key: tuple(map(_device, self._plugs_of(key))) for key in self._spaces if key not in self._clients}
        clients = tuple(rules.device_name(interface.id) for interface in self._clients.values())
        active = itertools.chain.from_iterable(self._faults.values())
        namespaces.nft(self.vpc_netns, faults_ruleset(active, Links(hosts, clients, (API_ADDRESS,))))

    # --- inside -------------------------------------------------------------------------------------------------------

    def _namespace(self, part: str) -> str:
        return f"evernat-{self.name}-{part}"

    def _forget(self) -> None:
        self._network = Network()
        self._routing: rules.Routing = {}
        self._ruleset = ""
        self._spaces: dict[str, str] = {}
        self._clients: dict[str, Interface] = {}
        self._plugs: dict[str, Plug] = {}
        self._off: set[str] = set()
        self._faults: dict[int, tuple[Fault, ...]] = {}
        self._fault_numbers = itertools.count(1)

    def _plugs_of(self, host: str) -> list[Plug]:
        """The plugs of a host, the primary one first."""
        return sorted(
            (plug for plug in self._plugs.values() if plug.host == host),
            key=lambda plug: (not plug.configure, plug.link),
        )

    def _add_space(self, key: str, part: str) -> str:
        if key in self._spaces:
            raise FabricError(f"there is a host or client {key!r} already")
        space = self._namespace(part)
        if space in (self.vpc_netns, self.internet_netns, self.operator_netns):
            raise FabricError(f"the name {key!r} is taken by the fabric itself")
        self._make_space(space)
        self._spaces[key] = space
        return space

    def _make_space(self, space: str) -> None:
        namespaces.create([space])
        namespaces.sysctl(space, _HOST_SWITCHES)
        namespaces.ip(space, ["link set lo up"])

    def _router_lines(self) -> list[str]:
        lines = ["link set lo up", f"link add {rules.INTERNET_DEVICE} address {BRIDGE_MAC} type bridge forward_delay 0"]
        for device, space in (("to-inet", self.internet_netns), ("to-oper", self.operator_netns)):
            lines += [
                f"link add {device} type veth peer name eth0 netns {space}",
                f"link set {device} master {rules.INTERNET_DEVICE} up",
            ]
        return [
            *lines,
            # A /32: a prefix would put a route to the internet into the table that all share.
            f"address add {GATEWAY_ADDRESS}/32 dev {rules.INTERNET_DEVICE}",
            f"link set {rules.INTERNET_DEVICE} up",
            # A device without a carrier, as no kernel can be relied on to have dummies.
            f"link add {rules.VOID_DEVICE} type veth peer name {rules.VOID_DEVICE}-end",
            f"link set {rules.VOID_DEVICE} up",
            f"address add {rules.METADATA_ADDRESS}/32 dev lo",
            f"address add {rules.RESOLVER_ADDRESS}/32 dev lo",
            f"rule add lookup main pref {rules.PREFERENCE_LOCAL}",
            f"rule add blackhole pref {rules.PREFERENCE_END}",
        ]

    def _forget_flows(self, interface: Interface) -> None:
        """What its security groups knew of flows goes with the attachment.

        Not if only ICMP is tracked: its answers come to new requests alone, and the kernel takes a tenth of a second to
        walk through its table. A flow that it forwarded for another interface does no harm: the rule that let it in
        lets its next packet in.
        """
        if rules.untracked_protocols(interface, self._complete()) != ["tcp", "udp"]:
            tracking.forget(self.vpc_netns, interface.private_ips)

    def _complete(self) -> Network:
        """The applied network with the clients in it."""
        network = self._network
        if not self._clients:
            return network
        network = replace(network, security_groups=(*network.security_groups, _CLIENT_GROUP))
        for interface in self._clients.values():
            network = network.with_interface(interface)
        return network

    def _live(self) -> frozenset[str]:
        return frozenset(plug.interface.id for plug in self._plugs.values() if plug.host not in self._off)

    def _realise(self) -> None:
        """Bring rules and routes to what network, plugs and power say."""
        network = self._complete()
        ruleset = rules.vpc_ruleset(network)
        if ruleset != self._ruleset:
            namespaces.nft(self.vpc_netns, ruleset)
            self._ruleset = ruleset
        routing = rules.routing(network, self._live())
        namespaces.ip(self.vpc_netns, rules.routing_batch(self._routing, routing))
        self._routing = routing

    def _connect(self, plugs: Iterable[Plug]) -> None:
        """Make the links of plugs, with their routes, and configure the primary ones inside the host."""
        lines: list[str] = []
        for plug in plugs:
            lines += self._link_lines(plug)
        namespaces.ip(self.vpc_netns, lines)
        self._realise()
        for plug in plugs:
            if plug.configure:
                namespaces.ip(self._spaces[plug.host], self._dhcp_lines(plug))
        self._load_faults_if_any()

    def _link_lines(self, plug: Plug) -> list[str]:
        device, interface, space = _device(plug), plug.interface, self._spaces[plug.host]
        return [
            f"link add {device} type veth peer name {plug.link} address {interface.mac} netns {space}",
            f"ntable change name arp_cache dev {device} proxy_delay 0",  # a new device has 0.8 s
            f"link set {device} up",
            # The VPC knows who has which address: it never asks, and believes no announcement.
            f"neighbour replace {interface.private_ips[0]} lladdr {interface.mac} dev {device} nud permanent",
        ]

    def _dhcp_lines(self, plug: Plug) -> list[str]:
        """What DHCP leaves on the primary link."""
        subnet = self._network.subnet(plug.interface.subnet_id)
        if subnet is None:
            raise FabricError(f"{plug.interface.id} is in the subnet {plug.interface.subnet_id}, which was not applied")
        link, address = plug.link, plug.interface.private_ips[0]
        gateway = rules.gateway_address(subnet)
        return [
            f"address add {address}/{rules.prefix_length(subnet)} dev {link}",
            f"link set {link} up",
            f"route add default via {gateway} dev {link} proto dhcp src {address} metric 100",
        ]

    def _remove_links(self, plugs: Iterable[Plug]) -> None:
        # A link that is gone already went with its host's namespace.
        present = netns.enter(self.vpc_netns, _device_names)
        namespaces.ip(self.vpc_netns, [f"link del {_device(plug)}" for plug in plugs if _device(plug) in present])


def _device(plug: Plug) -> str:
    return rules.device_name(plug.interface.id)


def _device_names() -> set[str]:
    """The devices of the namespace of this thread."""
    return {name for _, name in socket.if_nameindex()}


def _outside_lines(addresses: Iterable[str]) -> list[str]:
    return [
        "link set lo up",
        *(f"address add {address}/24 dev eth0" for address in addresses),
        "link set eth0 up",
        f"route add default via {GATEWAY_ADDRESS} dev eth0 src {next(iter(addresses))}",
    ]
