# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The EC2 client: signatures, answers, errors, credentials, time limits."""

from __future__ import annotations

import contextlib
import email.utils
import socket
import ssl
import subprocess
import threading
import time
from typing import Any, Callable

import ec2
import ocf
import pytest
from _eni_move import ApiError

KEYS = ec2.Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "")
NOW = 1440938160.0  # 2015-08-30T12:36:00Z, the time of AWS's test suite
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
STS_TOKEN = (
    "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthA"
    "x7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY"
    "9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA=="
)


def signature(method: str, query: str, headers: dict[str, str], body: bytes, token: str = "") -> str:
    keys = ec2.Credentials(KEYS.access_key, KEYS.secret_key, token)
    signed = ec2.sign(
        method, "/", query, {"Host": "example.amazonaws.com", **headers}, body, keys, "us-east-1", "service", NOW
    )
    return signed["Authorization"].rpartition("Signature=")[2]


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (("GET", "", {}, b""), "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        (("POST", "", {}, b""), "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        (("POST", "", FORM, b"Param1=value1"), "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"),
        (("POST", "", {}, b"", STS_TOKEN), "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead"),
        (("GET", "Param1=value1", {}, b""), "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb"),
    ],
    ids=["get-vanilla", "post-vanilla", "post-x-www-form-urlencoded", "post-sts-header-before", "get-vanilla-query"],
)
def test_aws_own_signature_vectors(case: tuple[Any, ...], expected: str) -> None:
    assert signature(*case) == expected


