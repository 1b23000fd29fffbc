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
from lab.operator import BUNDLE, install_collection

SWITCH_LIMIT = 60.0  # seconds


class Ours(Contender):
    title = "evernat.aws"

    def build(self) -> None:
        install_collection(self.lab.operator.collections, BUNDLE)
        self.lab.operator.playbook("evernat.aws.site", "-e", f"@{self.lab.pair_file}")
        self._pair = Pair(self.lab)
        self._pair.wait_sound()

    def settings(self) -> dict[str, Any]:
        return running_on(self.lab.hosts[self.holder()])

    def switch_over(self) -> float:
        return self.lab.switch_over(self.lab.peer(self.holder()), time.monotonic() + SWITCH_LIMIT)

    def restore(self) -> None:
        self._pair.restore()
        self._pair.wait_sound()
