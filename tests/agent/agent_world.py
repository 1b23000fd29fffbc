# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A little world for the real agent processes: two hosts and a VPC as network namespaces, and the emulated EC2.

What attach and detach do to a host's links is done here, by the emulator's hooks. The hosts are plain namespaces,
without systemd and Pacemaker: tests/e2e has those.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3

from lab.aws import (
    DEBIAN_13_AMI,
    OPERATOR_ACCESS_KEY,
    OPERATOR_SECRET_KEY,
    Aws,
    AwsSettings,
    Hooks,
    InterfaceRecord,
)

ROOT = Path(__file__).resolve().parents[2]
REGION = "eu-west-1"
PRIMARY = {"a": "10.0.1.11", "b": "10.0.1.12"}
PRIVATE_IP = "10.0.1.100"
GATEWAY = "10.0.1.1"
ENDPOINT_PORT = 8080
LINK = "ens6"
ACTIONS = ("DescribeNetworkInterfaces", "AttachNetworkInterface", "DetachNetworkInterface")
IMDS_ADDRESS = "169.254.169.254"


def run(*argv: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    """A command that ends within 20 s. Raises CalledProcessError with its output as a note."""
    options = {"capture_output": True, "text": True, "timeout": 20, **options}
    try:
        return subprocess.run(argv, check=check, **options)
    except subprocess.CalledProcessError as error:
        raise AssertionError(f"{' '.join(argv)} ended with {error.returncode}: {error.stderr}") from error


def policy(statement: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def install_agent(into: Path) -> Path:
    """The agents as on a host, readable for all; returns the folder of the starters."""
    shutil.copytree(
        ROOT / "roles/cluster/files/ocf", into, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(ROOT / "plugins/module_utils/_eni_move.py", into / "lib/evernat/_eni_move.py")
    for path in (into, *into.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.parent.parent.name == "resource.d" else 0o644)
    return into / "resource.d/evernat"


class Wires(Hooks):
    """Moves the ENI's link as EC2 would."""

    def __init__(self, namespaces: dict[str, str], limbo: str) -> None:
        self.namespaces = namespaces
        self.limbo = limbo
        self.instances: dict[str, str] = {}  # instance id: host
        self.dead: set[str] = set()
        self.plugs = True
        self._lock = threading.Lock()

    def interface_plug(self, interface: InterfaceRecord, instance_id: str, device_index: int) -> None:
        with self._lock:
            if self.plugs and device_index > 0 and instance_id in self.instances:
                run("ip", "-n", self.limbo, "link", "set", LINK, "netns", self.namespaces[self.instances[instance_id]])

    def interface_unplug(self, interface_id: str, instance_id: str) -> None:
        with self._lock:
            if instance_id in self.instances:
                # May be in limbo already, if it was never plugged.
                where = self.namespaces[self.instances[instance_id]]
                run("ip", "-n", where, "link", "set", LINK, "netns", self.limbo, check=False)

    def holder_is_dead(self, instance_id: str) -> bool:
        return self.instances.get(instance_id) in self.dead


class World:
    """Two hosts a and b, one ENI. `up()` and `down()`; everything is named after this process."""

    def __init__(self) -> None:
        name = f"evt-agent-{os.getpid()}"
        self.vpc = f"{name}-vpc"
        self.hosts = {host: f"{name}-{host}" for host in PRIMARY}
        self.wires = Wires(self.hosts, self.vpc)
        self.aws = Aws(AwsSettings(region=REGION), self.wires)
        self.folder = Path(tempfile.mkdtemp(prefix="evt-agent-"))
        self.folder.chmod(0o755)
        self.agents = install_agent(self.folder / "ocf")
        self.attributes = self.folder / "attributes"
        self.interface_id = ""
        self.mac = ""
        self.instance_ids: dict[str, str] = {}

    # the world

    def up(self) -> World:
        self._make_network()
        self.aws.start()
        host, port = self.aws.listen("127.0.0.1", 0)
        self.aws.listen(GATEWAY, ENDPOINT_PORT, netns=self.vpc)
        self.aws.listen_imds(IMDS_ADDRESS, 80, netns=self.vpc)
        self.ec2 = self._client("ec2", f"http://{host}:{port}")
        self._make_account(self._client("iam", f"http://{host}:{port}"))
        run("ip", "-n", self.vpc, "link", "set", LINK, "address", self.mac)
        for host in self.hosts:
            self.in_host(host, "iptables", "-t", "nat", *self.snat_rule("-A"))
        return self

    def down(self) -> None:
        self.aws.close()
        for namespace in (*self.hosts.values(), self.vpc):
            run("ip", "netns", "del", namespace, check=False)
        Path(f"/run/evernat-eni-{self.interface_id}.lock").unlink(missing_ok=True)
        shutil.rmtree(self.folder)

    @staticmethod
    def snat_rule(operation: str) -> list[str]:
        """As the role `router` installs it."""
        rule = "POSTROUTING -s 10.0.2.0/24 -m mark --mark 0x45 -j SNAT --to-source 10.0.1.100 --random-fully"
        return [operation, *rule.split()]

    def _make_network(self) -> None:
        for namespace in (self.vpc, *self.hosts.values()):
            run("ip", "netns", "add", namespace)
            run("ip", "-n", namespace, "link", "set", "lo", "up")
        run("ip", "-n", self.vpc, "link", "add", "bridge0", "address", "02:00:00:00:01:01", "type", "bridge")
        run("ip", "-n", self.vpc, "addr", "add", f"{GATEWAY}/24", "dev", "bridge0")
        run("ip", "-n", self.vpc, "addr", "add", f"{IMDS_ADDRESS}/32", "dev", "lo")
        run("ip", "-n", self.vpc, "link", "set", "bridge0", "up")
        for host, namespace in self.hosts.items():
            run(
                "ip",
                "-n",
                self.vpc,
                "link",
                "add",
                f"port-{host}",
                "type",
                "veth",
                "peer",
                "name",
                "ens5",
                "netns",
                namespace,
            )
            self._bridge(f"port-{host}")
            run("ip", "-n", namespace, "addr", "add", f"{PRIMARY[host]}/24", "dev", "ens5")
            run("ip", "-n", namespace, "link", "set", "ens5", "up")
            run("ip", "-n", namespace, "route", "add", "default", "via", GATEWAY)
            # A VPC is no Ethernet: a host is asked only for the addresses of the interface itself.
            self.in_host(host, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.arp_ignore=1")
        run("ip", "-n", self.vpc, "link", "add", "port-eni", "type", "veth", "peer", "name", LINK)
        self._bridge("port-eni")

    def _bridge(self, port: str) -> None:
        run("ip", "-n", self.vpc, "link", "set", port, "master", "bridge0")
        run("ip", "-n", self.vpc, "link", "set", port, "up")

    @staticmethod
    def _client(service: str, url: str) -> Any:
        return boto3.client(
            service,  # type: ignore[call-overload]
            endpoint_url=url,
            region_name=REGION,
            aws_access_key_id=OPERATOR_ACCESS_KEY,
            aws_secret_access_key=OPERATOR_SECRET_KEY,
        )

    def _make_account(self, iam: Any) -> None:
        actions = [f"ec2:{name}" for name in ACTIONS]
        trust = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "ec2.amazonaws.com"}}
        rights = {"Effect": "Allow", "Action": actions, "Resource": "*"}
        iam.create_role(RoleName="nat", AssumeRolePolicyDocument=policy(trust))
        iam.put_role_policy(RoleName="nat", PolicyName="move", PolicyDocument=policy(rights))
        iam.create_instance_profile(InstanceProfileName="nat")
        iam.add_role_to_instance_profile(InstanceProfileName="nat", RoleName="nat")
        vpc = self.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnet = self.ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]
        for host, address in PRIMARY.items():
            made = self.ec2.run_instances(
                ImageId=DEBIAN_13_AMI,
                InstanceType="t3.small",
                MinCount=1,
                MaxCount=1,
                SubnetId=subnet,
                PrivateIpAddress=address,
                IamInstanceProfile={"Name": "nat"},
                MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
            )["Instances"][0]
            self.instance_ids[host] = made["InstanceId"]
            self.wires.instances[made["InstanceId"]] = host
        self.ec2.get_waiter("instance_running").wait(
            InstanceIds=list(self.instance_ids.values()), WaiterConfig={"Delay": 1}
        )
        interface = self.ec2.create_network_interface(SubnetId=subnet, PrivateIpAddress=PRIVATE_IP)["NetworkInterface"]
        self.interface_id, self.mac = interface["NetworkInterfaceId"], interface["MacAddress"]
        self.ec2.modify_network_interface_attribute(
            NetworkInterfaceId=self.interface_id, SourceDestCheck={"Value": False}
        )

    # looking and acting

    def in_host(self, host: str, *argv: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        return run("ip", "netns", "exec", self.hosts[host], *argv, check=check, **options)

    def environ(self, **changes: str) -> dict[str, str]:
        """As Pacemaker sets it; `changes` are parameters, or variables if in capitals."""
        parameters = {
            "interface_id": self.interface_id,
            "mac_address": self.mac,
            "private_ip": PRIVATE_IP,
            "subnet": "10.0.1.0/24",
            "region": REGION,
            "endpoint": f"http://{GATEWAY}:{ENDPOINT_PORT}",
            "detach_grace": "2",
            "holddown": "0",
            "CRM_meta_timeout": "20000",
            "CRM_meta_interval": "5000",
        }
        environ = {
            "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
            "OCF_RESOURCE_INSTANCE": "eni",
            "HA_LOGFACILITY": "none",
        }
        for name, value in {**parameters, **changes}.items():
            environ[name if name.isupper() else f"OCF_RESKEY_{name}"] = value
        return environ

    def agent(self, host: str, action: str, agent: str = "eni", **changes: str) -> subprocess.CompletedProcess[str]:
        """One run of an agent on a host, to its end."""
        argv = self.agent_argv(host, action, agent)
        return run(*argv, check=False, env=self.environ(**changes), timeout=60, stdin=subprocess.DEVNULL)

    def agent_argv(self, host: str, action: str, agent: str = "eni") -> list[str]:
        return ["ip", "netns", "exec", self.hosts[host], str(self.agents / agent), action]

    def interface(self) -> Any:
        return self.aws.snapshot().interfaces[self.interface_id]

    def holder(self) -> str | None:
        """The host that EC2 shows as the holder."""
        attachment = self.interface().attachment
        return None if attachment is None else self.wires.instances[attachment.instance_id]

    def is_up(self, host: str) -> bool:
        """Whether anything of the ENI is in service there: its link up, or its address on any link."""
        links = self.in_host(host, "ip", "-br", "link", "show", "up").stdout
        return LINK in links or PRIVATE_IP in self.in_host(host, "ip", "-br", "addr").stdout

    def actions(self, since: int) -> list[str]:
        """EC2 calls of the hosts."""
        return [
            call.action for call in self.aws.calls.since(since) if call.host != "operator" and call.service == "ec2"
        ]

    def mark(self) -> int:
        return len(self.aws.calls.since(0))

    def reset(self) -> None:
        """Back to: nobody holds it, both hosts well, no faults."""
        self.aws.faults.clear()
        self.aws.settings.dead_detach = "completes"
        self.aws.settings.attach_delay = self.aws.settings.detach_delay = 0.0
        self.wires.plugs = True
        self.wires.dead.clear()
        attachment = self.interface().attachment
        if attachment is not None:
            self.ec2.detach_network_interface(AttachmentId=attachment.id, Force=True)
        wait_for(lambda: self.interface().attachment is None, 10, "the interface to be free")
        for host in self.hosts:
            self.in_host(host, "ip", "link", "set", "ens5", "up")
            self.in_host(host, "ip", "route", "replace", "default", "via", GATEWAY)
            self.in_host(host, "ip", "route", "del", "blackhole", f"{GATEWAY}/32", check=False)
            self.in_host(host, "sysctl", "-qw", "net.ipv4.ip_forward=1")
            self.in_host(host, "ip", "route", "flush", "table", "100", check=False)
            while self.in_host(host, "ip", "rule", "del", "table", "100", check=False).returncode == 0:
                pass
            if self.in_host(host, "iptables", "-t", "nat", *self.snat_rule("-C"), check=False).returncode:
                self.in_host(host, "iptables", "-t", "nat", *self.snat_rule("-A"))


@contextlib.contextmanager
def world() -> Iterator[World]:
    made = World()
    try:
        yield made.up()
    finally:
        made.down()


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> float:
    """Poll until it holds; returns the seconds it took. Raises AssertionError."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise AssertionError(f"waited {seconds} s in vain for {what}")
        time.sleep(0.05)
    return time.monotonic() - began
