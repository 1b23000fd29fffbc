# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules as a playbook runs them, against the emulated EC2: its answers and its log of calls are the proof."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.evernat.aws.plugins.module_utils import _eni_move
from ansible_collections.evernat.aws.plugins.module_utils._ec2 import Ec2
from conformance import Account, account, refused, until

from lab.aws import OPERATOR_ACCESS_KEY, OPERATOR_SECRET_KEY, Fault

# The folder that holds ansible_collections, as tests/conftest.py made it.
COLLECTIONS = Path(_eni_move.__file__).parents[5]
PLAY_TIMEOUT = 90
Tasks = list[dict[str, Any]]


@pytest.fixture(scope="module")
def server() -> Iterator[Account]:
    with account(attach_delay=0.3, detach_delay=0.3) as made:
        yield made


@pytest.fixture
def aws(server: Account) -> Account:
    server.fill()
    server.aws.settings.stale_reads = 0.0
    server.aws.settings.dead_detach = "completes"
    return server


Play = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def play(aws: Account, tmp_path: Path) -> Play:
    """Run tasks in one play; returns the result of each, failed ones included."""

    def run(*tasks: dict[str, Any], play: dict[str, Any] | None = None, **environment: str) -> list[dict[str, Any]]:
        book, results = tmp_path / "play.yml", tmp_path / "results.json"
        listed: Tasks = []
        for number, task in enumerate(tasks):
            listed.append({"register": f"result_{number}", "ignore_errors": True, "diff": True, **task})
        names = ", ".join(f"result_{number}" for number in range(len(tasks)))
        content = f"{{{{ [{names}] | to_json }}}}"
        listed.append({"ansible.builtin.copy": {"dest": str(results), "content": content, "mode": "0600"}})
        book.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": listed, **(play or {})}]))
        done = subprocess.run(
            [str(Path(sys.executable).parent / "ansible-playbook"), str(book)],
            env={**environment_of(aws, tmp_path), **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=PLAY_TIMEOUT,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        found: list[dict[str, Any]] = json.loads(results.read_text())
        return found

    return run


def environment_of(aws: Account, home: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LC_ALL": "C.UTF-8",
        "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
        "AWS_ENDPOINT_URL": f"http://{aws.host}:{aws.port}",
        "AWS_ACCESS_KEY_ID": OPERATOR_ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": OPERATOR_SECRET_KEY,
        "AWS_REGION": aws.aws.settings.region,
    }


def eni_move(**options: Any) -> dict[str, Any]:
    return {"evernat.aws.eni_move": {"wait_timeout": 20, **options}}


def nat_sourcedest(**options: Any) -> dict[str, Any]:
    return {"evernat.aws.nat_sourcedest": {"wait_timeout": 20, **options}}


def holder(aws: Account, eni: str) -> str | None:
    return aws.interface(eni).get("Attachment", {}).get("InstanceId")


def held_pair(aws: Account) -> tuple[str, str, str]:
    """An interface and two instances, of which the first holds it."""
    eni, (first, second) = aws.new_interface(), aws.launch(2)
    aws.attach(eni, first)
    until(lambda: aws.status(eni) == ("in-use", "attached"), "the interface is attached")
    return eni, first, second


def made_calls(aws: Account, mark: int) -> list[str]:
    return [call.action for call in aws.aws.calls.mutating(mark)]


def test_check_mode_writes_nothing_and_tells_what_the_move_then_does(aws: Account, play: Play) -> None:
    eni, first, second = held_pair(aws)
    allocation = aws.ec2.allocate_address(Domain="vpc")
    aws.ec2.associate_address(AllocationId=allocation["AllocationId"], NetworkInterfaceId=eni)
    task = eni_move(eni_id=eni, instance_id=second)

    mark = aws.aws.calls.mark()
    (predicted,) = play({**task, "check_mode": True})
    assert made_calls(aws, mark) == []
    assert holder(aws, eni) == first

    mark = aws.aws.calls.mark()
    moved, again, checked = play(task, task, {**task, "check_mode": True})
    assert made_calls(aws, mark) == ["DetachNetworkInterface", "AttachNetworkInterface"]
    assert holder(aws, eni) == second

    for result in (predicted, moved):
        assert result["changed"] is True
        assert result["instance_id"] == second
        assert result["previous_instance_id"] == first
        assert [action["action"] for action in result["actions"]] == made_calls(aws, mark)
        assert result["diff"] == {
            "before": {"instance_id": first, "device_index": 1, "status": "in-use"},
            "after": {"instance_id": second, "device_index": 1, "status": "in-use"},
        }
    assert moved["interface"]["association"]["public_ip"] == allocation["PublicIp"]
    assert moved["interface"]["attachment"]["delete_on_termination"] is False
    assert moved["forced"] is False
    assert 0 < moved["duration"] < 10
    for result in (again, checked):
        assert result["changed"] is False
        assert result["actions"] == []


def test_detach_and_from_instance_id(aws: Account, play: Play) -> None:
    eni, first, second = held_pair(aws)
    loser = eni_move(eni_id=eni, state="detached", from_instance_id=second)
    owner = eni_move(eni_id=eni, state="detached", from_instance_id=first)
    wrong = eni_move(eni_id=eni, instance_id=first, from_instance_id=second)
    mark = aws.aws.calls.mark()
    of_loser, of_owner, again, of_wrong = play(loser, owner, owner, wrong)
    assert of_loser["changed"] is False
    assert of_loser["instance_id"] == first
    assert of_owner["changed"] is True
    assert of_owner["interface"]["status"] == "available"
    assert again["changed"] is False
    assert of_wrong["failed"] is True
    assert of_wrong["code"] == "NotHeldBy"
    assert made_calls(aws, mark) == ["DetachNetworkInterface"]


def test_what_ec2_would_refuse_is_refused_before_the_first_write(aws: Account, play: Play) -> None:
    eni, first, second = held_pair(aws)
    (far,) = aws.launch(SubnetId=aws.new_subnet("10.0.9.0/24", "eu-west-1b"))
    (full,) = aws.launch()
    aws.attach(aws.new_interface(), full)
    (gone,) = aws.launch()
    aws.ec2.terminate_instances(InstanceIds=[gone])
    (roomy,) = aws.launch(InstanceType="m5.large")
    taking = aws.new_interface()
    aws.attach(taking, roomy)
    cases = [
        (eni_move(eni_id=eni, instance_id=far), f"{eni} is in eu-west-1a and {far} in eu-west-1b"),
        (eni_move(eni_id=eni, instance_id=full), f"{full} is full"),
        (eni_move(eni_id=eni, instance_id=gone), f"{gone} is "),
        (eni_move(eni_id=eni, instance_id=roomy, device_index=1), f"index 1 of {roomy} is taken by {taking}"),
        (eni_move(eni_id=eni, instance_id="i-00000000000000000"), "there is no instance i-0"),
        (eni_move(eni_id="eni-00000000000000000", instance_id=second), "there is no network interface eni-0"),
        (eni_move(eni_id=aws.primary(first), instance_id=second), f"is the primary interface of {first}"),
        (eni_move(filters={"vpc-id": aws.vpc}, instance_id=second), "network interfaces match"),
        (eni_move(eni_id=eni), "instance_id"),
        (eni_move(instance_id=second), "one of the following is required: eni_id, filters"),
        (eni_move(eni_id=eni, instance_id=second, state="detached"), "use from_instance_id"),
    ]
    mark = aws.aws.calls.mark()
    results = play(*[task for task, _text in cases])
    for result, (task, text) in zip(results, cases, strict=True):
        assert result.get("failed") is True, task
        assert text in result["msg"], result["msg"]
    assert made_calls(aws, mark) == []
    assert holder(aws, eni) == first


def test_a_free_index_is_found_and_filters_find_the_interface(aws: Account, play: Play) -> None:
    tags = [{"ResourceType": "network-interface", "Tags": [{"Key": "Name", "Value": "nat"}]}]
    eni, (instance,) = aws.new_interface(TagSpecifications=tags), aws.launch(InstanceType="m5.large")
    aws.attach(aws.new_interface(), instance)
    (result,) = play(eni_move(filters={"tag:Name": "nat", "subnet-id": aws.subnet}, instance_id=instance))
    assert result["interface"]["attachment"]["device_index"] == 2
    assert result["interface"]["network_interface_id"] == eni
    assert result["interface"]["tags"] == {"Name": "nat"}


def test_a_lost_race_names_the_holder_and_leaves_it_alone(aws: Account, play: Play) -> None:
    eni, _first, second = held_pair(aws)
    (winner,) = aws.launch()
    late = aws.aws.faults.add(Fault("latency", "AttachNetworkInterface", count=1, seconds=3))

    def overtake() -> None:
        until(lambda: aws.aws.faults.listed()[0]["left"] == 0, "the module's attach is under way", timeout=30)
        aws.attach(eni, winner)

    rival = threading.Thread(target=overtake)
    rival.start()
    (result,) = play(eni_move(eni_id=eni, instance_id=second))
    rival.join()
    aws.aws.faults.remove(late)
    assert result["failed"] is True
    assert result["code"] == "LostRace"
    assert winner in result["msg"]
    assert result["instance_id"] == winner
    assert holder(aws, eni) == winner


def test_of_two_controllers_that_race_one_wins(aws: Account) -> None:
    eni, first, second = held_pair(aws)
    (third,) = aws.launch()
    clock = _eni_move.MonotonicClock()
    racers = [(second, aws.client("ec2")), (third, aws.client("ec2")), (first, aws.client("ec2"))]
    for number in range(20):
        current = holder(aws, eni)
        endings: dict[str, _eni_move.Outcome | _eni_move.MoveError] = {}
        gate = threading.Barrier(2)

        def take(instance: str, boto: Any, gate: Any = gate, endings: dict[str, Any] = endings) -> None:
            deadline = clock.now() + 30
            wanted = _eni_move.Wanted(eni, instance)
            ec2 = Ec2(lambda cap: boto, clock, deadline)
            seen = ec2.interface(eni)
            gate.wait(5)
            try:
                endings[instance] = _eni_move.move(ec2, clock, wanted, deadline, seen=seen)
            except _eni_move.MoveError as error:
                endings[instance] = error

        threads = [threading.Thread(target=take, args=racer) for racer in racers if racer[0] != current]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(40)
        winners = [instance for instance, ending in endings.items() if isinstance(ending, _eni_move.Outcome)]
        assert len(winners) == 1, f"round {number}: {endings}"
        assert holder(aws, eni) == winners[0]
        (loser,) = [ending for ending in endings.values() if isinstance(ending, _eni_move.MoveError)]
        assert loser.code == "LostRace"
        assert winners[0] in loser.reason


@pytest.mark.parametrize("kind", ["drop-after", "drop-before", "garbage", "throttle", "unavailable", "internal"])
def test_one_troubled_call_of_each_kind_is_outlived(aws: Account, play: Play, kind: str) -> None:
    eni, _first, second = held_pair(aws)
    actions = ("DescribeNetworkInterfaces", "DescribeInstances", "DetachNetworkInterface", "AttachNetworkInterface")
    for action in actions:
        aws.aws.faults.add(Fault(kind, action, count=1))
    mark = aws.aws.calls.mark()
    (result,) = play(eni_move(eni_id=eni, instance_id=second))
    assert not result.get("failed"), result
    assert result["changed"] is True
    assert holder(aws, eni) == second
    acted = ("ok", "dropped-after", "garbage")
    attached = [
        call for call in aws.aws.calls.since(mark) if call.action.startswith("Attach") and call.outcome in acted
    ]
    assert len(attached) == 1


def test_a_denied_call_fails_at_once_and_names_it(aws: Account, play: Play) -> None:
    eni, first, second = held_pair(aws)
    aws.aws.faults.add(Fault("error", "DetachNetworkInterface", code="UnauthorizedOperation"))
    (result,) = play(eni_move(eni_id=eni, instance_id=second))
    assert result["failed"] is True
    assert result["msg"].startswith("DetachNetworkInterface was refused: UnauthorizedOperation")
    assert result["code"] == "UnauthorizedOperation"
    assert result["duration"] < 2
    assert holder(aws, eni) == first


def test_an_api_that_hangs_ends_at_wait_timeout(aws: Account, play: Play) -> None:
    eni, _first, second = held_pair(aws)
    aws.aws.faults.add(Fault("hang", "DetachNetworkInterface"))
    (result,) = play(eni_move(eni_id=eni, instance_id=second, wait_timeout=4))
    aws.aws.faults.clear()
    assert result["failed"] is True
    assert result["code"] == "Timeout"
    assert result["duration"] < 6
    assert "waiting for DetachNetworkInterface" in result["msg"]


def test_old_reads_are_tolerated(aws: Account, play: Play) -> None:
    eni, _first, second = held_pair(aws)
    until(lambda: aws.state(second) == "running", "the instance runs")
    aws.aws.settings.stale_reads = 1.0
    until(lambda: holder(aws, eni) is not None, "old reads show the attachment")
    mark = aws.aws.calls.mark()
    (result,) = play(eni_move(eni_id=eni, instance_id=second))
    aws.aws.settings.stale_reads = 0.0
    assert result["instance_id"] == second
    assert made_calls(aws, mark) == ["DetachNetworkInterface", "AttachNetworkInterface"]


def test_delete_on_termination_is_put_right(aws: Account, play: Play) -> None:
    eni, first, _second = held_pair(aws)
    attachment = aws.interface(eni)["Attachment"]["AttachmentId"]
    aws.ec2.modify_network_interface_attribute(
        NetworkInterfaceId=eni, Attachment={"AttachmentId": attachment, "DeleteOnTermination": True}
    )
    task = eni_move(eni_id=eni, instance_id=first)
    predicted, done, again = play({**task, "check_mode": True}, task, task)
    assert [predicted["changed"], done["changed"], again["changed"]] == [True, True, False]
    assert aws.interface(eni)["Attachment"]["DeleteOnTermination"] is False


def test_source_dest_check_of_an_instance_with_two_interfaces(aws: Account, play: Play) -> None:
    eni, first, second = held_pair(aws)
    with refused("InvalidInstanceID", "There are multiple interfaces attached to instance"):
        aws.ec2.modify_instance_attribute(InstanceId=first, SourceDestCheck={"Value": False})
    task = nat_sourcedest(instance_ids=[first, second], eni_ids=[eni])
    mark = aws.aws.calls.mark()
    predicted, done, again = play({**task, "check_mode": True}, task, task)
    assert [predicted["changed"], done["changed"], again["changed"]] == [True, True, False]
    assert made_calls(aws, mark) == ["ModifyNetworkInterfaceAttribute"] * 3
    meant = sorted([eni, aws.primary(first), aws.primary(second)])
    for result in (predicted, done):
        assert [each["eni_id"] for each in result["interfaces"]] == meant
        assert result["diff"] == {"before": dict.fromkeys(meant, True), "after": dict.fromkeys(meant, False)}
    assert not any(aws.interface(each)["SourceDestCheck"] for each in meant)

    (back,) = play(nat_sourcedest(instance_ids=[first], interfaces="primary", source_dest_check=True))
    assert [each["eni_id"] for each in back["interfaces"]] == [aws.primary(first)]
    assert aws.interface(aws.primary(first))["SourceDestCheck"] is True
    assert aws.interface(eni)["SourceDestCheck"] is False


def test_source_dest_check_of_what_does_not_exist(aws: Account, play: Play) -> None:
    cases = {"eni_ids": ["eni-00000000000000000"], "instance_ids": ["i-00000000000000000"]}
    mark = aws.aws.calls.mark()
    results = play(*[nat_sourcedest(**{name: value}) for name, value in cases.items()], nat_sourcedest())
    assert "there is no network interface eni-0" in results[0]["msg"]
    assert "i-00000000000000000 has no network interface" in results[1]["msg"]
    assert "one of the following is required: instance_ids, eni_ids" in results[2]["msg"]
    assert made_calls(aws, mark) == []


def test_one_group_of_defaults_serves_both_collections(aws: Account, play: Play) -> None:
    defaults = {
        "group/evernat.aws.aws": {
            "region": aws.aws.settings.region,
            "endpoint_url": f"http://{aws.host}:{aws.port}",
            "access_key": OPERATOR_ACCESS_KEY,
            "secret_key": OPERATOR_SECRET_KEY,
        }
    }
    eni, first, _second = held_pair(aws)
    nothing = dict.fromkeys(("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"), "")
    results = play(
        eni_move(eni_id=eni, instance_id=first),
        nat_sourcedest(eni_ids=[eni]),
        {"amazon.aws.ec2_eni_info": {"eni_id": eni}},
        play={"module_defaults": defaults},
        **nothing,
    )
    assert not any(result.get("failed") for result in results), results
    assert results[2]["network_interfaces"][0]["source_dest_check"] is False


def test_missing_credentials_or_region_are_named(aws: Account, play: Play) -> None:
    task = eni_move(eni_id="eni-00000000000000000", instance_id="i-00000000000000000")
    (result,) = play(task, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="", AWS_EC2_METADATA_DISABLED="true")
    assert "credentials" in result["msg"].lower()
    (result,) = play(task, AWS_REGION="")
    assert "requires a region" in result["msg"]
