# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The OCF layer: parameters, meta-data, exit codes and reasons, logs, deadlines."""

from __future__ import annotations

import os
import signal
import socket
from typing import Any
from xml.etree import ElementTree

import eni
import ocf
import pytest
import watch
from ocf import Action, Agent, Failure, Parameter


def agent_of(handler: Any) -> Agent:
    parameters = [Parameter("count", "Count", "A count.", ocf.integer(1, 9), kind="integer", default="3")]
    return Agent("toy", "1", "short", "long", parameters, [Action("start", 10, handler), Action("stop", 10, handler)])


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (ocf.integer(1, 31), "31", 31),
        (ocf.boolean, "Yes", True),
        (ocf.boolean, "0", False),
        (ocf.ipv4, "10.0.1.100", "10.0.1.100"),
        (ocf.ipv4_subnet, "10.0.1.0/24", ("10.0.1.0", 24)),
        (ocf.mac, "02-AB-00-00-00-01", "02:ab:00:00:00:01"),
        (ocf.aws_id("eni"), "eni-0123456789abcdef0", "eni-0123456789abcdef0"),
        (ocf.aws_id("i"), "i-12345678", "i-12345678"),
        (ocf.region, "us-gov-west-1", "us-gov-west-1"),
        (ocf.http_url, "https://ec2.example:8443/", "https://ec2.example:8443"),
    ],
)
def test_good_values(parse: Any, text: str, value: Any) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (ocf.integer(1, 31), "0"),
        (ocf.integer(1, 31), "32"),
        (ocf.integer(1, 31), "-1"),
        (ocf.integer(1, 31), "²"),
        (ocf.boolean, "maybe"),
        (ocf.ipv4, "10.0.1"),
        (ocf.ipv4, "10.0.1.256"),
        (ocf.ipv4_subnet, "10.0.1.0"),
        (ocf.ipv4_subnet, "10.0.1.0/33"),
        (ocf.ipv4_subnet, "10.0.1.5/24"),
        (ocf.mac, "02:00:00:00:01"),
        (ocf.mac, "02:00:00:00:00:zz"),
        (ocf.aws_id("eni"), "eni-xyz"),
        (ocf.aws_id("eni"), "i-0123456789abcdef0"),
        (ocf.region, "eu west"),
        (ocf.http_url, "ftp://ec2.example"),
        (ocf.http_url, "https://user:secret@ec2.example"),
    ],
)
def test_bad_values(parse: Any, text: str) -> None:
    with pytest.raises(ValueError, match=r"not|neither"):
        parse(text)


def test_a_missing_and_a_bad_parameter_are_configuration_errors(environ: dict[str, str]) -> None:
    del environ["OCF_RESKEY_private_ip"]
    assert eni.AGENT.main(["validate-all"], environ) == ocf.OCF_ERR_CONFIGURED
    environ["OCF_RESKEY_private_ip"] = "10.0.1.300"
    assert eni.AGENT.main(["monitor"], environ) == ocf.OCF_ERR_CONFIGURED


def test_an_empty_value_is_the_default(environ: dict[str, str]) -> None:
    environ["OCF_RESKEY_device_index"] = " "
    values = {parameter.name: parameter.value(environ) for parameter in eni.AGENT.parameters}
    assert values["device_index"] == 1
    assert values["endpoint"] is None


def test_the_reason_is_one_line_of_bounded_length(capsys: pytest.CaptureFixture[str]) -> None:
    ocf.exit_reason("first\nsecond\t\x1b[1m " + "x" * 500)
    line = capsys.readouterr().err
    assert line.startswith("ocf-exit-reason:first second [1m x")
    assert line.count("\n") == 1
    assert len(line) <= len("ocf-exit-reason:") + ocf.REASON_MAX + 1


def test_an_unexpected_error_is_a_generic_failure_with_a_reason(capsys: pytest.CaptureFixture[str]) -> None:
    def broken(call: ocf.Call) -> int:
        raise RuntimeError("two\nlines")

    assert agent_of(broken).main(["start"], {"HA_LOGFACILITY": "none"}) == ocf.OCF_ERR_GENERIC
    assert capsys.readouterr().err == "ocf-exit-reason:start failed: RuntimeError: two lines\n"


def test_sigterm_ends_an_action_with_a_reason(capsys: pytest.CaptureFixture[str]) -> None:
    def slow(call: ocf.Call) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        return ocf.OCF_SUCCESS

    assert agent_of(slow).main(["start"], {"HA_LOGFACILITY": "none"}) == ocf.OCF_ERR_GENERIC
    assert "ended by SIGTERM" in capsys.readouterr().err


