# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""moto, pinned and patched: imported here first, so that its switches are set before it looks at them."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from typing import Any

MOTO_VERSION = "5.2.5"

# EC2 checks key pairs, images and instance types; moto only when told to, at import.
SWITCHES = {
    "MOTO_ENABLE_KEYPAIR_VALIDATION": "1",
    "MOTO_ENABLE_AMI_VALIDATION": "1",
    "MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION": "1",
    "MOTO_DISABLE_GLOBAL_CORS": "1",
}

_patched = False


def prepare() -> None:
    """Import and patch moto, once per process. Raises RuntimeError if it is another moto or came too early."""
    global _patched
    if _patched:
        return
    found = importlib.metadata.version("moto")
    if found != MOTO_VERSION:
        raise RuntimeError(f"moto {found} is installed; the emulator changes the inside of moto {MOTO_VERSION} only")
    if "moto.settings" in sys.modules:
        raise RuntimeError("moto was imported before lab.aws could set its switches")
    os.environ.update(SWITCHES)

    from lab.aws import addresses, filters, instances, interfaces, network, routes

    for part in (filters, addresses, interfaces, instances, routes, network):
        part.apply()
    _patched = True


def reset() -> None:
    """Forget everything: an account on its first day."""
    from moto.core.base_backend import BackendDict

    from lab.aws import addresses

    BackendDict.reset()
    addresses.reset()


def application() -> Any:
    """moto's WSGI application, whose errors come through as exceptions."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    def create(service: Any) -> Any:
        app = create_backend_app(service)
        app.config["PROPAGATE_EXCEPTIONS"] = True
        return app

    return DomainDispatcherApplication(create)


def ec2(region: str, account: str) -> Any:
    from moto.ec2.models import ec2_backends

    return ec2_backends[account][region]


def iam(account: str) -> Any:
    from moto.iam.models import iam_backends

    return iam_backends[account]["aws"]


def sts(account: str) -> Any:
    from moto.sts.models import sts_backends

    return sts_backends[account]["aws"]
