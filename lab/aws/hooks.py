# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the emulator tells to whoever realises its instances and network."""

from __future__ import annotations

from lab.aws.snapshot import InstanceRecord, InterfaceRecord, Snapshot


class Hooks:
    """Called in the emulator's own threads, never under its lock. These defaults do nothing.

    An error raised by a hook is logged, and the transition goes on, as it would on AWS.
    """

    def instance_boot(self, instance: InstanceRecord) -> None:
        """Boot the host and plug the interfaces of the record. `running` is told after this returned."""

    def instance_power_off(self, instance_id: str, graceful: bool, terminate: bool) -> None:
        """Stop the host, whose links go with it. `stopped` or `terminated` is told after this returned."""

    def interface_plug(self, interface: InterfaceRecord, instance_id: str, device_index: int) -> None:
        """An attachment took effect (`attached` is told): the link may appear in the host now."""

    def interface_unplug(self, interface_id: str, instance_id: str) -> None:
        """The link leaves the host; `available` is told after this returned. There may be no link (host is off)."""

    def holder_is_dead(self, instance_id: str) -> bool:
        """Whether the guest can't answer a polite detach: without power, or frozen."""
        return False

    def network_changed(self, snapshot: Snapshot) -> None:
        """Something of the network has changed. Calls are serialised; the latest snapshot wins."""
