# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way of a call: read it, let faults hit it, know the caller, carry it out on moto, log it."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import select
import socket
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from moto.core.exceptions import ServiceException
from werkzeug.test import run_wsgi_app

from lab.aws import emulation, validation
from lab.aws.authentication import Caller, Denied, Signed, authenticate, parse
from lab.aws.authorization import authorize
from lab.aws.calls import Call, CallLog, without_secrets
from lab.aws.faults import IMDS, Fault, Faults
from lab.aws.imds import TOKEN_PATH, Metadata, limit_hops
from lab.aws.policy import PolicyError
from lab.aws.settings import ACCOUNT_ID
from lab.aws.stale import Memory
from lab.aws.world import Closed, World

log = logging.getLogger("lab.aws")

READING = ("Describe", "Get", "List")
STATUS_LINES = {
    200: "200 OK", 400: "400 Bad Request", 401: "401 Unauthorized", 403: "403 Forbidden", 404: "404 Not Found",
    405: "405 Method Not Allowed", 412: "412 Precondition Failed", 500: "500 Internal Server Error",
    501: "501 Not Implemented", 503: "503 Service Unavailable",
}  # fmt: skip
SIMPLE_FAULTS = {
    "throttle": (503, "RequestLimitExceeded", "Request limit exceeded."),
    "unavailable": (503, "Unavailable", "The service is unavailable. Please try again shortly."),
    "internal": (500, "InternalError", "An internal error has occurred"),
}
LONGEST_HANG = 600.0


@dataclass
class Reply:
    """What goes back, and how the log names it."""

    status: int
    body: bytes
    outcome: str = "ok"
    headers: list[tuple[str, str]] = field(default_factory=lambda: [("Content-Type", "text/xml;charset=UTF-8")])


class Dropped(Exception):
    """The connection closes without an answer."""

    def __init__(self, outcome: str) -> None:
        super().__init__(outcome)
        self.outcome = outcome


@dataclass(frozen=True)
class Request:
    """One API call as it came in."""

    environ: dict[str, Any]
    body: bytes
    parameters: dict[str, str]
    signed: Signed | None
    arrived: float = field(default_factory=time.time)
    started: float = field(default_factory=time.monotonic)

    @property
    def action(self) -> str:
        return self.parameters.get("Action", "")

    @property
    def service(self) -> str:
        return self.signed.service if self.signed else "ec2"

    @property
    def headers(self) -> dict[str, str]:
        found = {
            key[5:].replace("_", "-").lower(): value for key, value in self.environ.items() if key.startswith("HTTP_")
        }
        for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            if self.environ.get(name):
                found[name.replace("_", "-").lower()] = self.environ[name]
        return found

    @property
    def url(self) -> str:
        query = self.environ.get("QUERY_STRING", "")
        path = self.environ.get("REQUEST_URI", "/").partition("?")[0]
        host = self.environ.get("HTTP_HOST", "localhost")
        return f"{self.environ['wsgi.url_scheme']}://{host}{path}{'?' + query if query else ''}"


def read_request(environ: dict[str, Any]) -> Request:
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body = environ["wsgi.input"].read(length) if length else b""
    text = environ.get("QUERY_STRING", "")
    if environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
        text = body.decode("utf-8", "replace") or text
    parameters = dict(parse_qsl(text, keep_blank_values=True))
    return Request(environ, body, parameters, parse(environ.get("HTTP_AUTHORIZATION", "")))