def test_the_example_of_the_iam_guide() -> None:
    headers = {"Host": "iam.amazonaws.com", "Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    signed = ec2.sign("GET", "/", "Action=ListUsers&Version=2010-05-08", headers, b"", KEYS, "us-east-1", "iam", NOW)
    assert signed["Authorization"].endswith("5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7")


def error_xml(code: str, message: str = "no") -> bytes:
    return (
        f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>"
        "<RequestID>r-1</RequestID></Response>"
    ).encode()


DESCRIBED = b"""<DescribeNetworkInterfacesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><networkInterfaceSet><item>
<networkInterfaceId>eni-0123456789abcdef0</networkInterfaceId><status>in-use</status><macAddress>02:AB:00:00:00:01</macAddress>
<privateIpAddress>10.0.1.100</privateIpAddress><subnetId>subnet-1</subnetId><availabilityZone>eu-west-1a</availabilityZone>
<sourceDestCheck>false</sourceDestCheck><requesterManaged>false</requesterManaged><attachment><attachmentId>eni-attach-1
</attachmentId><instanceId>i-0aaaaaaaaaaaaaaaa</instanceId><deviceIndex>1</deviceIndex><status>attached</status>
<attachTime>2015-08-30T12:35:00.000Z</attachTime><deleteOnTermination>true</deleteOnTermination></attachment></item>
</networkInterfaceSet></DescribeNetworkInterfacesResponse>"""


class FakeServer:
    """Answers in turn; an exception is raised. Keeps the requests."""

    host_header = "ec2.eu-west-1.amazonaws.com"
    path = "/"

    def __init__(self, *answers: Any, now: float = NOW) -> None:
        self.answers = list(answers)
        self.now = now
        self.bodies: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.timeouts: list[float] = []

    def request(self, method: str, path: str, headers: dict[str, str], body: bytes, timeout: float) -> ec2.Answer:
        self.bodies.append(body.decode())
        self.headers.append(headers)
        self.timeouts.append(timeout)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        status, text = answer
        return ec2.Answer(status, text, self.now)


class Fetches:
    """Counts how often credentials were asked for."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, timeout: float) -> ec2.Credentials:
        self.count += 1
        return ec2.Credentials(f"ASIA{self.count}", "secret", "token")


def client_of(*answers: Any, now: float = NOW) -> tuple[ec2.Ec2, FakeServer, Fetches]:
    server, fetches = FakeServer(*answers, now=now), Fetches()
    return ec2.Ec2("eu-west-1", server, fetches, lambda: NOW), server, fetches  # type: ignore[arg-type]


def test_describe_reads_the_interface_by_a_filter() -> None:
    client, server, _unused = client_of((200, DESCRIBED))
    interface = client.describe("eni-0123456789abcdef0", 3.0)
    assert "Filter.1.Name=network-interface-id&Filter.1.Value.1=eni-0123456789abcdef0" in server.bodies[0]
    assert (interface.mac_address, interface.private_ip) == ("02:ab:00:00:00:01", "10.0.1.100")
    assert (interface.source_dest_check, interface.requester_managed) == (False, False)
    assert interface.held is not None
    assert (interface.held.attachment_id, interface.holder) == ("eni-attach-1", "i-0aaaaaaaaaaaaaaaa")
    assert (interface.held.device_index, interface.held.status) == (1, "attached")
    assert interface.held.delete_on_termination
    assert client.attached_for("eni-attach-1") == pytest.approx(60.0, abs=1.0)
    assert client.attached_for("eni-attach-2") is None


def test_the_age_of_an_attachment_does_not_depend_on_our_clock() -> None:
    client, _unused, _unused = client_of((200, DESCRIBED), now=NOW + 3600)
    client.describe("eni-0123456789abcdef0", 3.0)
    assert client.attached_for("eni-attach-1") == pytest.approx(3660.0, abs=1.0)


def test_writes_carry_what_they_were_told() -> None:
    client, server, _unused = client_of(
        (200, b"<r><attachmentId>eni-attach-2</attachmentId></r>"), (200, b"<r/>"), (200, b"<r/>")
    )
    assert client.attach("eni-1", "i-1", 2, 3.0) == "eni-attach-2"
    client.detach("eni-attach-2", False, 3.0)
    client.detach("eni-attach-2", True, 3.0)
    assert server.bodies[0] == (
        "Action=AttachNetworkInterface&NetworkInterfaceId=eni-1&InstanceId=i-1&DeviceIndex=2&Version=2016-11-15"
    )
    assert "Force" not in server.bodies[1]
    assert "Force=true" in server.bodies[2]


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ((400, error_xml("InvalidNetworkInterface.InUse")), "InvalidNetworkInterface.InUse"),
        ((503, error_xml("RequestLimitExceeded")), "RequestLimitExceeded"),
        ((403, error_xml("UnauthorizedOperation")), "UnauthorizedOperation"),
        ((503, b"<html>busy</html>"), "BadAnswer"),
        ((502, b"Bad gateway"), "BadAnswer"),
        ((200, b""), "BadAnswer"),
        ((200, b"<r><networkInterfaceSet><item/></networkInterfaceSet></r>"), "BadAnswer"),
        ((200, b"<r><networkInterfaceSet/></r>"), "InvalidNetworkInterfaceID.NotFound"),
        (ApiError("Timeout"), "Timeout"),
        (ApiError("ConnectionError"), "ConnectionError"),
    ],
)
def test_each_trouble_is_an_api_error_and_is_not_repeated(answer: Any, code: str) -> None:
    client, server, _unused = client_of(answer)
    with pytest.raises(ApiError) as caught:
        client.describe("eni-0123456789abcdef0", 3.0)
    assert caught.value.code == code
    assert len(server.bodies) == 1


def test_an_error_carries_message_and_request_id() -> None:
    client, _unused, _unused = client_of((400, error_xml("IncorrectState", "not now")))
    with pytest.raises(ApiError) as caught:
        client.detach("eni-attach-1", False, 3.0)
    assert (caught.value.message, caught.value.request_id) == ("not now", "r-1")


def test_a_clock_that_is_off_is_corrected_by_the_answer() -> None:
    client, server, fetches = client_of((400, error_xml("RequestExpired")), (200, DESCRIBED), now=NOW + 600)
    client.describe("eni-0123456789abcdef0", 3.0)
    assert server.headers[0]["X-Amz-Date"] == "20150830T123600Z"
    assert server.headers[1]["X-Amz-Date"] == "20150830T124600Z"
    assert fetches.count == 1


def test_a_signature_that_is_refused_with_the_clock_right_is_an_error() -> None:
    client, server, _unused = client_of((401, error_xml("AuthFailure")))
    with pytest.raises(ApiError, match="AuthFailure"):
        client.describe("eni-0123456789abcdef0", 3.0)
    assert len(server.bodies) == 1


def test_credentials_that_have_expired_are_fetched_once_more() -> None:
    client, server, fetches = client_of((200, DESCRIBED), (400, error_xml("ExpiredToken")), (200, DESCRIBED))
    client.describe("eni-0123456789abcdef0", 3.0)
    client.describe("eni-0123456789abcdef0", 3.0)
    assert fetches.count == 2
    assert "Credential=ASIA2/" in server.headers[2]["Authorization"]


def test_fresh_credentials_that_are_refused_are_an_error() -> None:
    client, _unused, fetches = client_of((400, error_xml("ExpiredToken")))
    with pytest.raises(ApiError, match="ExpiredToken"):
        client.describe("eni-0123456789abcdef0", 3.0)
    assert fetches.count == 1


@pytest.mark.parametrize(("code", "allowed"), [("DryRunOperation", True), ("UnauthorizedOperation", False)])
def test_dry_run(code: str, allowed: bool) -> None:
    client, server, _unused = client_of((412, error_xml(code)), (412, error_xml(code)))
    for ask in (lambda: client.may_attach("eni-1", "i-1", 1, 3.0), lambda: client.may_detach("eni-attach-1", 3.0)):
        if allowed:
            ask()
        else:
            with pytest.raises(ApiError, match="UnauthorizedOperation"):
                ask()
    assert all("DryRun=true" in body for body in server.bodies)


def metadata_of(*answers: tuple[int, bytes]) -> tuple[ec2.Metadata, FakeServer]:
    server = FakeServer(*answers)
    return ec2.Metadata(server), server  # type: ignore[arg-type]


CREDENTIALS = b'{"Code":"Success","AccessKeyId":"ASIA1","SecretAccessKey":"hidden","Token":"hidden too"}'


def test_credentials_come_from_imdsv2_with_a_token() -> None:
    metadata, server = metadata_of((200, b"T"), (200, b"role-a\n"), (200, CREDENTIALS))
    found = metadata.credentials(3.0)
    assert (found.access_key, found.secret_key, found.token) == ("ASIA1", "hidden", "hidden too")
    assert "hidden" not in repr(found)
    assert "X-aws-ec2-metadata-token-ttl-seconds" in server.headers[0]
    assert all(headers["X-aws-ec2-metadata-token"] == "T" for headers in server.headers[1:])


def test_an_imds_token_that_has_expired_is_renewed() -> None:
    metadata, _unused = metadata_of((200, b"T"), (200, b"i-1"), (401, b""), (200, b"T2"), (200, b"i-1"))
    assert metadata.instance_id(3.0) == "i-1"
    assert metadata.instance_id(3.0) == "i-1"


@pytest.mark.parametrize(
    ("answers", "code"),
    [
        (((403, b""),), "ConnectionError"),
        (((200, b"T"), (404, b"")), "NoCredentials"),
        (((200, b"T"), (200, b"")), "NoCredentials"),
        (((200, b"T"), (500, b"")), "ConnectionError"),
        (((200, b"T"), (401, b"")), "ConnectionError"),
        (((200, b"T"), (200, b"role"), (200, b"<html>")), "NoCredentials"),
        (((200, b"T"), (200, b"role"), (200, b'{"Code":"Failed"}')), "NoCredentials"),
    ],
)
def test_metadata_trouble_is_an_api_error(answers: tuple[Any, ...], code: str) -> None:
    metadata, _unused = metadata_of(*answers)
    with pytest.raises(ApiError) as caught:
        metadata.credentials(3.0)
    assert caught.value.code == code


def test_the_instance_id_comes_from_dmi_or_metadata(tmp_path: Any) -> None:
    tag = tmp_path / "board_asset_tag"
    tag.write_text("i-0bbbbbbbbbbbbbbbb\n")
    assert ec2.find_instance_id(metadata_of()[0], 3.0, str(tag)) == "i-0bbbbbbbbbbbbbbbb"
    tag.write_text("Not Specified\n")
    assert ec2.find_instance_id(metadata_of((200, b"T"), (200, b"i-1"))[0], 3.0, str(tag)) == "i-1"
    assert ec2.find_instance_id(metadata_of((200, b"T"), (200, b"i-1"))[0], 3.0, str(tmp_path / "none")) == "i-1"


@pytest.mark.parametrize(
    ("region", "url"),
    [
        ("eu-west-1", "https://ec2.eu-west-1.amazonaws.com"),
        ("cn-north-1", "https://ec2.cn-north-1.amazonaws.com.cn"),
    ],
)
def test_the_regions_own_endpoint(region: str, url: str) -> None:
    assert ocf.ec2_endpoint(region) == url


class LoopbackServer:
    """A TCP server for one behaviour per connection: `serve` gets the socket."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self._serve = serve
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                peer, _unused = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with peer, contextlib.suppress(OSError):
                self._serve(peer)

    def close(self) -> None:
        self._listener.close()


def get(server: LoopbackServer, timeout: float) -> ec2.Answer:
    return ec2.HttpServer(server.url, "the test").request("GET", "/", {}, b"", timeout)


def trickle(peer: socket.socket) -> None:
    peer.recv(1000)
    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _unused in range(100):
        peer.sendall(b"x")
        time.sleep(0.05)


def never(peer: socket.socket) -> None:
    peer.recv(1000)
    time.sleep(3)


@pytest.mark.parametrize("serve", [trickle, never], ids=["trickle", "never"])
def test_a_slow_server_costs_no_more_than_the_time_given(serve: Callable[[socket.socket], None]) -> None:
    server = LoopbackServer(serve)
    began = time.monotonic()
    with pytest.raises(ApiError) as caught:
        get(server, 0.3)
    assert caught.value.code == "Timeout"
    assert time.monotonic() - began < 1.0
    server.close()


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (b"", "ConnectionError"),
        (b"nonsense\r\n\r\n", "BadAnswer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", "BadAnswer"),
    ],
)
def test_a_server_that_breaks_off(reply: bytes, code: str) -> None:
    def serve(peer: socket.socket) -> None:
        peer.recv(1000)
        peer.sendall(reply)

    server = LoopbackServer(serve)
    with pytest.raises(ApiError) as caught:
        get(server, 2.0)
    assert caught.value.code == code
    server.close()


