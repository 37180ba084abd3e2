"""A real stack whose shards have standbys: a shard is stopped and continues, another is killed and loses its disk, while a log streams."""

import json
import os
import shutil
import signal
import threading

import pytest

from headrace.config import Config
from headrace.verify import counts
from tests.end_to_end.conftest import running, towards
from tests.end_to_end.outside import Outside, until

ROWS = 12_000


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """(the stack seen from outside, its command line), with jobs and a standby a shard."""
    config = Config()
    config.ps.standbys, config.ps.standby_http_ports = ["127.0.0.1:19200", "127.0.0.1:19201"], [19250, 19251]
    config.ps.takeover_s, config.ps.publish_ms = 1.5, 50
    for stack in running(tmp_path_factory.mktemp("pair"), config=config):
        command = towards(stack)
        submitted = command("jobs", "submit")
        assert submitted.returncode == 0, submitted.stderr
        with Outside(stack) as outside:
            yield outside, command


def processes(command):
    return {row["name"]: row for row in json.loads(command("status", "--json").stdout)}


def stats(command):
    return json.loads(command("ps", "stats", "--json").stdout)["processes"]


def in_sync(command, shard):
    found = [stats(command).get(name, {}) for name in (f"ps-{shard}", f"ps-{shard}-standby")]
    return any(one.get("owns") and one.get("in_sync") for one in found)


def owner(command, shard):
    return next((name for name in (f"ps-{shard}", f"ps-{shard}-standby") if stats(command).get(name, {}).get("owns")), "")


def test_nothing_is_lost_when_a_shard_hangs_and_another_loses_its_disk(pair, kuairand, tmp_path):
    stack, command = pair
    for shard in range(2):
        until(lambda shard=shard: in_sync(command, shard), f"the standby of shard {shard} in sync")
    report, done = tmp_path / "report.json", []
    sending = threading.Thread(target=lambda: done.append(command(
        "replay", str(kuairand), "--mapping", str(kuairand.parent / "mapping.toml"), "--limit", str(ROWS), "--clock", "now",
        "--speed", "20000x", "--report", str(report))))
    start = min(stack.applied())
    sending.start()
    until(lambda: min(stack.applied()) > start + ROWS // 10, "a tenth is learnt")
    hung = processes(command)["ps-0"]["pid"]
    os.kill(hung, signal.SIGSTOP)
    try:
        until(lambda: owner(command, 0) == "ps-0-standby", "the standby of shard 0 owns it")
    finally:
        os.kill(hung, signal.SIGCONT)
    until(lambda: processes(command)["ps-0"]["pid"] != hung, "the old owner has learnt that it is fenced off, and began anew")
    os.kill(processes(command)["ps-1"]["pid"], signal.SIGKILL)
    shutil.rmtree(stack.config.stack.data_dir / "ps" / "1")
    until(lambda: owner(command, 1) == "ps-1-standby", "the standby of shard 1 owns it")
    sending.join(300)
    assert done and done[0].returncode == 0, done and done[0].stderr
    told = json.loads(report.read_text())
    assert told["samples"] == told["impressions"] == ROWS and told["samples_applied"] == [ROWS] * 2
    for shard in range(2):
        until(lambda shard=shard: in_sync(command, shard), f"both members of shard {shard} in sync again")
        found = stats(command)
        until(lambda shard=shard: len({stats(command)[name]["sequence"] for name in (f"ps-{shard}", f"ps-{shard}-standby")}) == 1,
              f"both members of shard {shard} at one sequence")
        assert {one["applied"] for name in found if name.startswith("ps-") for one in found[name]["models"].values()} == {ROWS}
    until(lambda: counts.served(stack.model, stack.config.ps.reachable, stack.config.replica.copies,
                                stack.config.model.weights_dtype)["agree"],
          "the replica has what the shards have")


def test_a_person_moves_a_shard_back(pair):
    _, command = pair
    until(lambda: in_sync(command, 0), "the standby in sync")
    first = "standby" if owner(command, 0) == "ps-0" else "first"
    wanted = "ps-0-standby" if first == "standby" else "ps-0"
    moved = command("ps", "promote", "0", "--member", first)
    assert moved.returncode == 0, moved.stderr
    until(lambda: owner(command, 0) == wanted, f"{wanted} owns shard 0")
    until(lambda: in_sync(command, 0), "the other follows")
    assert "already" in command("ps", "promote", "0", "--member", first).stdout
    assert command("ps", "promote", "7").returncode == 2