class Gateway:
    """Serves the API. One per emulator; used by all of its listeners."""

    def __init__(self, world: World, calls: CallLog, faults: Faults) -> None:
        self._world = world
        self._calls = calls
        self._faults = faults
        self._moto = emulation.application()
        self._memory = Memory(world)

    def reset(self) -> None:
        self._memory.clear()

    # --- a call -----------------------------------------------------------------------------------------------

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        request = read_request(environ)
        caller, denied = self._caller(request)
        faults = self._faults.hitting(request.action, caller.host if caller else "unknown")
        try:
            reply = self._answer(request, caller, denied, faults)
        except Dropped as drop:
            self._log(request, caller, drop.outcome)
            return close_connection(environ)
        except Closed:
            return close_connection(environ)
        self._log(request, caller, reply.outcome)
        start_response(STATUS_LINES[reply.status], [*reply.headers, ("Content-Length", str(len(reply.body)))])
        return [reply.body]

    def _caller(self, request: Request) -> tuple[Caller | None, Denied | None]:
        if request.signed is None:
            return None, Denied("MissingAuthenticationToken", "Request is missing Authentication Token", 403)
        try:
            with self._world.lock:
                return authenticate(
                    request.signed, request.environ["REQUEST_METHOD"], request.url, request.headers, request.body,
                    self._world.settings,
                ), None  # fmt: skip
        except Denied as denied:
            return None, denied

    def _answer(self, request: Request, caller: Caller | None, denied: Denied | None, faults: list[Fault]) -> Reply:
        self._world.wait(self._world.settings.api_delay)
        suffer_before(self._world, faults, request.environ)
        for fault in faults:
            if fault.kind in SIMPLE_FAULTS:
                return error_reply(request.service, *SIMPLE_FAULTS[fault.kind])
            if fault.kind == "error":
                return error_reply(request.service, 400, fault.code, "An error that was asked for")
        if caller is None:
            assert denied is not None
            return error_reply(request.service, denied.status, denied.code, denied.message)
        reply = self._carry_out(request, caller)
        for fault in faults:
            if fault.kind == "drop-after":
                raise Dropped("dropped-after" if reply.outcome == "ok" else "dropped")
            if fault.kind == "garbage":
                return Reply(200, b"\x00\xfe<<not xml at all", "garbage")
        return reply

    def _carry_out(self, request: Request, caller: Caller) -> Reply:
        reading = request.action.startswith(READING)
        key = self._memory.key(request.service, request.parameters) if reading else None

        def act() -> Reply:
            try:
                self._check(request, caller)
                return self._serve(request)
            except Denied as denied:
                return error_reply(request.service, denied.status, denied.code, denied.message)
            except ServiceException as refused:
                status = 412 if refused.code == "DryRunOperation" else 400
                return error_reply(request.service, status, refused.code, refused.message)
            except (PolicyError, NotImplementedError) as gap:
                log.error("%s: %s", request.action, gap)
                return error_reply(request.service, 501, "LabNotImplemented", str(gap))
            except Exception as error:
                log.exception("%s failed", request.action)
                return error_reply(request.service, 500, "InternalError", f"{type(error).__name__}: {error}")

        if key is None:
            if not reading:
                self._memory.remember()
            reply: Reply = self._world.call(act)
            if not reading and reply.outcome == "ok":
                self._world.changed()
            return reply
        return self._memory.read(key, lambda: self._world.call(act))

    def _check(self, request: Request, caller: Caller) -> None:
        if request.service == "ec2":
            validation.check(request.action, request.parameters)
        if not caller.is_operator:
            region = request.signed.region if request.signed else self._world.settings.region
            backend = emulation.ec2(region, ACCOUNT_ID)
            source = request.environ.get("REMOTE_ADDR", "")
            authorize(caller, request.service, request.action, request.parameters, backend, source)

    def _serve(self, request: Request) -> Reply:
        environ = dict(request.environ)
        environ["wsgi.input"] = io.BytesIO(request.body)
        chunks, status, headers = run_wsgi_app(self._moto, environ, buffered=True)
        body = as_ec2_writes(b"".join(chunks))
        number = int(status.split()[0])
        kept = [(name, value) for name, value in headers.items() if name.lower() != "content-length"]
        return Reply(number, body, "ok" if number < 300 else error_code(body), kept)

    def _log(self, request: Request, caller: Caller | None, outcome: str) -> None:
        self._calls.add(
            Call(
                time=request.arrived,
                monotonic=request.started,
                caller=caller.arn if caller else "unknown",
                host=caller.host if caller else "unknown",
                service=request.service,
                action=request.action,
                params=without_secrets(request.parameters),
                outcome=outcome,
                duration=time.monotonic() - request.started,
                dry_run=request.parameters.get("DryRun", "").lower() == "true",
            )
        )