def test_nobody_listening_is_a_connection_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ApiError) as caught:
        ec2.HttpServer(f"http://127.0.0.1:{port}", "the test").request("GET", "/", {}, b"", 2.0)
    assert caught.value.code == "ConnectionError"


def keep_alive(peer: socket.socket) -> None:
    date = email.utils.formatdate(NOW, usegmt=True).encode()
    while peer.recv(1000):
        peer.sendall(b"HTTP/1.1 200 OK\r\nDate: " + date + b"\r\nContent-Length: 2\r\n\r\nok")


@pytest.mark.parametrize("early", [False, True])
def test_one_connection_serves_several_calls(early: bool) -> None:
    server = LoopbackServer(keep_alive)
    http = ec2.HttpServer(server.url, "the test")
    if early:
        http.open_early(2.0)
    for _unused in range(3):
        answer = http.request("GET", "/", {}, b"", 2.0)
        assert (answer.status, answer.body, answer.server_time) == (200, b"ok", NOW)
    assert server.connections == 1
    http.close()
    server.close()


def test_the_connection_is_there_before_the_first_call() -> None:
    server = LoopbackServer(keep_alive)
    http = ec2.HttpServer(server.url, "the test")
    http.open_early(2.0)
    deadline = time.monotonic() + 5
    while not server.connections and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.connections == 1
    http.close()
    server.close()


