# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The instance metadata service: IMDSv2 (and v1 where an instance allows it), one tree per instance."""

from __future__ import annotations

import base64
import json
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from lab.aws import emulation, snapshot
from lab.aws.addresses import association
from lab.aws.settings import ACCOUNT_ID, AwsSettings

LONGEST_TTL = 21600
TOKEN_PATH = "/latest/api/token"
REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Not Allowed"}

Answer = tuple[int, dict[str, str], bytes]


@dataclass(frozen=True)
class _Token:
    instance_id: str
    ttl: int
    expires: float  # monotonic


class Metadata:
    """Answers metadata requests. The instance is the one that has the caller's address."""

    def __init__(self, settings: AwsSettings, lock: Any, backend: Callable[[], Any]) -> None:
        self._settings = settings
        self._lock = lock
        self._backend = backend
        self._tokens: dict[str, _Token] = {}
        self._credentials: dict[str, Any] = {}  # by instance id: moto's assumed role
        self._guard = threading.Lock()

    def reset(self) -> None:
        with self._guard:
            self._tokens.clear()
            self._credentials.clear()

    def instance_of(self, address: str) -> Any:
        """The running instance that has this private address on one of its interfaces, or None."""
        with self._lock:
            for instance in snapshot.all_instances(self._backend()):
                for eni in instance.nics.values():
                    if any(entry["PrivateIpAddress"] == address for entry in eni.private_ip_addresses):
                        return instance
        return None

    def address_of(self, instance_id: str) -> str:
        """The primary private address of an instance, "" if it has none."""
        with self._lock:
            instance = self._backend().get_instance_by_id(instance_id)
            return (instance.private_ip or "") if instance else ""

    def answer(self, method: str, path: str, headers: dict[str, str], instance: Any) -> Answer:
        """One request of an instance: status, headers, body."""
        if instance is None:
            return _error(404)
        options = instance.metadata_options
        if options.http_endpoint == "disabled":
            return _error(403)
        if path == TOKEN_PATH:
            return self._new_token(method, headers, instance) if method == "PUT" else _error(405)
        if method not in ("GET", "HEAD"):
            return _error(405)
        token = headers.get("x-aws-ec2-metadata-token")
        if (token is not None or options.http_tokens == "required") and not self._is_valid(token, instance.id):
            return _error(401)
        with self._lock:
            found = _find(self._tree(instance), path)
        return _error(404) if found is None else (200, {"Content-Type": "text/plain"}, found)

    def _new_token(self, method: str, headers: dict[str, str], instance: Any) -> Answer:
        if "x-forwarded-for" in headers:
            return _error(403)
        ttl = headers.get("x-aws-ec2-metadata-token-ttl-seconds", "")
        if not ttl.isascii() or not ttl.isdigit() or not 1 <= int(ttl) <= LONGEST_TTL:
            return _error(400)
        token = base64.urlsafe_b64encode(secrets.token_bytes(42)).decode()
        with self._guard:
            now = time.monotonic()
            self._tokens = {key: value for key, value in self._tokens.items() if value.expires > now}
            self._tokens[token] = _Token(instance.id, int(ttl), now + int(ttl))
        shown = {"X-Aws-Ec2-Metadata-Token-Ttl-Seconds": ttl, "Content-Type": "text/plain"}
        return 200, shown, token.encode()

    def _is_valid(self, token: str | None, instance_id: str) -> bool:
        with self._guard:
            found = self._tokens.get(token or "")
        return found is not None and found.instance_id == instance_id and found.expires > time.monotonic()

    # --- the tree ---------------------------------------------------------------------------------------------

    def _tree(self, instance: Any) -> dict[str, Any]:
        tree: dict[str, Any] = {
            "meta-data": self._meta_data(instance),
            "dynamic": {"instance-identity": {"document": lambda: _identity(instance)}},
        }
        if instance.user_data:
            tree["user-data"] = base64.b64decode(str(instance.user_data))
        return {"latest": tree}

    def _meta_data(self, instance: Any) -> dict[str, Any]:
        primary = instance.nics[0]
        data: dict[str, Any] = {
            "ami-id": instance.image_id,
            "ami-launch-index": str(instance.ami_launch_index),
            "hostname": instance.private_dns_name,
            "instance-action": "none",
            "instance-id": instance.id,
            "instance-life-cycle": "on-demand",
            "instance-type": instance.instance_type,
            "local-hostname": instance.private_dns_name,
            "local-ipv4": instance.private_ip,
            "mac": primary.mac_address,
            "network": {"interfaces": {"macs": {eni.mac_address: _interface(eni) for eni in _attached(instance)}}},
            "placement": {
                "availability-zone": instance.availability_zone,
                "availability-zone-id": primary.subnet.availability_zone_id,
                "region": instance.ec2_backend.region_name,
            },
            "reservation-id": instance.reservation_id,
            "security-groups": "\n".join(group.name for group in instance.security_groups),
            "services": {"domain": "amazonaws.com", "partition": "aws"},
        }
        if instance.public_ip:
            data["public-ipv4"] = instance.public_ip
            data["public-hostname"] = instance.public_dns_name
        key = instance.ec2_backend.key_pairs.get(instance.key_name)
        if key:
            data["public-keys"] = {f"0={key.key_name}": {"openssh-key": key.material_public.decode().strip()}}
        profile = self._profile(instance)
        if profile is not None and profile.roles:
            data["iam"] = {
                "info": lambda: _json(
                    {
                        "Code": "Success",
                        "LastUpdated": _stamp(datetime.now(timezone.utc)),
                        "InstanceProfileArn": profile.arn,
                        "InstanceProfileId": profile.id,
                    }
                ),
                "security-credentials": {
                    profile.roles[0].name: lambda: _json(self.credentials(instance, profile.roles[0]))
                },
            }
        return data

    def _profile(self, instance: Any) -> Any:
        known = instance.ec2_backend.iam_instance_profile_associations.get(instance.id)
        return known.iam_instance_profile if known else None

    def credentials(self, instance: Any, role: Any) -> dict[str, str]:
        """Keys of the instance's role, the same ones until they are near their end."""
        now = datetime.now(timezone.utc)
        session = self._credentials.get(instance.id)
        margin = min(timedelta(minutes=5), timedelta(seconds=self._settings.credentials_lifetime / 4))
        if session is None or session.role_arn != role.arn or _expiry(session) - margin <= now:
            session = emulation.sts(ACCOUNT_ID).assume_role(
                region_name=instance.ec2_backend.region_name,
                role_session_name=instance.id,
                role_arn=role.arn,
                policy=None,
                duration=self._settings.credentials_lifetime,
                external_id=None,
            )
            session.issued = now
            self._credentials[instance.id] = session
        return {
            "Code": "Success",
            "LastUpdated": _stamp(session.issued),
            "Type": "AWS-HMAC",
            "AccessKeyId": session.access_key_id,
            "SecretAccessKey": session.secret_access_key,
            "Token": session.session_token,
            "Expiration": _stamp(_expiry(session)),
        }

    def credentials_of(self, instance_id: str) -> dict[str, str]:
        """What IMDS would hand out to this instance. Raises LookupError if it has no role."""
        with self._lock:
            instance = self._backend().get_instance_by_id(instance_id)
            profile = self._profile(instance) if instance else None
            if profile is None or not profile.roles:
                raise LookupError(f"instance {instance_id} has no role")
            return self.credentials(instance, profile.roles[0])


