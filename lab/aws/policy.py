# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The decision of an IAM policy on one action, one resource and one context. Pure; what it doesn't know it refuses."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any


class PolicyError(Exception):
    """The policy uses something that is not modelled here: an answer would be a guess."""


# Keys that exist in no request of this lab, so that a positive condition on them never holds.
ABSENT_KEYS = {
    "aws:multifactorauthpresent", "aws:multifactorauthage", "aws:sourcevpc", "aws:sourcevpce", "aws:vpcsourceip",
    "aws:username", "aws:principalorgid", "aws:principalorgpaths", "aws:referer", "aws:federatedprovider",
    "aws:calledvia", "aws:calledviafirst", "aws:calledvialast", "ec2:placementgroup", "ec2:launchtemplate",
    "ec2:outpostarn", "ec2:permission", "ec2:authorizeduser", "ec2:parentsnapshot", "ec2:associatepublicipaddress",
}  # fmt: skip
# Keys that some resources have and others have not.
RESOURCE_KEYS = {
    "ec2:subnet", "ec2:vpc", "ec2:availabilityzone", "ec2:instanceid", "ec2:networkinterfaceid", "ec2:instancetype",
    "ec2:instanceprofile", "ec2:metadatahttptokens", "ec2:metadatahttpendpoint", "ec2:metadatahttpputresponsehoplimit",
    "ec2:routetableid", "ec2:allocationid", "ec2:publicipaddress", "ec2:securitygroupid", "ec2:subnetid", "ec2:vpcid",
    "ec2:attribute", "ec2:tenancy", "ec2:roledelivery", "ec2:sourceinstancearn", "ec2:createaction", "ec2:domain",
    "ec2:rootdevicetype", "ec2:owner", "ec2:imageid", "ec2:internetgatewayid", "ec2:isLaunchTemplateResource".lower(),
    "aws:ec2instancesourcevpc", "aws:ec2instancesourceprivateipv4",
}  # fmt: skip
KEY_PREFIXES = ("aws:resourcetag/", "ec2:resourcetag/", "aws:requesttag/", "aws:principaltag/", "ec2:attribute/")

Context = Mapping[str, Sequence[str]]  # keys in lower case (a tag's key as it is), values as text


def is_allowed(documents: Sequence[Mapping[str, Any]], action: str, resource: str, context: Context) -> bool:
    """Whether the policies allow it: some statement does, and none denies it."""
    allowed = False
    for document in documents:
        for statement in _listed(document.get("Statement", [])):
            if _concerns(statement, action, resource, context):
                if statement["Effect"] == "Deny":
                    return False
                allowed = True
    return allowed


def _concerns(statement: Mapping[str, Any], action: str, resource: str, context: Context) -> bool:
    unknown = set(statement) - {"Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition"}
    if unknown:
        raise PolicyError(f"a statement has the element {', '.join(sorted(unknown))}")
    return (
        _matches_element(statement, "Action", action, context, fold=True)
        and _matches_element(statement, "Resource", resource, context, fold=False)
        and _conditions_hold(statement.get("Condition", {}), context)
    )


def _matches_element(statement: Mapping[str, Any], name: str, value: str, context: Context, fold: bool) -> bool:
    if name in statement:
        return any(_like(value, _expanded(item, context), fold) for item in _listed(statement[name]))
    if "Not" + name in statement:
        return not any(_like(value, _expanded(item, context), fold) for item in _listed(statement["Not" + name]))
    raise PolicyError(f"a statement has neither {name} nor Not{name}")


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _like(value: str, wanted: str, fold: bool = False) -> bool:
    text = "".join(".*" if char == "*" else "." if char == "?" else re.escape(char) for char in wanted)
    return re.fullmatch(text, value, re.DOTALL | (re.IGNORECASE if fold else 0)) is not None


def _expanded(text: str, context: Context) -> str:
    """Policy variables, ${aws:...}, put in. One without a value matches nothing."""

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name in ("*", "?", "$"):
            return name
        found = _lookup(name, context)
        return found[0] if found else "\0"

    return re.sub(r"\$\{([^}]+)\}", value, text)


