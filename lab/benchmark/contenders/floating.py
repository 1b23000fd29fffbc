# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two hosts and one floating interface: what keepalived's users and the floor have in common.

What a host does with the interface is what guides for NAT instances say: MASQUERADE on its link, a route of its own for
what comes in through it. What can be there before the link is there, and a blackhole in place of the route: otherwise
a flow whose packet comes between link and route leaves by the primary interface, and stays dead for good.
"""

from __future__ import annotations

from lab.account import FLOATING_ADDRESS, PUBLIC_CIDR
from lab.benchmark.contenders.instances import Instances, at_boot, install
from lab.hosts.host import Host
from lab.lab import Lab, link_name

LINK = link_name(1)
GATEWAY = PUBLIC_CIDR.replace("0/24", "1")
TABLE = 100
PREPARE = f"""\
sysctl -qw net.ipv4.ip_forward=1
iptables -t nat -F POSTROUTING
iptables -t nat -A POSTROUTING -o {LINK} -j MASQUERADE
ip rule del pref 100 2>/dev/null || true
ip rule del pref 101 2>/dev/null || true
ip rule add pref 100 iif {LINK} lookup {TABLE}
ip rule add pref 101 from {FLOATING_ADDRESS} lookup {TABLE}
ip route replace blackhole default table {TABLE} metric 4096
"""
CONFIGURE = f"""\
ip address replace {FLOATING_ADDRESS}/32 dev {LINK}
ip link set {LINK} up
ip route replace default via {GATEWAY} dev {LINK} onlink table {TABLE}
"""


class FloatingPair:
    """Both hosts, the interface (attached to nobody), its Elastic IP, and the clients' route to it."""

    def __init__(self, lab: Lab, actions: list[str], packages: tuple[str, ...]) -> None:
        self.lab = lab
        instances = Instances(lab, actions)
        self.interface = instances.make_floating_interface()
        allocation, _address = instances.make_elastic_ip()
        lab.ec2.associate_address(AllocationId=allocation, NetworkInterfaceId=self.interface)
        instances.route_through(self.interface)
        self.hosts = [instances.launch(name) for name in ("a", "b")]
        for host in self.hosts:
            self._prepare(host, packages)

    def _prepare(self, host: Host, packages: tuple[str, ...]) -> None:
        install(host, "iptables", *packages)
        at_boot(host, "nat", PREPARE)