def _expiry(session: Any) -> datetime:
    expiry: datetime = session.expiration.replace(tzinfo=timezone.utc)
    return expiry


def _attached(instance: Any) -> Iterable[Any]:
    return [eni for _, eni in sorted(instance.nics.items()) if eni.attachment_status != "attaching"]


def _interface(eni: Any) -> dict[str, Any]:
    vpc = eni.ec2_backend.get_vpc(eni.vpc_id)
    private = [entry["PrivateIpAddress"] for entry in eni.private_ip_addresses]
    public = eni.public_ips_by_private_ip
    tree: dict[str, Any] = {
        "device-number": str(eni.device_index),
        "interface-id": eni.id,
        "local-hostname": f"ip-{private[0].replace('.', '-')}.{eni.ec2_backend.region_name}.compute.internal",
        "local-ipv4s": "\n".join(private),
        "mac": eni.mac_address,
        "owner-id": ACCOUNT_ID,
        "security-group-ids": "\n".join(group.id for group in eni.group_set),
        "security-groups": "\n".join(group.name for group in eni.group_set),
        "subnet-id": eni.subnet.id,
        "subnet-ipv4-cidr-block": eni.subnet.cidr_block,
        "vpc-id": eni.vpc_id,
        "vpc-ipv4-cidr-block": vpc.cidr_block,
        "vpc-ipv4-cidr-blocks": vpc.cidr_block,
    }
    if public:
        tree["public-ipv4s"] = "\n".join(public.values())
        tree["public-hostname"] = association(eni, next(iter(public.values())))["PublicDnsName"]
        tree["ipv4-associations"] = {address: inner for inner, address in public.items()}
    return tree


def _identity(instance: Any) -> bytes:
    return _json(
        {
            "accountId": ACCOUNT_ID,
            "architecture": instance.architecture,
            "availabilityZone": instance.availability_zone,
            "billingProducts": None,
            "devpayProductCodes": None,
            "imageId": instance.image_id,
            "instanceId": instance.id,
            "instanceType": instance.instance_type,
            "kernelId": None,
            "pendingTime": _stamp(instance.launch_time.replace(tzinfo=timezone.utc)),
            "privateIp": instance.private_ip,
            "ramdiskId": None,
            "region": instance.ec2_backend.region_name,
            "version": "2017-09-30",
        }
    )


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2).encode()


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _find(tree: dict[str, Any], path: str) -> bytes | None:
    """The leaf at a path, or the listing of a folder, with a slash behind what has more below it."""
    node: Any = tree
    for part in (part for part in path.split("/") if part):
        if not isinstance(node, dict):
            return None
        # public-keys lists 0=name, and answers to 0
        keys = [key for key in node if key == part or key.partition("=")[0] == part != key]
        if not keys:
            return None
        node = node[keys[0]]
    if callable(node):
        node = node()
    if isinstance(node, dict):
        return "\n".join(_entry(key, value) for key, value in node.items()).encode()
    return node if isinstance(node, bytes) else str(node).encode()


def _entry(key: str, value: Any) -> str:
    return key if not isinstance(value, dict) or "=" in key else key + "/"


def _error(status: int) -> Answer:
    title = f"{status} - {REASONS[status]}"
    body = (
        '<?xml version="1.0" encoding="iso-8859-1"?>\n'
        '<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN"\n'
        '\t"http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">\n'
        '<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="en" lang="en">\n <head>\n'
        f"  <title>{title}</title>\n </head>\n <body>\n  <h1>{title}</h1>\n </body>\n</html>\n"
    )
    return status, {"Content-Type": "text/html"}, body.encode()


def limit_hops(connection: socket.socket, hops: int) -> None:
    """The answer to a token request travels so many hops: it dies on the way to who is behind the host."""
    connection.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, max(1, min(64, hops)))
