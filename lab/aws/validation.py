# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What EC2 checks before it looks at any object: required parameters and names of filters, from botocore's model."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

import botocore.session

from lab.aws.errors import refusal

# The actions whose filters are checked by name, with those that EC2 knows though its reference does not list them.
# (Others have more such names, like cidr-block of DescribeVpcs: there moto decides.)
CHECKED_FILTERS = {
    "DescribeNetworkInterfaces": {"group-name", "attachment.network-card-index"},
    "DescribeInstances": set[str](),
    "DescribeRouteTables": {"route.network-interface-id"},
    "DescribeAddresses": {"domain"},
}


@functools.cache
def _model() -> Any:
    return botocore.session.get_session().get_service_model("ec2")


@functools.cache
def _required(action: str) -> tuple[tuple[str, str], ...]:
    """The required parameters of an action: their name on the wire, and the one that EC2's message uses."""
    shape = _model().operation_model(action).input_shape
    result = []
    for name in shape.required_members if shape else ():
        serialization = shape.members[name].serialization
        location = serialization.get("name", name)
        result.append((serialization.get("queryName") or location[0].upper() + location[1:], location))
    return tuple(result)


@functools.cache
def known_filters(action: str) -> frozenset[str]:
    """The names of a checked action's filters, as its reference lists them."""
    documentation = _model().operation_model(action).input_shape.members["Filters"].documentation
    return frozenset(re.findall(r"<p>\s*<code>([^<\s]+)</code>", documentation)) | CHECKED_FILTERS[action]


def check(action: str, parameters: Mapping[str, str]) -> None:
    """Refuse a call that lacks a required parameter or names a filter that the action does not have."""
    if action not in _model().operation_names:
        raise refusal("InvalidAction", f"The action {action} is not valid for this web service.")
    for wire, shown in _required(action):
        if not any(name == wire or name.startswith(wire + ".") for name in parameters):
            raise refusal("MissingParameter", f"The request must contain the parameter {shown}")
    if action not in CHECKED_FILTERS:
        return
    for key, name in parameters.items():
        if re.fullmatch(r"Filter\.\d+\.Name", key) and name not in known_filters(action) and name[:4] != "tag:":
            raise refusal("InvalidParameterValue", f"The filter '{name}' is invalid")
