# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""ClusterLabs' agents: a secondary address and its Elastic IP move between two permanent interfaces, the route follows.

Debian's corosync, pacemaker, resource-agents and awscli. A group, as Red Hat's "Configuring and managing high
availability clusters on AWS" and SUSE's and AWS's guides make one: `ocf:heartbeat:awsvip` (the secondary private
address), `ocf:heartbeat:IPaddr2` (the same address in the guest), `ocf:heartbeat:awseip` (the Elastic IP on it), and
last the clients' default route. `ocf:heartbeat:aws-vpc-move-ip` writes /32 routes only, so the route is moved by the
smallest agent of its kind (ROUTE_AGENT): it calls `aws ec2 replace-route`, and its monitor is local, as move-ip's is.
Operations have the timeouts and intervals of the agents' own metadata (start, stop and monitor 30 s, monitor every
20 s; IPaddr2 20 s and 10 s; the route as aws-vpc-move-ip 180 s and every 60 s). Credentials are the instance's role.
SNAT goes to the floating address, which a flow that is picked up in mid-stream can live with; MASQUERADE could not.
No fencing: it would come before the takeover, and cost its time.

Twice: `clusterlabs-sap` with token 30000 and consensus 36000, as the guides for SAP on AWS set them
(https://documentation.suse.com/sbp/sap-15/html/SLES4SAP-hana-sr-guide-PerfOpt-15-aws/, and
https://docs.aws.amazon.com/sap/latest/sap-hana/sap-hana-on-aws-cluster-configuration.html), and `clusterlabs` with the
token and consensus of this collection's defaults.
An operator's switchover is `crm_resource --move`, then `--clear`.
"""

from __future__ import annotations

import base64
import secrets
import time
from typing import Any
from xml.sax.saxutils import quoteattr

from lab.account import FLOATING_ADDRESS
from lab.benchmark.contenders.contender import Contender
from lab.benchmark.contenders.instances import (
    Instances,
    address_of,
    at_boot,
    install,
    primary_interface,
    run,
    write,
)
from lab.benchmark.contenders.totem import Timings, defaults_of_the_role, running_on
from lab.cluster import crm_mon, told_by, wait_for, wait_settled
from lab.hosts.host import Host

ACTIONS = [
    "ec2:DescribeInstances",
    "ec2:DescribeAddresses",
    "ec2:AssignPrivateIpAddresses",
    "ec2:UnassignPrivateIpAddresses",
    "ec2:AssociateAddress",
    "ec2:DisassociateAddress",
    "ec2:ReplaceRoute",
]
PACKAGES = (
    "iptables", "corosync", "pacemaker", "pacemaker-cli-utils", "resource-agents", "awscli", "curl",
)  # fmt: skip
WHOLE_LIMIT = 180.0  # seconds for the group to run on a whole cluster
GROUP = "nat"
LINK = "ens5"

COROSYNC = """\
totem {{
    version: 2
    transport: knet
    crypto_cipher: aes256
    crypto_hash: sha256
{timings}}}
nodelist {{
{nodes}}}
quorum {{
    provider: corosync_votequorum
    two_node: 1
}}
logging {{
    to_syslog: yes
}}
"""
NODE = """\
    node {{
        nodeid: {number}
        name: {name}
        ring0_addr: {address}
    }}
"""
PREPARE = f"""\
sysctl -qw net.ipv4.ip_forward=1
iptables -t nat -F POSTROUTING
iptables -t nat -A POSTROUTING -o {LINK} ! -s {{own}} -j SNAT --to-source {FLOATING_ADDRESS}
"""

ROUTE_AGENT = """\
#!/bin/sh
# The clients' default route leads to this instance's interface. Parameters: route_table, region.
: ${OCF_FUNCTIONS_DIR=${OCF_ROOT}/lib/heartbeat}
. ${OCF_FUNCTIONS_DIR}/ocf-shellfuncs
state="${HA_RSCTMP}/aws-route-${OCF_RESOURCE_INSTANCE}"
metadata() { curl -sf -H "X-aws-ec2-metadata-token: $token" "http://169.254.169.254/latest/meta-data/$1"; }
case $__OCF_ACTION in
meta-data)
  cat <<END
