# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The OCF layer (resource agent API 1.1): parameters, meta-data, exit codes and reasons, logs, one deadline per action.

Kept free of heavy imports (typing, logging, re, dataclasses): each monitor is a fresh process and pays for them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

OCF_SUCCESS = 0
OCF_ERR_GENERIC = 1
OCF_ERR_ARGS = 2
OCF_ERR_UNIMPLEMENTED = 3
OCF_ERR_PERM = 4
OCF_ERR_INSTALLED = 5
OCF_ERR_CONFIGURED = 6
OCF_NOT_RUNNING = 7
OCF_DEGRADED = 190

REASON_MAX = 200
LINE_MAX = 1500
MARGIN_SHARE = 0.1
MARGIN_MAX = 3.0

_PRIORITIES = {"error": 3, "warning": 4, "notice": 5, "info": 6, "debug": 7}
_FACILITIES = {"user": 1, "daemon": 3, **{f"local{n}": 16 + n for n in range(8)}}


class Failure(Exception):
    """An action's end other than success: its exit code, and the reason that Pacemaker shows."""

    def __init__(self, reason: str, code: int = OCF_ERR_GENERIC) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


class Terminated(BaseException):
    """SIGTERM came: Pacemaker's patience is over. Not an Exception, so that no handler of errors keeps it."""


class Deadline:
    """The end of an action on the monotonic clock (seconds)."""

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self.began = now()
        self.at = self.began + seconds

    def left(self) -> float:
        return max(0.0, self.at - self._now())

    def spent(self) -> float:
        return self._now() - self.began

    def part(self, seconds: float) -> Deadline:
        """A deadline of its own within this one."""
        return Deadline(min(seconds, self.left()), self._now)


class Parameter:
    """A parameter of an agent. `parse` turns its text into a value, or raises ValueError with what is wrong."""

    def __init__(
        self,
        name: str,
        shortdesc: str,
        longdesc: str,
        parse: Callable[[str], Any],
        kind: str = "string",
        default: str = "",
        required: bool = False,
        unique: bool = False,
    ) -> None:
        self.name = name
        self.shortdesc = shortdesc
        self.longdesc = longdesc
        self.parse = parse
        self.kind = kind
        self.default = default
        self.required = required
        self.unique = unique

    def value(self, environ: Mapping[str, str]) -> Any:
        """The value given, or the default. Raises Failure(OCF_ERR_CONFIGURED)."""
        text = environ.get(f"OCF_RESKEY_{self.name}", "").strip() or self.default
        if not text:
            if self.required:
                raise Failure(f"parameter {self.name} is missing", OCF_ERR_CONFIGURED)
            return None
        try:
            return self.parse(text)
        except ValueError as error:
            raise Failure(f"parameter {self.name}: {text!r} is {error}", OCF_ERR_CONFIGURED) from None


class Action:
    """An action as it is advertised: times in seconds."""

    def __init__(self, name: str, timeout: int, handler: Callable[[Call], int], interval: int | None = None) -> None:
        self.name = name
        self.timeout = timeout
        self.handler = handler
        self.interval = interval


class Call:
    """One run of an action: what it was given, and what it may take."""

    def __init__(
        self, action: str, environ: Mapping[str, str], settings: Mapping[str, Any], deadline: Deadline, log: Log
    ) -> None:
        self.action = action
        self.environ = environ
        self.settings = settings
        self.deadline = deadline
        self.log = log

    @property
    def is_probe(self) -> bool:
        return self.action == "monitor" and self.environ.get("OCF_RESKEY_CRM_meta_interval") == "0"

    @property
    def check_level(self) -> int:
        text = self.environ.get("OCF_CHECK_LEVEL", "")
        return int(text) if text.isdigit() else 0


class Log:
    """Single lines of key=value to syslog, as other agents do (HA_LOGFACILITY, HA_debug); to stderr on a terminal.

    A sender that never waits: a stuck journal must not hold up a stop.
    """

    def __init__(self, tag: str, environ: Mapping[str, str], device: str = "/dev/log") -> None:
        self.tag = tag
        self.debug_on = environ.get("HA_debug", "0").strip() not in ("", "0")
        name = environ.get("HA_LOGFACILITY") or "daemon"
        self.facility = _FACILITIES.get(name)  # None for "none"
        self.device = device

    def __call__(self, level: str, **fields: Any) -> None:
        if level == "debug" and not self.debug_on:
            return
        line = " ".join(f"{key}={quote(value)}" for key, value in fields.items() if value is not None)[:LINE_MAX]
        if sys.stderr.isatty():
            sys.stderr.write(f"{self.tag}: {level}: {line}\n")
        elif self.facility is not None:
            self._send(f"<{self.facility * 8 + _PRIORITIES[level]}>{self.tag}[{os.getpid()}]: {line}")

    def _send(self, message: str) -> None:
        # Nobody may listen, or be too busy: the exit reason still tells.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(message.encode(errors="replace"), self.device)


