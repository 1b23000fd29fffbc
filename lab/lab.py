# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab as one thing: the emulated AWS decides, the fabric and the hosts follow.

with Lab(LabSettings(name="demo")) as lab:
    lab.operator.playbook("evernat.aws.site", "-e", f"@{lab.pair_file}")
    lab.power_cut(lab.holder())
"""

from __future__ import annotations

import fcntl
import ipaddress
import json
import logging
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import boto3

from lab.account import CLIENT_ADDRESS, FLOATING_ADDRESS, PRIVATE_CIDR, make_account, make_key
from lab.aws import tls
from lab.aws.hooks import Hooks
from lab.aws.listener import Listener, bound_socket
from lab.aws.server import Aws
from lab.aws.settings import DEBIAN_12_AMI, DEBIAN_13_AMI, OPERATOR_ACCESS_KEY, OPERATOR_SECRET_KEY, AwsSettings
from lab.aws.snapshot import InstanceRecord, InterfaceRecord, Snapshot
from lab.cluster import node_name, state_of, told_by, wait_for
from lab.hosts import host as hosts
from lab.hosts import image
from lab.hosts.host import File, Host
from lab.hosts.wait import wait_until
from lab.operator import ROOT, Operator
from lab.picture import interface_of, network_of
from lab.vpc.fabric import API_ADDRESS, METADATA_ADDRESS, OPERATOR_ADDRESS, SERVER_ADDRESSES, Fabric

log = logging.getLogger(__name__)

RELEASES = {DEBIAN_13_AMI: "trixie", DEBIAN_12_AMI: "bookworm"}
IMAGE_NAMES = {"trixie": "debian-13-amd64-*", "bookworm": "debian-12-amd64-*"}
RUN = Path("/run/evernat-lab")
OUT = ROOT / "lab" / "out"
CA_FILE = "/usr/local/share/ca-certificates/evernat-lab.crt"
CHECK_IP_NAME = "checkip.amazonaws.com"
CHECK_IP_ADDRESS = SERVER_ADDRESSES[1]


class LabError(Exception):
    """The lab could not do what it was asked for."""


@dataclass(frozen=True)
class Delays:
    """What AWS takes its time for, in seconds. AWS publishes no figures: these are settings, printed beside results."""

    api: float = 0.1
    detach: float = 2.5
    attach: float = 2.0
    link: float = 0.5  # from `attached` to the link seen in the guest
    reassign: float = 0.0  # from the answer to its effect, where an address, Elastic IP or route is moved by one call

    @property
    def injected_ms(self) -> int:
        """What the bare calls of a move take: describe, detach, attach, and the link."""
        return round((3 * self.api + self.detach + self.attach + self.link) * 1000)

    def __str__(self) -> str:
        return f"API {self.api * 1000:.0f} ms, detach {self.detach:g} s, attach {self.attach:g} s, link {self.link:g} s"


QUICK_DELAYS = Delays(api=0.02, detach=0.5, attach=0.5, link=0.2)  # for tests, which need not wait as users do


@dataclass(frozen=True)
class LabSettings:
    """`name` tells labs apart that run at the same time; `release` is the hosts' Debian (trixie or bookworm)."""

    name: str = "lab"
    release: str = "trixie"
    delays: Delays = field(default_factory=Delays)
    dead_detach: str = "completes"  # a polite detach from a dead guest: "completes", or "stuck" until Force


