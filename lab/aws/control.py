# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The paths below /_lab/: what tests in other processes need of the emulator's object."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from lab.aws.faults import Fault
from lab.aws.gateway import STATUS_LINES, Reply, json_reply

if TYPE_CHECKING:
    from lab.aws.server import Aws


class Control:
    """Serves /_lab/..., and everything else by the API.

    GET, POST, DELETE /_lab/faults     list; add one rule or a list of them; clear
    GET /_lab/calls?since=N            {"mark": M, "calls": [...]}
    POST /_lab/reset                   forget all objects and faults
    GET, POST /_lab/settings           show; change
    GET /_lab/credentials?instance=ID  role credentials, as IMDS has them
    """

    def __init__(self, aws: Aws, api: Callable[..., Iterable[bytes]]) -> None:
        self._aws = aws
        self._api = api

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if not path.startswith("/_lab/"):
            return self._api(environ, start_response)
        try:
            reply = self._reply(environ["REQUEST_METHOD"], path.removeprefix("/_lab/"), environ)
        except (ValueError, TypeError, LookupError) as error:
            reply = json_reply({"error": str(error)}, 400)
        start_response(STATUS_LINES[reply.status], [*reply.headers, ("Content-Length", str(len(reply.body)))])
        return [reply.body]

    def _reply(self, method: str, name: str, environ: dict[str, Any]) -> Reply:
        query = {key: values[-1] for key, values in parse_qs(environ.get("QUERY_STRING", "")).items()}
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = json.loads(environ["wsgi.input"].read(length)) if length else None
        if name == "faults":
            return self._faults(method, body)
        if (method, name) == ("GET", "calls"):
            since = int(query.get("since", 0))
            found = self._aws.calls.since(since)
            return json_reply({"mark": since + len(found), "calls": [dataclasses.asdict(call) for call in found]})
        if (method, name) == ("POST", "reset"):
            self._aws.reset()
            return json_reply({})
        if name == "settings":
            return self._settings(method, body)
        if (method, name) == ("GET", "credentials"):
            return json_reply(self._aws.credentials(query["instance"]))
        return json_reply({"error": f"no {method} /_lab/{name}"}, 404)

    def _faults(self, method: str, body: Any) -> Reply:
        if method == "POST":
            rules = [Fault(**rule) for rule in (body if isinstance(body, list) else [body])]
            return json_reply({"ids": [self._aws.faults.add(rule) for rule in rules]})
        if method == "DELETE":
            self._aws.faults.clear()
        return json_reply(self._aws.faults.listed())

    def _settings(self, method: str, body: Any) -> Reply:
        settings = self._aws.settings
        if method == "POST":
            dataclasses.replace(settings, **body)  # checks names and values before any is taken over
            for key, value in body.items():
                setattr(settings, key, value)
        shown = dataclasses.asdict(settings)
        shown.pop("operator_secret")
        return json_reply(shown)