def quote(value: object) -> str:
    """A log value on one line, in quotes where it needs them."""
    text = f"{value:.3f}" if isinstance(value, float) else one_line(str(value))
    if text and not any(char in text for char in ' "='):
        return text
    return '"' + text.replace('"', "'") + '"'


def one_line(text: str) -> str:
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def exit_reason(reason: str) -> None:
    """Tell Pacemaker why: one line on stderr, which it shows with the failed action."""
    line = one_line(reason)
    if len(line) > REASON_MAX:
        line = line[: REASON_MAX - 3] + "..."
    sys.stderr.write(f"ocf-exit-reason:{line}\n")
    sys.stderr.flush()


class Agent:
    """An agent: its description, its parameters and actions, and the way from an action's name to an exit code."""

    def __init__(
        self,
        name: str,
        version: str,
        shortdesc: str,
        longdesc: str,
        parameters: Sequence[Parameter],
        actions: Sequence[Action],
    ) -> None:
        self.name = name
        self.version = version
        self.shortdesc = shortdesc
        self.longdesc = longdesc
        self.parameters = parameters
        self.actions = {action.name: action for action in actions}

    def main(self, argv: Sequence[str], environ: Mapping[str, str] | None = None) -> int:
        """Run the action that is named by the only argument. Returns an OCF exit code."""
        environ = os.environ if environ is None else environ
        name = argv[0] if len(argv) == 1 else ""
        if name == "meta-data":
            print(self.meta_data())
            return OCF_SUCCESS
        if name in ("usage", "help"):
            print(self.usage())
            return OCF_SUCCESS
        if name not in self.actions:
            sys.stderr.write(self.usage() + "\n")
            return OCF_ERR_UNIMPLEMENTED if name else OCF_ERR_ARGS
        signal.signal(signal.SIGTERM, _terminate)
        log = Log(f"{self.name}({environ.get('OCF_RESOURCE_INSTANCE', self.name)})", environ)
        return self._run(self.actions[name], environ, log)

    def usage(self) -> str:
        return f"usage: {self.name} {{{'|'.join([*self.actions, 'meta-data'])}}}"

    def _run(self, action: Action, environ: Mapping[str, str], log: Log) -> int:
        deadline = Deadline(action_seconds(environ, action.timeout))
        try:
            call = Call(action.name, environ, self._settings(action.name, environ, log), deadline, log)
            return action.handler(call)
        except Failure as failure:
            code, reason = failure.code, failure.reason
        except Terminated:
            code, reason = OCF_ERR_GENERIC, f"{action.name} was ended by SIGTERM after {deadline.spent():.1f} s"
        except Exception as error:  # a fault of ours must still end in a reason, on one line
            code, reason = OCF_ERR_GENERIC, f"{action.name} failed: {type(error).__name__}: {error}"
        if code != OCF_NOT_RUNNING:
            exit_reason(reason)
            log("error", action=action.name, rc=code, reason=reason)
        return code

    def _settings(self, action: str, environ: Mapping[str, str], log: Log) -> dict[str, Any]:
        """All parameters' values. A stop takes what it can get: a bad value must not keep a resource running."""
        settings = {}
        for parameter in self.parameters:
            try:
                settings[parameter.name] = parameter.value(environ)
            except Failure as failure:
                if action != "stop":
                    raise
                log("warning", action=action, reason=failure.reason)
                settings[parameter.name] = parameter.parse(parameter.default) if parameter.default else None
        return settings

    def meta_data(self) -> str:
        """The agent's description in XML; valid by OCF 1.1's schema and by resource-agents' older ones alike."""
        parameters = "\n".join(_parameter_xml(parameter) for parameter in self.parameters)
        actions = "\n".join(
            f'<action name="{action.name}" timeout="{action.timeout}s"'
            + ("" if action.interval is None else f' interval="{action.interval}s" depth="0"')
            + " />"
            for action in self.actions.values()
        )
        return f"""<?xml version="1.0"?>
<!DOCTYPE resource-agent SYSTEM "ra-api-1.dtd">
<resource-agent name="{escape(self.name)}" version="{escape(self.version)}">
<version>1.1</version>
<longdesc lang="en">
{escape(self.longdesc)}
</longdesc>
<shortdesc lang="en">{escape(self.shortdesc)}</shortdesc>
<parameters>
{parameters}
</parameters>
<actions>
{actions}
<action name="meta-data" timeout="5s" />
</actions>
</resource-agent>"""


