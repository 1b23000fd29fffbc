# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Listening sockets, in a named network namespace if asked for, and a threaded WSGI server on each."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from typing import Any

from moto.moto_server.werkzeug_app import MotoRequestHandler
from werkzeug.serving import ThreadedWSGIServer

from lab.netns import enter

HANDSHAKE_TIMEOUT = 10.0


def bound_socket(host: str, port: int, netns: str | None = None) -> socket.socket:
    """A listening TCP socket. A socket belongs to the namespace it was made in, wherever it is used later."""
    if netns is None:
        return _bound(host, port)
    return enter(netns, lambda: _bound(host, port))


def _bound(host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(128)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from error
    return sock


class _Handler(MotoRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        """The call log is elsewhere."""

    def address_string(self) -> str:
        return str(self.client_address[0])


class Listener(ThreadedWSGIServer):
    """One listening socket. TLS handshakes are made in the connection's own thread: a silent client blocks no one."""

    def __init__(self, sock: socket.socket, app: Any, tls: ssl.SSLContext | None) -> None:
        host, port = sock.getsockname()[:2]
        super().__init__(host, port, app, _Handler, fd=sock.fileno())
        sock.close()
        self.ssl_context = tls
        self._connections: set[socket.socket] = set()
        self._guard = threading.Lock()
        self._thread = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.1}, name=f"lab-aws-{host}:{port}", daemon=True
        )
        self._thread.start()

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.ssl_context is not None:
            request.settimeout(HANDSHAKE_TIMEOUT)
            request = self.ssl_context.wrap_socket(request, server_side=True)
            request.settimeout(None)
        with self._guard:
            self._connections.add(request)
        try:
            super().finish_request(request, client_address)
            if self.ssl_context is not None:
                with contextlib.suppress(OSError, ssl.SSLError):
                    request.unwrap()
        finally:
            with self._guard:
                self._connections.discard(request)
            if self.ssl_context is not None:
                request.close()

    def shutdown_request(self, request: Any) -> None:
        if self.ssl_context is None:
            super().shutdown_request(request)
        else:
            self.close_request(request)  # wrap_socket has detached it

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away or spoke no TLS is no error of ours."""

    def stop(self) -> None:
        """Close the socket and every connection."""
        self.shutdown()
        with self._guard:
            connections = list(self._connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