class MetadataService:
    """Serves IMDS on one listener. The instance is the one with the peer's address, or a given one."""

    def __init__(
        self, world: World, metadata: Metadata, calls: CallLog, faults: Faults, instance_id: str | None
    ) -> None:
        self._world = world
        self._metadata = metadata
        self._calls = calls
        self._faults = faults
        self._instance_id = instance_id

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        started, arrived = time.monotonic(), time.time()
        request = read_request(environ)
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "/")
        instance = self._metadata.instance_of(self._address(environ))
        host = instance.id if instance is not None else "unknown"
        outcome = "hung"
        try:
            outcome, answer = self._answer(method, path, request.headers, instance, host, environ)
        except Dropped as drop:
            outcome = drop.outcome
            return close_connection(environ)
        except Closed:
            return close_connection(environ)
        finally:
            action, took = f"{method} {path}", time.monotonic() - started
            self._calls.add(Call(arrived, started, host, host, "imds", action, {}, outcome, took))
        status, headers, body = answer
        if method == "PUT" and path == TOKEN_PATH and instance is not None:
            limit_hops(environ["werkzeug.socket"], int(instance.metadata_options.http_put_response_hop_limit))
        start_response(STATUS_LINES[status], [*headers.items(), ("Content-Length", str(len(body)))])
        return [body]

    def _address(self, environ: dict[str, Any]) -> str:
        if self._instance_id is None:
            return str(environ.get("REMOTE_ADDR", ""))
        return self._metadata.address_of(self._instance_id)

    def _answer(
        self, method: str, path: str, headers: dict[str, str], instance: Any, host: str, environ: dict[str, Any]
    ) -> tuple[str, tuple[int, dict[str, str], bytes]]:
        faults = self._faults.hitting(IMDS, host)
        suffer_before(self._world, faults, environ)
        for fault in faults:
            if fault.kind in ("throttle", "unavailable", "internal", "error"):
                return fault.kind, (500 if fault.kind == "internal" else 503, {"Content-Type": "text/html"}, b"")
            if fault.kind == "garbage":
                return fault.kind, (200, {"Content-Type": "text/plain"}, b"\x00\xfegarbage")
            if fault.kind == "drop-after":
                raise Dropped("dropped")
        answer = self._metadata.answer(method, path, headers, instance)
        return "ok" if answer[0] == 200 else str(answer[0]), answer


def suffer_before(world: World, faults: list[Fault], environ: dict[str, Any]) -> None:
    """The faults that come before the call: latency, hanging, a connection that closes."""
    for fault in faults:
        if fault.kind == "latency":
            world.wait(fault.seconds)
        elif fault.kind == "hang":
            _hang(world, fault.seconds or LONGEST_HANG, environ)
            raise Dropped("hung")
        elif fault.kind == "drop-before":
            raise Dropped("dropped")


def _hang(world: World, seconds: float, environ: dict[str, Any]) -> None:
    """Say nothing until the time is over, the client has gone or the emulator closes."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        world.wait(min(0.2, max(0.0, deadline - time.monotonic())))
        if select.select([environ["werkzeug.socket"]], [], [], 0)[0]:
            return


def close_connection(environ: dict[str, Any]) -> Iterable[bytes]:
    """Let the server close the connection without a word."""
    with contextlib.suppress(OSError):
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionResetError("a fault closes this connection")


def error_reply(service: str, status: int, code: str, message: str) -> Reply:
    """An error in the service's own shape."""
    number = uuid.uuid4()
    error = f"<Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
    if service == "ec2":
        text = f"<Response><Errors><Error>{error}</Error></Errors><RequestID>{number}</RequestID></Response>"
    else:
        text = (
            f"<ErrorResponse><Error><Type>Sender</Type>{error}</Error><RequestId>{number}</RequestId></ErrorResponse>"
        )
    return Reply(status, f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode(), code)


def as_ec2_writes(body: bytes) -> bytes:
    """moto's answer with a request id of its own and the namespace that ends in a slash."""
    body = body.replace(b"<requestId>request-id<", f"<requestId>{uuid.uuid4()}<".encode(), 1)
    return body.replace(b'/doc/2016-11-15">', b'/doc/2016-11-15/">', 1)


def error_code(body: bytes) -> str:
    """The Code element of an error answer."""
    start, end = body.find(b"<Code>"), body.find(b"</Code>")
    return body[start + 6 : end].decode("utf-8", "replace") if 0 <= start < end else "Unknown"


def json_reply(value: Any, status: int = 200) -> Reply:
    return Reply(status, json.dumps(value).encode(), headers=[("Content-Type", "application/json")])
