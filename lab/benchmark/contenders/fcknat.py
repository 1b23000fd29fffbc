# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""fck-nat's way: one instance; when it is lost a replacement takes its address and its interface at boot.

The steps, calls and sleeps are those of fck-nat's service/fck-nat.sh with `eip_id` and `eni_id` set
(https://github.com/AndrewGuenther/fck-nat): the Elastic IP goes to the replacement's public interface, then 3 s of
sleep, then attach is tried every 5 s until the interface is free, and the link is looked for once a second; MASQUERADE
on the public interface, no connection tracking sync. NAT64 and the CloudWatch agent are left out; what Amazon Linux
does to a new link by itself (address, up) is done by the script. Forwarding and the rules are there before the link,
where fck-nat loads them after it: a flow whose packet comes between the two stays dead for good. Debian's awscli.

An Auto Scaling group of one makes the replacement. It cannot be had in the lab: the moment of the fault is the moment
in which it terminates the lost instance, which frees the interface after as long as a detach takes, and in which the
replacement has booted. What comes on top is given, not measured (GIVEN_SECONDS). The lab keeps that replacement booted,
with its packages installed, as its image would have them.
A frozen user space is no fault to EC2's status checks, whose ARP requests the kernel answers: nothing happens.
The planned switchover is an instance refresh: the old one is terminated first.
"""

from __future__ import annotations

import time
from typing import ClassVar

from lab.account import FLOATING_ADDRESS
from lab.benchmark.contenders.contender import Contender
from lab.benchmark.contenders.instances import Instances, install, run, write
from lab.benchmark.runs import POWER_CUT, SWITCHOVER
from lab.hosts.host import Host
from lab.hosts.wait import wait_until
from lab.lab import link_name

GIVEN_SECONDS = 30.0
GIVEN_SOURCE = (
    "status checks, launch and boot of the replacement: the shortest recovery that users report "
    "(https://github.com/AndrewGuenther/fck-nat/issues/71: 30-90 s; its docs/limitations.md: about 5 minutes)"
)
ACTIONS = ["ec2:AssociateAddress", "ec2:ModifyNetworkInterfaceAttribute", "ec2:AttachNetworkInterface"]
SERVES_LIMIT = 90.0  # seconds
LINK = link_name(1)
SCRIPT = "/usr/local/sbin/fck-nat"

SERVICE = """\
#!/bin/sh
token=$(curl -sX PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 300' http://169.254.169.254/latest/api/token)
metadata() {{ curl -s -H "X-aws-ec2-metadata-token: $token" "http://169.254.169.254/latest/meta-data/$1"; }}
self=$(metadata instance-id)
region=$(metadata placement/region)
public=$(metadata "network/interfaces/macs/$(metadata mac)/interface-id")
sysctl -qw net.ipv4.ip_forward=1
iptables -t nat -F
iptables -t nat -A POSTROUTING -o ens5 -j MASQUERADE
aws ec2 associate-address --region "$region" --allocation-id {allocation} --network-interface-id "$public" \\
  --allow-reassociation
sleep 3
aws ec2 modify-network-interface-attribute --region "$region" --network-interface-id "$public" --no-source-dest-check
until aws ec2 attach-network-interface --region "$region" --instance-id "$self" --device-index 1 \\
  --network-interface-id {interface}; do
  sleep 5
done
until ip link show dev {link}; do sleep 1; done
for file in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 >"$file"; done
ip address replace {address}/32 dev {link}
ip link set {link} up
"""


class FckNat(Contender):
    title = "fck-nat's way"
    given: ClassVar = {POWER_CUT: (GIVEN_SECONDS, GIVEN_SOURCE), SWITCHOVER: (GIVEN_SECONDS, GIVEN_SOURCE)}

    def build(self) -> None:
        self.lab.aws.settings.terminating_delay = self.lab.settings.delays.detach
        self._instances = Instances(self.lab, ACTIONS)
        self._interface = self._instances.make_floating_interface()
        self._allocation, _ = self._instances.make_elastic_ip()
        self._instances.route_through(self._interface)
        first = self._launch()
        self._begin(first)
        self._wait_serving(first)
        self._replacement = self._launch()

    def standing_by(self) -> list[Host]:
        """One instance: the replacement is not there before it is needed."""
        return [self.lab.hosts[self.holder()]]

    def after_power_cut(self, holder: str) -> None:
        self._replace(holder)

    def switch_over(self) -> float:
        moment = time.monotonic()
        self._replace(self.holder())
        return moment

    def restore(self) -> None:
        """A new one stands ready where the last has become the holder."""
        self.lab.heal()
        if self.holder() == self._replacement.key:
            self._wait_serving(self._replacement)
            self._replacement = self._launch()

    def _replace(self, lost: str) -> None:
        self.lab.ec2.terminate_instances(InstanceIds=[lost])
        self._begin(self._replacement)

    def _launch(self) -> Host:
        host = self._instances.launch("nat")
        install(host, "iptables", "awscli", "curl")
        script = SERVICE.format(
            allocation=self._allocation, interface=self._interface, link=LINK, address=FLOATING_ADDRESS
        )
        write(host, SCRIPT, script, "755")
        return host

    def _begin(self, host: Host) -> None:
        run(host, f"systemd-run --quiet --unit=fck-nat {SCRIPT}")

    def _wait_serving(self, host: Host) -> None:
        """Its script is through."""
        wait_until(
            f"{host.key} serves",
            lambda: run(host, "systemctl is-active fck-nat || true").strip() != "active" and self._has_link(host),
            SERVES_LIMIT,
            lambda: run(host, "journalctl -u fck-nat -n 5 --no-pager -o cat"),
            interval=0.3,
        )

    def _has_link(self, host: Host) -> bool:
        return "UP" in run(host, f"ip -br link show dev {LINK} 2>/dev/null || true")