<?xml version="1.0"?>
<resource-agent name="aws-route" version="1.0">
<version>1.0</version>
<longdesc lang="en">Points a default route at this instance.</longdesc>
<shortdesc lang="en">default route</shortdesc>
<parameters>
<parameter name="route_table" required="1"><longdesc lang="en">id</longdesc><shortdesc lang="en">id</shortdesc>
<content type="string"/></parameter>
<parameter name="region" required="1"><longdesc lang="en">region</longdesc><shortdesc lang="en">region</shortdesc>
<content type="string"/></parameter>
</parameters>
<actions>
<action name="start" timeout="180s"/><action name="stop" timeout="180s"/>
<action name="monitor" timeout="30s" interval="60s"/><action name="meta-data" timeout="5s"/>
</actions>
</resource-agent>
END
  ;;
start)
  token=$(curl -sfX PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 300' http://169.254.169.254/latest/api/token)
  interface=$(metadata "network/interfaces/macs/$(metadata mac)/interface-id") || exit $OCF_ERR_GENERIC
  aws --region "$OCF_RESKEY_region" ec2 replace-route --route-table-id "$OCF_RESKEY_route_table" \\
    --destination-cidr-block 0.0.0.0/0 --network-interface-id "$interface" || exit $OCF_ERR_GENERIC
  touch "$state"
  ;;
stop) rm -f "$state" ;;
monitor) [ -e "$state" ] || exit $OCF_NOT_RUNNING ;;
*) exit $OCF_ERR_UNIMPLEMENTED ;;
esac
exit $OCF_SUCCESS
"""


class ClusterLabs(Contender):
    """The documented group, with this collection's own default token, consensus and heartbeat of the link."""

    title = "ClusterLabs' agents, our token"

    def timings(self) -> Timings:
        return defaults_of_the_role()

    def build(self) -> None:
        instances = Instances(self.lab, ACTIONS)
        allocation, elastic_ip = instances.make_elastic_ip()
        self._hosts = [instances.launch(name) for name in ("a", "b")]
        instances.route_through(primary_interface(self.lab, self._hosts[0].key))
        key = base64.b64encode(secrets.token_bytes(256)).decode()
        for host in self._hosts:
            install(host, *PACKAGES)
            at_boot(host, "nat-rules", PREPARE.format(own=address_of(self.lab, host.key)))
            write(host, "/usr/lib/ocf/resource.d/bench/aws-route", ROUTE_AGENT, "755")
            self._configure_corosync(host, key)
        for host in self._hosts:
            run(host, "systemctl stop pacemaker corosync && rm -rf /var/lib/pacemaker/cib/*")
        for host in self._hosts:
            run(host, "systemctl start corosync pacemaker")
        first = self._hosts[0]
        wait_for("both hosts are members", lambda: _members(first) == 2, WHOLE_LIMIT, lambda: told_by(first))
        resources = self._resources(allocation, elastic_ip)
        for scope, xml in (("crm_config", PROPERTIES), ("rsc_defaults", DEFAULTS), ("resources", resources)):
            command = ["cibadmin", "--modify", "--allow-create", "--scope", scope, "--xml-text", xml]
            first.run(command, timeout=60, check=True)
        self._wait_whole()

    def settings(self) -> dict[str, Any]:
        return running_on(self.lab.hosts[self.holder()])

    def switch_over(self) -> float:
        holder = self.holder()
        target = _name(self.lab.hosts[self.lab.peer(holder)])
        moment = time.monotonic()
        self.lab.hosts[holder].run(["crm_resource", "--move", "--resource", GROUP, "--node", target], check=True)
        return moment

    def settle(self) -> None:
        wait_settled(self._hosts[0], WHOLE_LIMIT)

    def restore(self) -> None:
        self.lab.heal()
        for host in self._hosts:
            host.wait_running(WHOLE_LIMIT, allow_degraded=True)
        first = self._hosts[0]
        wait_for("both hosts are members", lambda: _members(first) == 2, WHOLE_LIMIT, lambda: told_by(first))
        first.run(["crm_resource", "--clear", "--resource", GROUP], timeout=60, check=True)
        first.run(["crm_resource", "--cleanup"], timeout=90, check=True)
        self._wait_whole()

    def _configure_corosync(self, host: Host, key: str) -> None:
        nodes = "".join(
            NODE.format(number=number, name=_name(each), address=address_of(self.lab, each.key))
            for number, each in enumerate(self._hosts, 1)
        )
        text = COROSYNC.format(timings=self.timings().lines(), nodes=nodes)
        write(host, "/etc/corosync/corosync.conf", text)
        script = "umask 077 && base64 -d >/etc/corosync/authkey"
        host.run(["sh", "-c", script], input=key, check=True)

    def _resources(self, allocation: str, elastic_ip: str) -> str:
        region = self.lab.aws.settings.region
        role = {"auth_type": "role", "region": region}
        table = self.lab.account.private_route_table_id
        members = [
            _primitive("privip", "heartbeat:awsvip", {"secondary_private_ip": FLOATING_ADDRESS, **role}, "30s", "20s"),
            _primitive("vip", "heartbeat:IPaddr2", {"ip": FLOATING_ADDRESS, "cidr_netmask": "32"}, "20s", "10s"),
            _primitive(
                "elastic",
                "heartbeat:awseip",
                {
                    "elastic_ip": elastic_ip,
                    "allocation_id": allocation,
                    "private_ip_address": FLOATING_ADDRESS,
                    **role,
                },
                "30s",
                "20s",
            ),
            _primitive("route", "bench:aws-route", {"route_table": table, "region": region}, "180s", "60s"),
        ]
        return f'<resources><group id="{GROUP}">{"".join(members)}</group></resources>'

    def _wait_whole(self) -> None:
        """Both hosts are members and agree that the whole group runs, and nothing failed."""
        first = self._hosts[0]
        wait_for("the group runs", lambda: all(map(_is_whole, self._hosts)), WHOLE_LIMIT, lambda: _told(first))