class Lab:
    """One account with one VPC, a client in it, an internet, an operator. Use as a context manager."""

    def __init__(self, settings: LabSettings) -> None:
        self.settings = settings
        delays = settings.delays
        self.aws = Aws(
            AwsSettings(
                api_delay=delays.api,
                attach_delay=delays.attach,
                detach_delay=delays.detach,
                reassign_delay=delays.reassign,
                dead_detach=settings.dead_detach,
            ),
            hooks=_Realiser(self),
        )
        self.state = RUN / settings.name
        self.fabric = Fabric(settings.name)
        self.hosts: dict[str, Host] = {}
        self.frozen: set[str] = set()
        self._check_ip: Listener | None = None
        self._lock: IO[str] | None = None

    def __enter__(self) -> Lab:
        try:
            self.up()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def up(self) -> None:
        """Make everything but the pair. What a killed run of the same name left is removed first."""
        self._claim()
        purge(self.settings.name)
        self.state.mkdir(parents=True, mode=0o700)
        image.ensure(self.settings.release)
        self.fabric.up()
        self.aws.start()
        self._serve()
        key = make_key(self.state)
        self.account = make_account(self.ec2, self.aws.settings.zone, key.with_suffix(".pub").read_text())
        self._make_client()
        self.operator = Operator(
            ["ip", "netns", "exec", self.fabric.operator_netns],
            self.operator_environment(),
            work=self.state,
            private_key=key,
            logs=OUT / f"{self.settings.name}-playbooks",
        )
        self.pair_file = self._write_pair_file()

    def _claim(self) -> None:
        """Take the lab's name for this process: a second lab of that name would purge this one."""
        RUN.mkdir(parents=True, exist_ok=True)
        claim = (RUN / f"{self.settings.name}.lock").open("a")
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            claim.close()
            raise LabError(f"a lab called {self.settings.name} is running already: end it, or wait for it") from None
        self._lock = claim

    def down(self) -> None:
        """Remove everything: hosts, namespaces, state."""
        if self._lock is None:
            return
        try:
            if self._check_ip is not None:
                self._check_ip.stop()
            self.aws.close()  # first: its threads boot and plug
            for host in list(self.hosts.values()):
                host.destroy()
        finally:
            self.hosts.clear()
            purge(self.settings.name)
            (RUN / f"{self.settings.name}.lock").unlink()
            self._lock.close()
            self._lock = None

    # -- what the operator works with

    def operator_environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": f"https://{API_ADDRESS}",
            "AWS_CA_BUNDLE": str(self.state / "ca" / "ca.crt"),
            "AWS_REGION": self.aws.settings.region,
            "AWS_ACCESS_KEY_ID": OPERATOR_ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": OPERATOR_SECRET_KEY,
        }

    def _write_pair_file(self) -> Path:
        """The variables that a user would write for this VPC."""
        pair = {
            "provision_name": "nat",
            "provision_region": self.aws.settings.region,
            "provision_vpc_id": self.account.vpc_id,
            "provision_subnet_id": self.account.public_subnet_id,
            "provision_route_table_ids": [self.account.private_route_table_id],
            "provision_eni_ip": FLOATING_ADDRESS,
            "provision_client_cidrs": [PRIVATE_CIDR],
            "provision_admin_cidrs": [f"{OPERATOR_ADDRESS}/32"],
            "provision_hosts": [{"name": "a"}, {"name": "b"}],
            "provision_image_name": IMAGE_NAMES[self.settings.release],
            "provision_key_name": self.account.key_name,
        }
        path = self.state / "pair.json"
        path.write_text(json.dumps(pair, indent=2))
        return path

    def _serve(self) -> None:
        """The API: on loopback for the lab itself, over TLS under AWS's names for all others. IMDS for the hosts."""
        region = self.aws.settings.region
        authority = tls.make_ca(self.state / "ca")
        names = [f"{service}.{region}.amazonaws.com" for service in ("ec2", "sts")]
        context = tls.server_context(tls.make_cert(authority, names, [API_ADDRESS]))
        host, port = self.aws.listen("127.0.0.1", 0)
        self._endpoint = f"http://{host}:{port}"
        self.aws.listen(API_ADDRESS, 443, tls=context, netns=self.fabric.internet_netns)
        self.aws.listen_imds(METADATA_ADDRESS, 80, netns=self.fabric.vpc_netns)
        self.ec2 = self.client("ec2")
        check_ip = tls.server_context(tls.make_cert(authority, [CHECK_IP_NAME], []))
        self._check_ip = Listener(
            bound_socket(CHECK_IP_ADDRESS, 443, self.fabric.internet_netns), tell_address, check_ip
        )

    def client(self, service: str) -> Any:
        """A boto3 client with the operator's rights, over loopback."""
        return boto3.client(
            service,
            endpoint_url=self._endpoint,
            region_name=self.aws.settings.region,
            aws_access_key_id=OPERATOR_ACCESS_KEY,
            aws_secret_access_key=OPERATOR_SECRET_KEY,
        )

    def _make_client(self) -> None:
        self.fabric.apply(network_of(self.aws.snapshot(), self.account.vpc_id))
        self.fabric.add_client(self.account.private_subnet_id, CLIENT_ADDRESS)

    # -- facts

    def interface(self) -> InterfaceRecord:
        """The floating interface as AWS has it."""
        for record in self.aws.snapshot().interfaces.values():
            if FLOATING_ADDRESS in record.private_ips:
                return record
        raise LabError(f"no interface has the address {FLOATING_ADDRESS}")

    def holder(self) -> str:
        """The id of the instance that the floating interface is attached to. Raises LabError if there is none."""
        attachment = self.interface().attachment
        if attachment is None:
            raise LabError(f"{self.interface().id} is attached to no instance")
        return attachment.instance_id

    def pair(self) -> list[str]:
        """Ids of the instances that live, by their names."""
        alive = [item for item in self.aws.snapshot().instances.values() if item.state in ("running", "pending")]
        return [item.id for item in sorted(alive, key=lambda item: item.tags.get("Name", ""))]

    def peer(self, instance_id: str) -> str:
        return next(other for other in self.pair() if other != instance_id)

    def moves_since(self, mark: int) -> list[str]:
        """The instances that the floating interface was attached to after a mark of AWS's call log, in order."""
        return [
            call.params["InstanceId"]
            for call in self.aws.calls.since(mark)
            if call.action == "AttachNetworkInterface" and call.outcome == "ok"
        ]

    def elastic_ip(self) -> str:
        return self.interface().public_ips[FLOATING_ADDRESS]

    def files_for(self, instance: InstanceRecord) -> dict[str, str | bytes | File]:
        """What DNS, the AMI's trust store and cloud-init would have given a host."""
        region = self.aws.settings.region
        names = f"ec2.{region}.amazonaws.com sts.{region}.amazonaws.com"
        return {
            "/etc/hosts": f"127.0.0.1 localhost\n{instance.private_ip} {hostname_of(instance)}\n"
            f"{API_ADDRESS} {names}\n{CHECK_IP_ADDRESS} {CHECK_IP_NAME}\n",
            CA_FILE: (self.state / "ca" / "ca.crt").read_text(),
            "/home/admin/.ssh/authorized_keys": File(f"{instance.public_key or ''}\n", mode=0o600, owner=1000),
        }

    # -- faults

    def power_cut(self, instance_id: str) -> float:
        """The host loses power, its links first. Returns the moment (monotonic)."""
        moment = time.monotonic()
        self.fabric.power_cut(instance_id)
        self.hosts[instance_id].power_cut()
        self.frozen.discard(instance_id)
        return moment

    def power_on(self, instance_id: str) -> None:
        """Boot a host again that had lost its power, with the interfaces that AWS says it has."""
        instance = self.aws.snapshot().instances[instance_id]
        self._boot(instance)

    def switch_over(self, to: str, deadline: float) -> float:
        """Have Pacemaker move the floating interface to an instance by plan; returns the moment (monotonic) of asking.

        The holder is banned until the other serves, and not a moment longer. `deadline` is a time.monotonic() value.
        Raises LabError if `to` holds it already, HostTimeout if it does not serve in time.
        """
        holder = self.holder()
        if holder == to:
            raise LabError(f"{to} holds the interface already, so there is nothing to switch over")
        target = self.hosts[to]
        name, banned = node_name(target), node_name(self.hosts[holder])
        moment = time.monotonic()
        try:
            target.run(["crm_resource", "--resource", "eni", "--ban", "--node", banned], check=True)
            # The emulator is asked first, since it costs the busy hosts nothing.
            holds = f"{to} holds the interface"
            wait_until(holds, lambda: self._is_attached_to(to), deadline - moment, self._attachment)
            left = deadline - time.monotonic()
            wait_for(f"{name} serves", lambda: name in state_of(target).eni_on, left, lambda: told_by(target))
        finally:
            target.run(["crm_resource", "--resource", "eni", "--clear", "--node", banned], check=True)
        return moment

    def _is_attached_to(self, instance_id: str) -> bool:
        attachment = self.interface().attachment
        return attachment is not None and (attachment.instance_id, attachment.status) == (instance_id, "attached")

    def _attachment(self) -> str:
        return str(self.interface().attachment)

    def freeze(self, instance_id: str) -> None:
        """User space stands still; the kernel goes on forwarding."""
        self.frozen.add(instance_id)
        self.hosts[instance_id].freeze()

    def thaw(self, instance_id: str) -> None:
        self.hosts[instance_id].thaw()
        self.frozen.discard(instance_id)

    def cut_ring(self, one_way: bool = False) -> None:
        """No packet between the two hosts' primary interfaces on Corosync's port."""
        first, second = self.pair()
        self.fabric.cut(first, second, udp_ports=[5405], one_way=one_way)

    def heal(self) -> None:
        """End every fault that still holds: of API and network, frozen hosts, hosts without power."""
        self.aws.faults.clear()
        self.fabric.heal()
        for instance_id in list(self.frozen):
            self.thaw(instance_id)
        for instance_id in self.pair():
            if not self.hosts[instance_id].is_on():
                self.power_on(instance_id)

    # -- realising what AWS decides

    def _boot(self, instance: InstanceRecord) -> None:
        if instance.id in self.hosts:
            self.fabric.power_on(instance.id)
            self.hosts[instance.id].boot(self.files_for(instance))
            return
        netns = self.fabric.add_host(instance.id)
        for index, record in sorted(instance.interfaces.items()):
            self.fabric.plug(interface_of(record), instance.id, link_name(index), configure=index == 0)
        rootfs = image.ensure(RELEASES[instance.image_id])
        host = Host(instance.id, rootfs, self.state / "hosts", netns, hostname_of(instance))
        self.hosts[instance.id] = host
        host.boot(self.files_for(instance))
        host.wait_running(60)
        host.run(["update-ca-certificates"], timeout=60, check=True)


