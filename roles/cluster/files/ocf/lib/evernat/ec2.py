# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small EC2 client for the engine: three calls of the Query API, SigV4, credentials of the instance's role by IMDSv2.

Credentials live in this process's memory only. A call ends within the seconds it is given, come what may: name
service, connect, TLS and a server that sends a byte now and then included. It never repeats a write by itself: the
engine reads first. Only where EC2 did not look at a request (expired credentials, a wrong clock) is it sent again.
"""

from __future__ import annotations

import calendar
import contextlib
import email.utils
import hashlib
import hmac
import http.client
import json
import os
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, TypeVar
from urllib.parse import quote, urlencode, urlsplit
from xml.etree import ElementTree

from _eni_move import ApiError, Attachment, Interface

if TYPE_CHECKING:
    from collections.abc import Mapping

API_VERSION = "2016-11-15"
ALGORITHM = "AWS4-HMAC-SHA256"
METADATA_URL = "http://169.254.169.254"
METADATA_TOKEN_SECONDS = 60
ANSWER_MAX = 1 << 20
SKEW_MIN = 30.0  # a smaller difference between the clocks is not why a signature was refused
DMI_INSTANCE_ID = "/sys/devices/virtual/dmi/id/board_asset_tag"

_STALE_CREDENTIALS = frozenset({"ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "AuthFailure"})
_CLOCK_SUSPECT = frozenset({"RequestExpired", "AuthFailure", "SignatureDoesNotMatch", "InvalidSignatureException"})

Result = TypeVar("Result")


class Credentials:
    """Temporary credentials of a role. Has no readable repr, so that none gets into a log or a traceback."""

    def __init__(self, access_key: str, secret_key: str, token: str) -> None:
        self.access_key = access_key
        self.secret_key = secret_key
        self.token = token

    def __repr__(self) -> str:
        return "Credentials(...)"


class Answer:
    """An HTTP answer: `server_time` is its Date header in seconds since the epoch, None without one."""

    def __init__(self, status: int, body: bytes, server_time: float | None) -> None:
        self.status = status
        self.body = body
        self.server_time = server_time


def within(seconds: float, what: str, work: Callable[[], Result]) -> Result:
    """Do work in a thread of its own, for no longer than `seconds`.

    Raises ApiError "Timeout" when it takes longer: no socket option bounds name service and a trickling server alike.
    The thread is left behind; its socket has a timeout too, and the process ends soon.
    """
    done: list[Result] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:  # raised again in the caller's thread
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(max(0.0, seconds))
    if failed:
        raise failed[0]
    if not done:
        raise ApiError("Timeout", f"no answer from {what} within {seconds:.1f} s")
    return done[0]


class HttpServer:
    """One HTTP(S) server, by one connection that is kept open between calls."""

    def __init__(self, url: str, what: str) -> None:
        parts = urlsplit(url)
        self.what = what
        self.secure = parts.scheme == "https"
        self.name = parts.hostname or ""
        self.port = parts.port or (443 if self.secure else 80)
        default = self.port == (443 if self.secure else 80)
        self.host_header = self.name if default else f"{self.name}:{self.port}"
        self.path = parts.path or "/"
        self._connection: http.client.HTTPConnection | None = None
        self._opening: threading.Thread | None = None

    def open_early(self, timeout: float) -> None:
        """Connect in the background, ahead of the first request. If that fails, the request tries again, and tells."""

        def connect() -> None:
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                connection = self._connect(timeout)
                connection.connect()
                self._connection = connection

        self._opening = threading.Thread(target=connect, daemon=True)
        self._opening.start()

    def request(self, method: str, path: str, headers: Mapping[str, str], body: bytes, timeout: float) -> Answer:
        """Raises ApiError Timeout, ConnectionError or BadAnswer."""
        try:
            return within(timeout, self.what, lambda: self._request(method, path, headers, body, timeout))
        except ApiError:
            self.close()
            raise
        except socket.timeout:
            self.close()
            raise ApiError("Timeout", f"no answer from {self.what} within {timeout:.1f} s") from None
        except OSError as error:
            self.close()
            reason = str(error) or type(error).__name__
            raise ApiError("ConnectionError", f"{self.what} ({self.host_header}): {reason}") from error
        except (http.client.HTTPException, ValueError) as error:
            self.close()
            raise ApiError("BadAnswer", f"{self.what}: {type(error).__name__}: {error}") from error

    def _request(self, method: str, path: str, headers: Mapping[str, str], body: bytes, timeout: float) -> Answer:
        if self._opening is not None:
            self._opening.join(timeout)
            self._opening = None
        if self._connection is None:
            self._connection = self._connect(timeout)
        connection = self._connection
        connection.timeout = timeout
        if connection.sock is not None:
            connection.sock.settimeout(timeout)
        connection.request(method, path, body=body or None, headers=dict(headers))
        response = connection.getresponse()
        answer = response.read(ANSWER_MAX)
        if not response.isclosed():
            raise ValueError(f"an answer of more than {ANSWER_MAX} bytes")
        return Answer(response.status, answer, _http_date(response.getheader("Date")))

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        if not self.secure:
            return http.client.HTTPConnection(self.name, self.port, timeout=timeout)
        return http.client.HTTPSConnection(self.name, self.port, timeout=timeout, context=tls_context())

    def close(self) -> None:
        """Break the connection off. Only the socket: to close its reader would wait for a thread that still reads."""
        connection, self._connection = self._connection, None
        if connection is not None and connection.sock is not None:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)


def tls_context() -> ssl.SSLContext:
    """Verifies the server's certificate and name.

    The system's authorities are looked up one by one, by the hashed names that Debian gives them: to load all of them,
    as `create_default_context()` does, takes longer than to load Python.
    """
    folder = ssl.get_default_verify_paths().capath
    with contextlib.suppress(OSError):
        if folder is not None and any(name.endswith(".0") for name in os.listdir(folder)):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(capath=folder)
            return context
    return ssl.create_default_context()


class Metadata:
    """The instance metadata service, version 2."""

    def __init__(self, server: HttpServer | None = None) -> None:
        self.server = server or HttpServer(METADATA_URL, "the instance metadata service")
        self._token = ""

    def instance_id(self, timeout: float) -> str:
        return self._get("/latest/meta-data/instance-id", timeout).decode()

    def credentials(self, timeout: float) -> Credentials:
        end = time.monotonic() + timeout
        folder = "/latest/meta-data/iam/security-credentials/"
        role = self._get(folder, timeout).decode().split("\n")[0].strip()
        if not role:
            raise ApiError("NoCredentials", "this instance has no role (instance profile)")
        try:
            found = json.loads(self._get(folder + quote(role), end - time.monotonic()))
            return Credentials(found["AccessKeyId"], found["SecretAccessKey"], found["Token"])
        except (ValueError, KeyError, TypeError):
            raise ApiError("NoCredentials", f"the metadata service gave no credentials for role {role}") from None

    def _get(self, path: str, timeout: float) -> bytes:
        """One item, with a fresh session token if the present one is refused."""
        end = time.monotonic() + timeout
        for fresh in (not self._token, True):
            if fresh:
                self._token = self._new_token(end - time.monotonic())
            headers = {"X-aws-ec2-metadata-token": self._token}
            answer = self.server.request("GET", path, headers, b"", end - time.monotonic())
            if answer.status != 401 or fresh:
                break
        if answer.status == 404:
            raise ApiError("NoCredentials", f"the metadata service has no {path}")
        if answer.status != 200:
            raise ApiError("ConnectionError", f"the metadata service answered HTTP {answer.status} for {path}")
        return answer.body

    def _new_token(self, timeout: float) -> str:
        headers = {"X-aws-ec2-metadata-token-ttl-seconds": str(METADATA_TOKEN_SECONDS)}
        answer = self.server.request("PUT", "/latest/api/token", headers, b"", timeout)
        if answer.status != 200:
            raise ApiError("ConnectionError", f"the metadata service answered HTTP {answer.status} for a token")
        return answer.body.decode()


def find_instance_id(metadata: Metadata, timeout: float, dmi_path: str = DMI_INSTANCE_ID) -> str:
    """This host's instance id: from DMI (Nitro) or from the metadata service. Raises ApiError."""
    try:
        with open(dmi_path) as file:
            text = file.read().strip()
    except OSError:
        text = ""
    return text if text.startswith("i-") else metadata.instance_id(timeout)


