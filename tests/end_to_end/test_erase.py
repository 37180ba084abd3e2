"""One user erased on the session's stack, with the lake's writer beside it: nothing is found, others are as they were."""

from __future__ import annotations

import json
import time
from pathlib import Path

import confluent_kafka

from headrace import lake
from headrace.features.client import FeatureClient
from headrace.schemas.hashing import feature_key
from tests.end_to_end.conftest import towards
from tests.end_to_end.outside import until
from tests.end_to_end.test_eager import renamed
from tests.end_to_end.test_lake import Role

MAPPING = Path(__file__).parents[2] / "examples" / "kuairand.toml"
ROWS = 300


def test_a_user_everywhere(loop, on_stack, kuairand, tmp_path):
    folder = tmp_path / "lake"
    role = Role(loop.config.stack.data_dir, str(folder), tmp_path / "log")
    process = role.start(1)
    run = towards(loop.config, HEADRACE_LAKE__DIR=str(folder))
    try:
        before = sum(loop.offsets("samples").values())
        others = renamed(kuairand, tmp_path / "erased.parquet", "erased-")
        done = on_stack("replay", str(others), "--mapping", str(MAPPING), "--clock", "now", "--speed", "max", "--limit", str(ROWS))
        assert done.returncode == 0, done.stderr
        until(lambda: sum(loop.offsets("samples").values()) >= before + ROWS, "the samples", 120)
        until(lambda: role.figures().get("headrace_lake_lag_offsets") == 0 and not role.figures().get("headrace_lake_pending_rows"),
              "the lake")
        users = lake.read(folder)["user_id"].to_pylist()
        user, other = sorted({one for one in users if one.startswith("erased-")})[:2]
        refused(loop, user, other)
        found = until(lambda: (told := look(run, user))["vectors"]["user"] and told, "their vector")
        assert found["features"]["users"] == 1 and found["parameters"]["fm/weights"] == 1, found
        assert found["lake"]["samples"] == users.count(user) and found["dead letters"]["dead-letters"] >= 1
        only = run("data", "erase", "--user", user)
        assert only.returncode == 2 and "say --yes" in only.stderr
        erased = run("data", "erase", "--user", user, "--yes", "--json")
        record = json.loads(erased.stdout)
        assert erased.returncode == 0, (erased.stderr, record["found_after"])
        assert user not in Path(record["record"]).read_text() and record["removed"]["lake"] == {"samples": users.count(user)}
        assert {"topic interactions", "topic samples", "replicas"} <= {one["what"] for one in record["remains"]}
        assert run("data", "erase", "--user", user, "--check").returncode == 0
        theirs = look(run, other)
        assert theirs["features"]["users"] == 1 and theirs["lake"]["samples"] == users.count(other)
        assert theirs["dead letters"]["dead-letters"] >= 1
        assert loop.post("/events", {"user_id": user, "item_id": "later", "action": "impression"}).status_code in (200, 202)
        client = FeatureClient(loop.config.features.address)
        try:
            until(lambda: client.held("user", feature_key("user_id", user))["users"], "the row of an event after the erasure")
            assert client.user(feature_key("user_id", user)).impressions == 1, "a new row, that begins at nothing"
        finally:
            client.close()
        assert role.figures()["headrace_lake_rows_total"] >= len(users), "the writer went on"
    finally:
        process.kill()
    assert on_stack("samples", "stats", "--verify", "--lake", str(folder)).returncode == 0


def look(run, user):
    """What `--check` finds."""
    return json.loads(run("data", "erase", "--user", user, "--check", "--json").stdout)["found"]


def refused(loop, *users):
    """Records of these users that nobody can read, and their letters."""
    start = loop.offsets("dead-letters")
    producer = confluent_kafka.Producer({"bootstrap.servers": loop.config.kafka.bootstrap})
    for user in users:
        producer.produce("interactions", key=user.encode(), value=f'{{"user_id": "{user}", "at": {time.time_ns()}}}'.encode())
    assert producer.flush(10) == 0
    until(lambda: len(loop.read("dead-letters", start)) >= len(users), "their letters")