def test_a_connection_that_cannot_be_opened_early_is_the_first_calls_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    http = ec2.HttpServer(f"http://127.0.0.1:{port}", "the test")
    http.open_early(2.0)
    with pytest.raises(ApiError) as caught:
        http.request("GET", "/", {}, b"", 2.0)
    assert caught.value.code == "ConnectionError"
    with socket.create_server(("127.0.0.1", port)) as listener:
        threading.Thread(target=lambda: keep_alive(listener.accept()[0]), daemon=True).start()
        assert http.request("GET", "/", {}, b"", 2.0).status == 200


@pytest.fixture
def authority(tmp_path: Any) -> Any:
    """A folder with the certificate and the key of "localhost", signed by itself, under no hashed name yet."""
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run([*make, *names, *files], check=True, capture_output=True, timeout=20)
    return tmp_path


@pytest.mark.parametrize(("name", "known"), [("localhost", True), ("localhost", False), ("127.0.0.1", True)])
def test_tls_trusts_the_systems_authorities_and_checks_the_name(
    authority: Any, monkeypatch: pytest.MonkeyPatch, name: str, known: bool
) -> None:
    """An authority by its hashed name is enough; one that is not there, or another's name, is refused."""
    done = subprocess.run(
        ["openssl", "x509", "-in", authority / "cert.pem", "-noout", "-hash"],
        check=True,
        capture_output=True,
        text=True,
        timeout=20,
    )
    folder = authority / "hashed"
    folder.mkdir()
    hashed = done.stdout.strip() if known else "00000000"
    (folder / f"{hashed}.0").write_bytes((authority / "cert.pem").read_bytes())
    monkeypatch.setenv("SSL_CERT_DIR", str(folder))
    monkeypatch.setenv("SSL_CERT_FILE", str(authority / "none"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "cert.pem", authority / "key.pem")

    def serve(peer: socket.socket) -> None:
        with context.wrap_socket(peer, server_side=True) as secure:
            keep_alive(secure)

    server = LoopbackServer(serve)
    http = ec2.HttpServer(server.url.replace("http://127.0.0.1", f"https://{name}"), "the test")
    if known and name == "localhost":
        assert http.request("GET", "/", {}, b"", 5.0).status == 200
    else:
        with pytest.raises(ApiError, match="certificate verify failed") as caught:
            http.request("GET", "/", {}, b"", 5.0)
        assert caught.value.code == "ConnectionError"
    http.close()
    server.close()


def test_tls_without_hashed_names_loads_all_authorities(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    monkeypatch.setattr(ssl, "create_default_context", lambda: "all of them")
    assert ec2.tls_context() == "all of them"


def test_a_name_service_that_hangs_costs_no_more_than_the_time_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args: time.sleep(2))
    began = time.monotonic()
    with pytest.raises(ApiError, match="Timeout"):
        ec2.HttpServer("https://ec2.example", "the test").request("GET", "/", {}, b"", 0.2)
    assert time.monotonic() - began < 1.0
