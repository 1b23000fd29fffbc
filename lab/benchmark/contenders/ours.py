# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""ours: evernat.aws as its tarball installs it, built by `ansible-playbook evernat.aws.site` with every default.

The variables are those that a user must give (VPC, subnet, route table, address, image, key): lab.Lab writes them.
The planned switchover is Pacemaker's own (lab.switch_over). After a power cut the host boots again and rejoins by
itself.
"""

from __future__ import annotations

import time
from typing import Any

from lab.benchmark.contenders.contender import Contender
from lab.benchmark.contenders.totem import running_on
from lab.benchmark.pair import Pair
from lab.cluster import crm_mon, told_by, wait_for, wait_settled
from lab.hosts.host import Host
from lab.operator import BUNDLE, install_collection

SWITCH_LIMIT = 60.0  # seconds
REPLICA_LIMIT = 60.0  # seconds
SETTLE_LIMIT = 120.0  # seconds


class Ours(Contender):
    title = "evernat.aws"

    def build(self) -> None:
        install_collection(self.lab.operator.collections, BUNDLE)
        self.lab.operator.playbook("evernat.aws.site", "-e", f"@{self.lab.pair_file}")
        self._pair = Pair(self.lab)
        self.restore()

    def settings(self) -> dict[str, Any]:
        return running_on(self.lab.hosts[self.holder()])

    def switch_over(self) -> float:
        return self.lab.switch_over(self.lab.peer(self.holder()), time.monotonic() + SWITCH_LIMIT)

    def settle(self) -> None:
        wait_settled(self._pair.hosts()[0], SETTLE_LIMIT)

    def restore(self) -> None:
        self._pair.restore()
        self._wait_for_replicas()

    def _wait_for_replicas(self) -> None:
        """Both hosts say that their copy of the connections is whole, as an operator would look before a switchover."""
        first, _ = self._pair.hosts()
        wait_for(
            "both replicas are whole", lambda: _replicas(first) == ["1", "1"], REPLICA_LIMIT, lambda: told_by(first)
        )


def _replicas(host: Host) -> list[str | None]:
    """The values of the node attribute `replica`."""
    attributes = crm_mon(host, "--include=attributes").findall("./node_attributes/node/attribute[@name='replica']")
    return [attribute.get("value") for attribute in attributes]