def _parameter_xml(parameter: Parameter) -> str:
    default = f' default="{escape(parameter.default)}"' if parameter.default else ""
    return f"""<parameter name="{parameter.name}" unique="{int(parameter.unique)}" required="{int(parameter.required)}">
<longdesc lang="en">
{escape(parameter.longdesc)}
</longdesc>
<shortdesc lang="en">{escape(parameter.shortdesc)}</shortdesc>
<content type="{parameter.kind}"{default} />
</parameter>"""


def escape(text: str) -> str:
    """Text for XML, in an element or in a quoted attribute."""
    for char, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(char, entity)
    return text


def action_seconds(environ: Mapping[str, str], advertised: float) -> float:
    """The seconds an action may take: Pacemaker's timeout for it (milliseconds) less a margin to end in order."""
    text = environ.get("OCF_RESKEY_CRM_meta_timeout", "")
    timeout = int(text) / 1000 if text.isdigit() and int(text) > 0 else float(advertised)
    return timeout - min(MARGIN_MAX, timeout * MARGIN_SHARE)


def _terminate(signum: int, frame: object) -> None:
    raise Terminated


def integer(minimum: int, maximum: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not minimum <= int(text) <= maximum:
            raise ValueError(f"not a whole number from {minimum} to {maximum}")
        return int(text)

    return parse


def boolean(text: str) -> bool:
    word = text.lower()
    if word in ("true", "yes", "on", "1"):
        return True
    if word in ("false", "no", "off", "0"):
        return False
    raise ValueError("neither true nor false")


def ipv4(text: str) -> str:
    try:
        return socket.inet_ntoa(socket.inet_pton(socket.AF_INET, text))
    except OSError:
        raise ValueError("not an IPv4 address") from None


def ipv4_subnet(text: str) -> tuple[str, int]:
    """A CIDR block as (network address, prefix length)."""
    address, _unused, length = text.partition("/")
    if not length.isascii() or not length.isdigit() or not 1 <= int(length) <= 30:
        raise ValueError("not an IPv4 subnet such as 10.0.1.0/24")
    number = int.from_bytes(socket.inet_aton(ipv4(address)), "big")
    if number % (1 << (32 - int(length))):
        raise ValueError("not an IPv4 subnet: bits behind the prefix are set")
    return address, int(length)


def mac(text: str) -> str:
    """A MAC address in lower case with colons."""
    parts = text.lower().replace("-", ":").split(":")
    if len(parts) != 6 or not all(len(part) == 2 and is_hex(part) for part in parts):
        raise ValueError("not a MAC address")
    return ":".join(parts)


def is_hex(text: str) -> bool:
    return bool(text) and all(char in "0123456789abcdef" for char in text)


def aws_id(prefix: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        rest = text[len(prefix) + 1 :]
        if not text.startswith(f"{prefix}-") or not 8 <= len(rest) <= 17 or not is_hex(rest):
            raise ValueError(f"not an id such as {prefix}-0123456789abcdef0")
        return text

    return parse


def region(text: str) -> str:
    if "-" not in text or not all(char in "abcdefghijklmnopqrstuvwxyz0123456789-" for char in text):
        raise ValueError("not an AWS region such as eu-west-1")
    return text


def ec2_endpoint(region: str) -> str:
    """URL of the region's own EC2 API."""
    return f"https://ec2.{region}.amazonaws.com" + (".cn" if region.startswith("cn-") else "")


def http_url(text: str) -> str:
    scheme, _unused, rest = text.partition("://")
    if scheme not in ("http", "https") or not rest or any(char.isspace() or char in '"@' for char in rest):
        raise ValueError("not an http(s) URL without user and password")
    return text.rstrip("/")


class Lock:
    """One start or stop of a resource at a time, a human's by hand included. Freed by the kernel if its holder dies."""

    def __init__(self, path: str, deadline: Deadline) -> None:
        self._path = path
        self._deadline = deadline
        self._file: int | None = None

    def __enter__(self) -> bool:
        """True if the lock was got, False if somebody held it until the deadline, or no file could be made."""
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return False
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except OSError:
                if self._deadline.left() <= 0:
                    return False
            time.sleep(0.05)

    def __exit__(self, *exc: object) -> None:
        if self._file is not None:
            os.close(self._file)