def _lookup(key: str, context: Context) -> Sequence[str] | None:
    """The values of a condition key in this request, None if it has none. Raises PolicyError for unknown keys."""
    head, slash, tag = key.partition("/")
    name = head.lower() + slash + tag
    if name in context:
        return context[name]
    if name in ABSENT_KEYS or name in RESOURCE_KEYS or name.startswith(KEY_PREFIXES):
        return None
    raise PolicyError(f"the condition key {key} is not modelled")


def _conditions_hold(conditions: Mapping[str, Mapping[str, Any]], context: Context) -> bool:
    return all(
        _condition_holds(operator, key, _texts(wanted), context)
        for operator, keys in conditions.items()
        for key, wanted in keys.items()
    )


def _texts(wanted: Any) -> list[str]:
    return [str(item).lower() if isinstance(item, bool) else str(item) for item in _listed(wanted)]


def _condition_holds(operator: str, key: str, wanted: list[str], context: Context) -> bool:
    qualifier, _, plain = operator.rpartition(":")
    values = _lookup(key, context)
    if plain == "Null":
        return (values is None) == (wanted[0].lower() == "true")
    if_exists = plain.endswith("IfExists")
    compare, negated = _operator(plain.removesuffix("IfExists"), operator)
    expanded = [_expanded(item, context) for item in wanted]

    def matches(value: str) -> bool:
        return any(compare(value, item) for item in expanded) != negated

    if qualifier == "ForAllValues":
        return all(matches(value) for value in values or ())
    if qualifier not in ("", "ForAnyValue"):
        raise PolicyError(f"the condition operator {operator} is not modelled")
    if values is None:
        return if_exists or (negated and not qualifier)
    return any(matches(value) for value in values)


def _operator(name: str, shown: str) -> tuple[Callable[[str, str], bool], bool]:
    """How an operator compares, and whether it is the negation of that."""
    if name in OPERATORS:
        return OPERATORS[name], False
    positive = name.replace("Not", "", 1)
    if "Not" in name and positive in OPERATORS and not positive.endswith("Than"):
        return OPERATORS[positive], True
    raise PolicyError(f"the condition operator {shown} is not modelled")


def _arn_like(value: str, wanted: str) -> bool:
    """Each of an ARN's six parts on its own, so that * does not reach over a colon."""
    ours, theirs = value.split(":", 5), wanted.split(":", 5)
    return len(ours) == len(theirs) and all(_like(one, other) for one, other in zip(ours, theirs))


def _in_network(value: str, wanted: str) -> bool:
    return ipaddress.ip_address(value) in ipaddress.ip_network(wanted, strict=False)


def _date(text: str) -> float:
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


OPERATORS: dict[str, Callable[[str, str], bool]] = {
    "StringEquals": lambda value, wanted: value == wanted,
    "StringEqualsIgnoreCase": lambda value, wanted: value.lower() == wanted.lower(),
    "StringLike": _like,
    "ArnEquals": _arn_like,
    "ArnLike": _arn_like,
    "Bool": lambda value, wanted: value.lower() == wanted.lower(),
    "IpAddress": _in_network,
    "NumericEquals": lambda value, wanted: float(value) == float(wanted),
    "NumericLessThan": lambda value, wanted: float(value) < float(wanted),
    "NumericLessThanEquals": lambda value, wanted: float(value) <= float(wanted),
    "NumericGreaterThan": lambda value, wanted: float(value) > float(wanted),
    "NumericGreaterThanEquals": lambda value, wanted: float(value) >= float(wanted),
    "DateEquals": lambda value, wanted: _date(value) == _date(wanted),
    "DateLessThan": lambda value, wanted: _date(value) < _date(wanted),
    "DateLessThanEquals": lambda value, wanted: _date(value) <= _date(wanted),
    "DateGreaterThan": lambda value, wanted: _date(value) > _date(wanted),
    "DateGreaterThanEquals": lambda value, wanted: _date(value) >= _date(wanted),
}