def test_stop_goes_on_with_a_bad_parameter() -> None:
    seen = {}

    def handler(call: ocf.Call) -> int:
        seen.update(call.settings)
        return ocf.OCF_SUCCESS

    environ = {"OCF_RESKEY_count": "many", "HA_LOGFACILITY": "none"}
    assert agent_of(handler).main(["start"], environ) == ocf.OCF_ERR_CONFIGURED
    assert agent_of(handler).main(["stop"], environ) == ocf.OCF_SUCCESS
    assert seen == {"count": 3}


@pytest.mark.parametrize(
    ("arguments", "code"), [(["nonsense"], 3), (["promote"], 3), ([], 2), (["start", "now"], 2), (["usage"], 0)]
)
def test_unknown_actions(arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert eni.AGENT.main(arguments, {}) == code
    assert "usage: eni {start|stop|monitor|validate-all|meta-data}" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("timeout", "seconds"), [("20000", 18.0), ("180000", 177.0), ("1000", 0.9), ("", 57.0), ("0", 57.0), ("soon", 57.0)]
)
def test_the_deadline_is_pacemakers_timeout_less_a_margin(timeout: str, seconds: float) -> None:
    environ = {"OCF_RESKEY_CRM_meta_timeout": timeout}
    assert ocf.action_seconds(environ, advertised=60) == pytest.approx(seconds)


def test_a_part_of_a_deadline_ends_no_later() -> None:
    now = [100.0]
    deadline = ocf.Deadline(10.0, lambda: now[0])
    assert deadline.part(3.0).at == 103.0
    assert deadline.part(30.0).at == 110.0
    now[0] = 111.0
    assert deadline.left() == 0.0
    assert deadline.spent() == 11.0


def test_log_lines_are_key_value_on_one_line(tmp_path: Any) -> None:
    device = str(tmp_path / "log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
        syslog.bind(device)
        log = ocf.Log("eni(eni)", {"HA_LOGFACILITY": "daemon", "HA_debug": "0"}, device)
        log("debug", action="start")
        log("notice", action="start", reason='a "b"\nc', seconds=1.5, none=None)
        line = syslog.recv(1000).decode()
    assert line == f"<29>eni(eni)[{os.getpid()}]: action=start reason=\"a 'b' c\" seconds=1.500"


def test_a_full_or_absent_syslog_does_not_hold_up(tmp_path: Any) -> None:
    device = str(tmp_path / "log")
    log = ocf.Log("eni(eni)", {}, device)
    log("error", reason="nobody listens")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
        syslog.bind(device)
        for _unused in range(2000):
            log("error", reason="nobody reads")


def test_the_lock_is_exclusive_and_bounded(tmp_path: Any) -> None:
    path = str(tmp_path / "lock")
    with ocf.Lock(path, ocf.Deadline(1.0)) as first, ocf.Lock(path, ocf.Deadline(0.1)) as second:
        assert (first, second) == (True, False)
    with ocf.Lock(path, ocf.Deadline(0.0)) as again:
        assert again
    with ocf.Lock("/nowhere/lock", ocf.Deadline(0.0)) as nowhere:
        assert not nowhere


@pytest.mark.parametrize("agent", [eni.AGENT, watch.AGENT], ids=["eni", "watch"])
def test_meta_data_is_well_formed_and_complete(agent: Agent) -> None:
    root = ElementTree.fromstring(agent.meta_data().partition("?>")[2].partition(">")[2])
    assert root.get("name") == agent.name
    assert root.findtext("version") == "1.1"
    assert [item.get("name") for item in root.iter("parameter")] == [parameter.name for parameter in agent.parameters]
    assert {item.get("name") for item in root.iter("action")} == {*agent.actions, "meta-data"}
    assert all(str(item.get("timeout")).endswith("s") for item in root.iter("action"))
    for parameter in agent.parameters:
        assert parameter.default == "" or parameter.parse(parameter.default) is not None
        assert not (parameter.required and parameter.default)


def test_meta_data_escapes_xml() -> None:
    agent = Agent("toy", "1", "a < b", 'say "x" & y', [Parameter("p", "<", "&", str, default='"')], [])
    root = ElementTree.fromstring(agent.meta_data().partition("?>")[2].partition(">")[2])
    assert root.findtext("shortdesc") == "a < b"
    assert root.find("parameters/parameter/content").get("default") == '"'


def test_failure_has_a_generic_code_by_default() -> None:
    assert Failure("x").code == ocf.OCF_ERR_GENERIC