class ClusterLabsSap(ClusterLabs):
    """The documented group with the documented token and consensus."""

    title = "ClusterLabs' agents, guides' token"

    def timings(self) -> Timings:
        return Timings(30000, 36000)


PROPERTIES = (
    '<crm_config><cluster_property_set id="options">'
    '<nvpair id="options-stonith" name="stonith-enabled" value="false"/>'
    "</cluster_property_set></crm_config>"
)
DEFAULTS = (
    '<rsc_defaults><meta_attributes id="resource-options">'
    '<nvpair id="resource-stickiness" name="resource-stickiness" value="1000"/>'
    "</meta_attributes></rsc_defaults>"
)


def _primitive(name: str, agent: str, parameters: dict[str, str], timeout: str, interval: str) -> str:
    provider, kind = agent.split(":")
    pairs = "".join(
        f'<nvpair id="{name}-{key}" name={quoteattr(key)} value={quoteattr(value)}/>'
        for key, value in parameters.items()
    )
    operations = "".join(
        f'<op id="{name}-{op}" name="{op}" interval="{interval if op == "monitor" else "0s"}" timeout="{limit}"/>'
        for op, limit in (("start", timeout), ("stop", timeout), ("monitor", "20s" if kind == "IPaddr2" else "30s"))
    )
    return (
        f'<primitive id="{name}" class="ocf" provider="{provider}" type="{kind}">'
        f'<instance_attributes id="{name}-parameters">{pairs}</instance_attributes>'
        f"<operations>{operations}</operations></primitive>"
    )


def _name(host: Host) -> str:
    return host.hostname


def _members(host: Host) -> int:
    nodes = crm_mon(host).findall("./nodes/node")
    return sum(1 for node in nodes if node.get("online") == "true" and node.get("pending") == "false")


def _is_whole(host: Host) -> bool:
    report = crm_mon(host)
    running = [
        node.get("name")
        for resource in report.findall(f"./resources/group[@id='{GROUP}']/resource")
        if resource.get("active") == "true" and resource.get("blocked") == "false"
        for node in resource.findall("node")
    ]
    return (
        _members(host) == 2
        and len(running) == 4
        and len(set(running)) == 1
        and not report.findall("./failures/failure")
    )


def _told(host: Host) -> str:
    """What crm_mon says, in words."""
    return host.run(["crm_mon", "--one-shot", "--inactive"], timeout=60).stdout