class _Realiser(Hooks):
    """What the emulated AWS has decided happens to namespaces and hosts."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._plugged: dict[str, str] = {}  # interface id -> attachment id that may still be waiting for its link
        self._lock = threading.Lock()

    def instance_boot(self, instance: InstanceRecord) -> None:
        self._lab._boot(instance)

    def instance_power_off(self, instance_id: str, graceful: bool, terminate: bool) -> None:
        host = self._lab.hosts.get(instance_id)
        if host is None:
            return
        if graceful:
            host.shutdown()
        self._lab.fabric.power_cut(instance_id)
        host.power_cut()
        if terminate:
            host.destroy()
            del self._lab.hosts[instance_id]
            self._lab.fabric.remove_host(instance_id)

    def interface_plug(self, interface: InterfaceRecord, instance_id: str, device_index: int) -> None:
        attachment = interface.attachment.id if interface.attachment else ""
        with self._lock:
            self._plugged[interface.id] = attachment

        def plug() -> None:
            with self._lock:
                # By now it may be detached again, or the host terminated.
                if self._plugged.get(interface.id) == attachment and instance_id in self._lab.hosts:
                    self._lab.fabric.plug(interface_of(interface), instance_id, link_name(device_index))

        _later(self._lab.settings.delays.link, plug)

    def interface_unplug(self, interface_id: str, instance_id: str) -> None:
        with self._lock:
            self._plugged.pop(interface_id, None)
            self._lab.fabric.unplug(interface_id)

    def holder_is_dead(self, instance_id: str) -> bool:
        host = self._lab.hosts.get(instance_id)
        return host is None or instance_id in self._lab.frozen or not host.is_on()

    def network_changed(self, snapshot: Snapshot) -> None:
        if hasattr(self._lab, "account"):
            self._lab.fabric.apply(network_of(snapshot, self._lab.account.vpc_id))


def tell_address(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """What checkip.amazonaws.com does: answers with the caller's address."""
    body = f"{environ['REMOTE_ADDR']}\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def _later(seconds: float, work: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, work)
    timer.daemon = True
    timer.start()


def link_name(device_index: int) -> str:
    """The name that a Nitro instance's interface has on Debian: ens5, ens6, ..."""
    return f"ens{5 + device_index}"


def hostname_of(instance: InstanceRecord) -> str:
    """EC2's name for a host: ip-10-0-1-11."""
    return "ip-" + str(ipaddress.ip_address(instance.private_ip or "0.0.0.0")).replace(".", "-")


def purge(name: str) -> None:
    """Remove what a lab of this name left, also after it was killed."""
    hosts.purge(RUN / name / "hosts")
    Fabric(name).down()
    shutil.rmtree(RUN / name, ignore_errors=True)
