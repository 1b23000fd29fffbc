# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The floor: a perfect detector and the bare calls in a row. No system that moves an interface can be below it.

The lab itself acts, at the moment of the fault: it describes the interface, detaches it, attaches it to the other
host, each step begun when the one before is over in AWS's own books, not when a poll would have found out. The host
waits for the link in a loop of 2 ms and configures it. A frozen holder goes on forwarding, which a perfect detector
knows: nothing is moved. In a planned move the old holder forwards until its link is gone, which in the lab is the end
of the detach: only attach and link are outage. There is no connection tracking sync.
"""

from __future__ import annotations

import time

from lab.benchmark.contenders.contender import Contender
from lab.benchmark.contenders.floating import CONFIGURE, LINK, FloatingPair
from lab.hosts.host import Host
from lab.hosts.wait import wait_until

STEP_LIMIT = 60.0  # seconds for each step
POLL = 0.005  # seconds between two looks into AWS's books
AWAIT_LINK = f"until [ -e /sys/class/net/{LINK} ]; do sleep 0.002; done\n"


class Floor(Contender):
    """Driven by the lab: nothing runs on the hosts."""

    title = "floor: the bare calls"

    def build(self) -> None:
        self._pair = FloatingPair(self.lab, ["ec2:DescribeNetworkInterfaces"], ())
        self._move(self._pair.hosts[0])

    def after_power_cut(self, holder: str) -> None:
        self._move(self.lab.hosts[self.lab.peer(holder)])

    def switch_over(self) -> float:
        target = self.lab.hosts[self.lab.peer(self.holder())]
        moment = time.monotonic()
        self._move(target)
        return moment

    def restore(self) -> None:
        self.lab.heal()
        for host in self._pair.hosts:
            host.wait_running(STEP_LIMIT)

    def _move(self, target: Host) -> None:
        interface_id, ec2 = self._pair.interface, self.lab.ec2
        found = ec2.describe_network_interfaces(NetworkInterfaceIds=[interface_id])["NetworkInterfaces"][0]
        if "Attachment" in found:
            ec2.detach_network_interface(AttachmentId=found["Attachment"]["AttachmentId"])
            wait_until("the interface is free", self._is_free, STEP_LIMIT, lambda: str(self.lab.interface()), POLL)
        ec2.attach_network_interface(NetworkInterfaceId=interface_id, InstanceId=target.key, DeviceIndex=1)
        target.run(["sh", "-c", AWAIT_LINK + CONFIGURE], timeout=STEP_LIMIT, check=True)

    def _is_free(self) -> bool:
        return self.lab.interface().attachment is None