class Ec2:
    """The engine's client. Each call takes the seconds it may last, and raises ApiError."""

    def __init__(
        self,
        region: str,
        server: HttpServer,
        credentials: Callable[[float], Credentials],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.region = region
        self.server = server
        self._fetch_credentials = credentials
        self._credentials: Credentials | None = None
        self._wall_clock = wall_clock
        self._fresh: Credentials | None = None  # credentials that were fetched for the call under way
        self._skew = 0.0  # EC2's clock minus ours, as it is put into signatures
        self._measured_skew = 0.0  # the same, by the last answer
        self._attached_since: dict[str, float] = {}  # attachment id: time.monotonic()

    def describe(self, interface_id: str, timeout: float) -> Interface:
        # A filter, not an id: unfiltered calls share a smaller budget (EC2 developer guide, request throttling).
        filtered = {"Filter.1.Name": "network-interface-id", "Filter.1.Value.1": interface_id}
        root, server_time = self._call({"Action": "DescribeNetworkInterfaces", **filtered}, timeout)
        items = root.findall("./{*}networkInterfaceSet/{*}item")
        if not items:
            raise ApiError("InvalidNetworkInterfaceID.NotFound", f"there is no {interface_id} in {self.region}")
        interface = _interface(items[0])
        if interface.attachment is not None:
            since = _attach_time(items[0])
            if since is not None:
                age = max(0.0, (server_time or self._wall_clock() + self._skew) - since)
                self._attached_since[interface.attachment.attachment_id] = time.monotonic() - age
        return interface

    def attach(self, interface_id: str, instance_id: str, device_index: int, timeout: float) -> str:
        root, _unused = self._call(_attach_parameters(interface_id, instance_id, device_index), timeout)
        return _required(root, "attachmentId")

    def detach(self, attachment_id: str, force: bool, timeout: float) -> None:
        parameters = {"Action": "DetachNetworkInterface", "AttachmentId": attachment_id}
        if force:
            parameters["Force"] = "true"
        self._call(parameters, timeout)

    def may_attach(self, interface_id: str, instance_id: str, device_index: int, timeout: float) -> None:
        """DryRun of attach: returns if it is permitted, else raises ApiError."""
        self._dry_run(_attach_parameters(interface_id, instance_id, device_index), timeout)

    def may_detach(self, attachment_id: str, timeout: float) -> None:
        """DryRun of detach: returns if it is permitted, else raises ApiError."""
        self._dry_run({"Action": "DetachNetworkInterface", "AttachmentId": attachment_id}, timeout)

    def attached_for(self, attachment_id: str) -> float | None:
        """Seconds since an attachment that was described began, by EC2's clock; None if not known."""
        since = self._attached_since.get(attachment_id)
        return None if since is None else time.monotonic() - since

    def _dry_run(self, parameters: Mapping[str, str], timeout: float) -> None:
        try:
            self._call({**parameters, "DryRun": "true"}, timeout)
        except ApiError as error:
            if error.code != "DryRunOperation":
                raise

    def _call(self, parameters: Mapping[str, str], timeout: float) -> tuple[ElementTree.Element, float | None]:
        end = time.monotonic() + timeout
        try:
            return self._call_once(parameters, end)
        except ApiError as error:
            if not self._cured(error.code):
                raise
        return self._call_once(parameters, end)

    def _cured(self, code: str) -> bool:
        """Whether what made EC2 refuse the signature was put right here."""
        if code in _CLOCK_SUSPECT and abs(self._measured_skew - self._skew) > SKEW_MIN:
            self._skew = self._measured_skew
            return True
        if code in _STALE_CREDENTIALS and self._credentials is not self._fresh:
            self._credentials = None
            return True
        return False

    def _call_once(self, parameters: Mapping[str, str], end: float) -> tuple[ElementTree.Element, float | None]:
        self._fresh = None
        if self._credentials is None:
            self._credentials = self._fresh = self._fetch_credentials(end - time.monotonic())
        body = urlencode({**parameters, "Version": API_VERSION}, quote_via=quote).encode()
        headers = {
            "Host": self.server.host_header,
            "Content-Type": "application/x-www-form-urlencoded; charset=utf-8",
        }
        now = self._wall_clock() + self._skew
        signed = sign("POST", self.server.path, "", headers, body, self._credentials, self.region, "ec2", now)
        answer = self.server.request("POST", self.server.path, signed, body, end - time.monotonic())
        if answer.server_time is not None:
            self._measured_skew = answer.server_time - self._wall_clock()
        return _parse(answer), answer.server_time


def sign(
    method: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    body: bytes,
    credentials: Credentials,
    region: str,
    service: str,
    now: float,
) -> dict[str, str]:
    """The headers with an AWS Signature Version 4. `path` and `query` are in their canonical form already."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    headers = {**headers, "X-Amz-Date": stamp}
    if credentials.token:
        headers["X-Amz-Security-Token"] = credentials.token
    lowered = sorted((name.lower(), " ".join(value.split())) for name, value in headers.items())
    names = ";".join(name for name, _unused in lowered)
    lines = [f"{name}:{value}" for name, value in lowered]
    canonical = "\n".join([method, path, query, *lines, "", names, hashlib.sha256(body).hexdigest()])
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    to_sign = "\n".join([ALGORITHM, stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{credentials.secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
    headers["Authorization"] = (
        f"{ALGORITHM} Credential={credentials.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return headers


def _attach_parameters(interface_id: str, instance_id: str, device_index: int) -> dict[str, str]:
    return {
        "Action": "AttachNetworkInterface",
        "NetworkInterfaceId": interface_id,
        "InstanceId": instance_id,
        "DeviceIndex": str(device_index),
    }


def _parse(answer: Answer) -> ElementTree.Element:
    try:
        root = ElementTree.fromstring(answer.body)
    except ElementTree.ParseError:
        raise ApiError("BadAnswer", f"EC2 answered HTTP {answer.status} and no XML") from None
    if answer.status == 200:
        return root
    request_id = _text(root, "{*}RequestID") or _text(root, "{*}RequestId")
    code = _text(root, ".//{*}Error/{*}Code")
    if not code:
        raise ApiError("BadAnswer", f"EC2 answered HTTP {answer.status} without an error code", request_id)
    raise ApiError(code, _text(root, ".//{*}Error/{*}Message"), request_id)


def _interface(item: ElementTree.Element) -> Interface:
    attached = item.find("{*}attachment")
    check = _text(item, "{*}sourceDestCheck")
    return Interface(
        interface_id=_required(item, "networkInterfaceId"),
        status=_required(item, "status"),
        attachment=None if attached is None or not _text(attached, "{*}attachmentId") else _attachment(attached),
        mac_address=_text(item, "{*}macAddress").lower(),
        private_ip=_text(item, "{*}privateIpAddress"),
        subnet_id=_text(item, "{*}subnetId"),
        availability_zone=_text(item, "{*}availabilityZone"),
        source_dest_check=check == "true" if check else None,
        requester_managed=_text(item, "{*}requesterManaged") == "true",
    )


def _attachment(element: ElementTree.Element) -> Attachment:
    return Attachment(
        attachment_id=_required(element, "attachmentId"),
        instance_id=_text(element, "{*}instanceId") or "unknown",  # of another account: no instance id is shown
        device_index=int(_text(element, "{*}deviceIndex") or 0),
        status=_required(element, "status"),
        delete_on_termination=_text(element, "{*}deleteOnTermination") == "true",
    )


def _attach_time(item: ElementTree.Element) -> float | None:
    text = _text(item, "{*}attachment/{*}attachTime")[:19]
    try:
        return float(calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%S")))
    except ValueError:
        return None


def _http_date(text: str | None) -> float | None:
    parsed: Any = email.utils.parsedate_tz(text) if text else None
    return None if parsed is None else float(email.utils.mktime_tz(parsed))


def _text(element: ElementTree.Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _required(element: ElementTree.Element, name: str) -> str:
    text = _text(element, "{*}" + name)
    if not text:
        raise ApiError("BadAnswer", f"EC2's answer has no {name}")
    return text
