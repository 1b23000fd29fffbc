# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The emulated AWS: one object that listens, is told what to do wrong, and tells what it was asked."""

from __future__ import annotations

import ssl
from pathlib import Path
from types import TracebackType
from typing import Any

from lab.aws import emulation

emulation.prepare()  # before anything imports moto

from lab.aws import snapshot, world  # noqa: E402
from lab.aws.calls import CallLog  # noqa: E402
from lab.aws.control import Control  # noqa: E402
from lab.aws.faults import Faults  # noqa: E402
from lab.aws.gateway import Gateway, MetadataService  # noqa: E402
from lab.aws.hooks import Hooks  # noqa: E402
from lab.aws.imds import Metadata  # noqa: E402
from lab.aws.listener import Listener, bound_socket  # noqa: E402
from lab.aws.settings import ACCOUNT_ID, AwsSettings  # noqa: E402
from lab.aws.snapshot import Snapshot  # noqa: E402


class Aws:
    """EC2, IAM, STS and IMDS in this process. One at a time, since moto's state is global. A context manager."""

    def __init__(
        self, settings: AwsSettings | None = None, hooks: Hooks | None = None, call_log: Path | None = None
    ) -> None:
        self.settings = settings or AwsSettings()
        self.hooks = hooks or Hooks()
        self.calls = CallLog(call_log)
        self.faults = Faults()
        self._world = world.World(self.settings, self.hooks)
        self._listeners: list[Listener] = []
        self._notifier: world.Notifier | None = None
        self._started = False

    # --- life ---------------------------------------------------------------------------------------------------

    def start(self) -> Aws:
        """Begin with an empty account."""
        world.enter(self._world)
        self._started = True
        emulation.reset()
        self._gateway = Gateway(self._world, self.calls, self.faults)
        self._metadata = Metadata(self.settings, self._world.lock, self._backend)
        if type(self.hooks).network_changed is not Hooks.network_changed:
            self._notifier = world.Notifier(self._world, self.snapshot)
            self._world.on_change = self._notifier.poke
        return self

    def close(self) -> None:
        """Stop listening; what still waits ends. Safe to call twice."""
        if not self._started:
            return
        self._started = False
        self._world.close(timeout=5.0)
        for listener in self._listeners:
            listener.stop()
        self._listeners.clear()
        if self._notifier:
            self._notifier.close()
        self.calls.close()
        world.leave()

    def __enter__(self) -> Aws:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def reset(self) -> None:
        """Forget the account's objects and the faults. The call log goes on."""
        with self._world.lock:
            emulation.reset()
            self._metadata.reset()
        self._gateway.reset()
        self.faults.clear()
        self._world.changed()

    # --- service ------------------------------------------------------------------------------------------------

    def listen(
        self, host: str, port: int, tls: ssl.SSLContext | None = None, netns: str | None = None, control: bool = False
    ) -> tuple[str, int]:
        """Serve the API there (port 0: a free one), inside a named network namespace if given: (host, port).

        `control` adds the paths below /_lab/, for tests in other processes. Raises OSError if it can't listen.
        """
        app = Control(self, self._gateway) if control else self._gateway
        return self._listen(host, port, app, tls, netns)

    def listen_imds(
        self, host: str, port: int, netns: str | None = None, instance_id: str | None = None
    ) -> tuple[str, int]:
        """Serve IMDS there. The instance is the one with the peer's private address, or the one that is given."""
        app = MetadataService(self._world, self._metadata, self.calls, self.faults, instance_id)
        return self._listen(host, port, app, None, netns)

    def _listen(self, host: str, port: int, app: Any, tls: ssl.SSLContext | None, netns: str | None) -> tuple[str, int]:
        sock = bound_socket(host, port, netns)
        address = sock.getsockname()
        self._listeners.append(Listener(sock, app, tls))
        return address[0], address[1]

    # --- looking ------------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """What the account holds now."""
        with self._world.lock:
            return snapshot.take(self._backend())

    def settle(self, timeout: float = 10.0) -> None:
        """Wait until network_changed was told everything so far. Raises TimeoutError."""
        if self._notifier:
            self._notifier.flush(timeout)

    def credentials(self, instance_id: str) -> dict[str, str]:
        """What IMDS would hand out to this instance. Raises LookupError if it has no role."""
        return self._metadata.credentials_of(instance_id)

    def _backend(self) -> Any:
        return emulation.ec2(self.settings.region, ACCOUNT_ID)
