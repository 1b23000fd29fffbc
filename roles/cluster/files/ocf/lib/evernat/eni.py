# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The OCF agent ocf:evernat:eni: keeps one Elastic Network Interface (ENI) on one host of a cluster.

Running means, by the kernel of this host alone: a link with the ENI's MAC is here, up, addressed, with its routes,
rules and SNAT, and the host forwards. monitor never asks EC2. start and stop do: see takeover.py, loaded only then.
"""

from __future__ import annotations

import host
import ocf
from ocf import Action, Agent, Call, Failure, Parameter

VERSION = "0.1.0"


def monitor(call: Call) -> int:
    """0, 190 for a lesser fault, 7 on positive evidence that the ENI is out of service here; else raises Failure."""
    wanted = host.Wanted(call.settings)
    view = _look(wanted)
    if host.is_stopped(view, wanted):
        if not call.is_probe:
            where = "here, but down" if view.link else "on no link of this host"
            call.log("notice", action=call.action, rc=ocf.OCF_NOT_RUNNING, eni=call.settings["interface_id"], mac=where)
        return ocf.OCF_NOT_RUNNING
    found = host.faults(view, wanted)
    if found:
        raise Failure("; ".join(found))
    lesser = host.warnings(view, wanted)
    if lesser:
        ocf.exit_reason("; ".join(lesser))
        return ocf.OCF_DEGRADED
    return ocf.OCF_SUCCESS


def start(call: Call) -> int:
    import holder

    answers = holder.EarlyAnswer(lambda: holder.answers(call.settings["mac_address"], call.settings["private_ip"]))
    import takeover  # takes a while to load

    return takeover.start(call, answers=answers)


def stop(call: Call) -> int:
    import takeover

    return takeover.stop(call)


def validate_all(call: Call) -> int:
    """Level 0: the parameters' syntax, checked before any action. Level 10: this host, and the role's rights."""
    if call.check_level >= 10:
        import takeover

        return takeover.validate(call)
    return ocf.OCF_SUCCESS


def _look(wanted: host.Wanted) -> host.View:
    try:
        return host.look(wanted)
    except host.HostError as error:
        raise Failure(str(error)) from error


AGENT = Agent(
    name="eni",
    version=VERSION,
    shortdesc="Moves an AWS Elastic Network Interface to the host that runs it",
    longdesc="""Keeps an Elastic Network Interface (ENI), and with it its private address, MAC, Elastic IP and the
routes that name it, on exactly one host of a cluster. EC2's attachment is the arbiter: the agent ends the attachment
that it read, and attaches only what is free. It never takes the ENI from a host that still answers on its address.
Monitoring is local: no call to AWS, no credentials.""",
    parameters=[
        Parameter(
            "interface_id",
            "Interface id",
            "Id of the ENI, such as eni-0123456789abcdef0.",
            ocf.aws_id("eni"),
            required=True,
            unique=True,
        ),
        Parameter(
            "mac_address",
            "MAC address",
            "MAC address of the ENI. It moves with the ENI, and tells on which host it is.",
            ocf.mac,
            required=True,
        ),
        Parameter(
            "private_ip",
            "Private address",
            "Primary private IPv4 address of the ENI.",
            ocf.ipv4,
            required=True,
        ),
        Parameter("subnet", "Subnet", "CIDR block of the ENI's subnet.", ocf.ipv4_subnet, required=True),
        Parameter("region", "Region", "AWS region.", ocf.region, required=True),
        Parameter("gateway", "Gateway", "Router of the subnet. Empty: the first address of the subnet.", ocf.ipv4),
        Parameter(
            "device_index",
            "Device index",
            "Device index to try first on this host. The next free one is taken if it is in use.",
            ocf.integer(1, 31),
            kind="integer",
            default="1",
        ),
        Parameter(
            "endpoint",
            "EC2 endpoint",
            "URL of the EC2 API. Empty: the region's own, https://ec2.REGION.amazonaws.com",
            ocf.http_url,
        ),
        Parameter(
            "instance_id",
            "Instance id",
            "EC2 instance id of this host. Empty: found out by DMI, or by the instance metadata service (version 2).",
            ocf.aws_id("i"),
        ),
        Parameter(
            "route_table",
            "Routing table",
            "Number of the ENI's own routing table.",
            ocf.integer(1, 2**31 - 1),
            kind="integer",
            default="100",
        ),
        Parameter(
            "rule_priority",
            "Rule priority",
            "Priority of the routing rules that lead to the ENI's table.",
            ocf.integer(1, 32765),
            kind="integer",
            default="100",
        ),
        Parameter(
            "detach_grace",
            "Grace of a detach",
            "Seconds that a polite detach from a silent holder may take before it is forced, once.",
            ocf.integer(0, 600),
            kind="integer",
            default="5",
        ),
        Parameter(
            "holddown",
            "Hold-down",
            "Seconds for which another host's fresh attachment is left alone, even while it does not answer yet.",
            ocf.integer(0, 3600),
            kind="integer",
            default="10",
        ),
        Parameter(
            "fencing",
            "Cluster fences lost hosts",
            "True where the cluster fences (stonith-enabled=true). A start then knows that a holder outside of this"
            " partition is dead: it forces the detach at once, and neither asks it nor waits for hold-down or grace.",
            ocf.boolean,
            kind="boolean",
            default="false",
        ),
        Parameter(
            "replication",
            "Connections are replicated",
            "True where conntrackd runs on both hosts. A start then commits the replica of the other host's connections"
            " before the link comes up, so that they live on.",
            ocf.boolean,
            kind="boolean",
            default="false",
        ),
    ],
    actions=[
        Action("start", 180, start),
        Action("stop", 60, stop),
        Action("monitor", 20, monitor, interval=5),
        Action("validate-all", 60, validate_all),
    ],
)
