# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""keepalived: VRRP over unicast; the script of the new master takes the interface by AWS CLI, and configures the link.

Debian's keepalived and awscli. VRRP with keepalived.conf(5)'s defaults (an advert each second; three missed ones and a
skew make a new master), unicast because a VPC has no multicast, and two equal BACKUPs with nopreempt, so that nothing
moves back by itself. The script does what published ones do (http://www.jjpconnect.com/posts/keepalived_in_aws, and
the one called eni-move.sh of "High Availability on AWS with Keepalived, ENI, and ProxySQL"): describe, detach with
--force, wait, attach. Where those sleep for 5 s this one looks again at once, and it describes once instead of twice.
An operator's switchover is `systemctl stop keepalived`, which sends an advert of priority 0.
After a freeze or a reboot two hosts may think they are master: an operator starts keepalived anew, the holder first.
"""

from __future__ import annotations

import time

from lab.benchmark.contenders.contender import Contender
from lab.benchmark.contenders.floating import CONFIGURE, LINK, TABLE, FloatingPair
from lab.benchmark.contenders.instances import address_of, run, write
from lab.hosts.host import Host
from lab.hosts.wait import wait_until

ACTIONS = ["ec2:DescribeNetworkInterfaces", "ec2:DetachNetworkInterface", "ec2:AttachNetworkInterface"]
PACKAGES = ("keepalived", "awscli", "curl")
MASTER_LIMIT = 60.0  # seconds
NOTIFY = "/etc/keepalived/take-interface"
STATES = "journalctl --no-pager -o cat _SYSTEMD_INVOCATION_ID=$(systemctl show -P InvocationID keepalived) | tail -n 2"
ROUTE = f"ip route show table {TABLE}"

CONFIGURATION = """\
global_defs {{
    script_user root
    enable_script_security
}}

vrrp_instance nat {{
    state BACKUP
    nopreempt
    interface ens5
    virtual_router_id 51
    priority 150
    advert_int 1
    unicast_src_ip {own}
    unicast_peer {{
        {peer}
    }}
    notify_master {notify}
}}
"""

SCRIPT = """\
#!/bin/sh
# The new master takes the interface from whoever has it.
interface={interface}
token=$(curl -sX PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 300' http://169.254.169.254/latest/api/token)
self=$(curl -s -H "X-aws-ec2-metadata-token: $token" http://169.254.169.254/latest/meta-data/instance-id)
describe() {{
  aws ec2 describe-network-interfaces --network-interface-ids $interface --output text --query "NetworkInterfaces[0].$1"
}}
set -- $(describe '[Attachment.AttachmentId,Attachment.InstanceId]')
if [ "$2" != "$self" ]; then
  if [ "$1" != None ]; then
    aws ec2 detach-network-interface --attachment-id "$1" --force
    until [ "$(describe Status)" = available ]; do :; done
  fi
  aws ec2 attach-network-interface --network-interface-id $interface --instance-id "$self" --device-index 1
  until [ -e /sys/class/net/{link} ]; do sleep 0.1; done
fi
{configure}"""


class Keepalived(Contender):
    title = "keepalived + AWS CLI"

    def build(self) -> None:
        self._pair = FloatingPair(self.lab, ACTIONS, PACKAGES)
        for host in self._pair.hosts:
            self._configure(host)
        self._start(self._pair.hosts[0])

    def switch_over(self) -> float:
        moment = time.monotonic()
        run(self.lab.hosts[self.holder()], "systemctl stop keepalived")
        return moment

    def restore(self) -> None:
        self.lab.heal()
        for host in self._pair.hosts:
            host.wait_running(MASTER_LIMIT)
            run(host, "systemctl stop keepalived")
        self._start(self.lab.hosts[self.holder()])

    def _configure(self, host: Host) -> None:
        own, peer = (address_of(self.lab, key) for key in (host.key, self.lab.peer(host.key)))
        script = SCRIPT.format(interface=self._pair.interface, link=LINK, configure=CONFIGURE)
        run(host, "systemctl stop keepalived")
        write(host, NOTIFY, script, "755")
        configuration = CONFIGURATION.format(own=own, peer=peer, notify=NOTIFY)
        write(host, "/etc/keepalived/keepalived.conf", configuration)

    def _start(self, first: Host) -> None:
        """The one that shall have the interface first; the other finds a master."""
        run(first, "systemctl start keepalived")
        wait_until(
            f"{first.key} is master and has the interface",
            lambda: self._serves(first),
            MASTER_LIMIT,
            lambda: f"{self.lab.interface()}; {run(first, 'journalctl -u keepalived -n 5 --no-pager')}",
            interval=0.2,
        )
        for host in self._pair.hosts:
            run(host, "systemctl start keepalived")

    def _serves(self, host: Host) -> bool:
        """Its script is through: the route is the last thing that it makes."""
        attachment = self.lab.interface().attachment
        if attachment is None or attachment.instance_id != host.key:
            return False
        return "MASTER STATE" in run(host, STATES) and LINK in run(host, ROUTE)
