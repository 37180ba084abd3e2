"""The role around a writer: ready, figures, one a lake, a source that fails, what a person has to mend, a commit at the end."""

import time
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from headrace import ports
from headrace.config import Config
from headrace.kafka_types import KafkaUnavailable
from headrace.lake import reader
from headrace.lake.errors import LakeHeld
from headrace.roles import lake as role
from tests.headrace.lake import worlds


@pytest.fixture
def config(tmp_path):
    made = Config()
    made.stack.data_dir, made.lake.commit_s, made.lake.http_port = tmp_path, 0.05, ports.any_free()
    return made


class Paced(worlds.ListTopic):
    """Batches some milliseconds apart; `away`: how often it fails."""

    away = 0

    def topic(self):
        if self.away:
            self.away -= 1
            raise KafkaUnavailable("no Kafka broker answers at nowhere")
        return super().topic()

    def batches(self, start, stop):
        for batch in super().batches(start, stop):
            time.sleep(0.01)
            yield batch


def figures(config):
    text = httpx.get(f"http://127.0.0.1:{config.lake.http_port}/metrics").text
    return {one.name: one.value for family in text_string_to_metric_families(text) for one in family.samples if "lake" in one.name}


def ready(config):
    return httpx.get(f"http://127.0.0.1:{config.lake.http_port}/ready").json()


def until(done, what, deadline_s=20.0):
    ends = time.monotonic() + deadline_s
    while not done():
        assert time.monotonic() < ends, what
        time.sleep(0.02)


def test_it_writes_is_ready_and_counts(config, monkeypatch):
    monkeypatch.setattr("headrace.lake.figures.MARKS_S", 0.0)
    topic = Paced([worlds.sample(n) for n in range(20)] + [worlds.sample(3), "damaged"])
    stop = role.start(config, 0, topic)
    try:
        until(lambda: figures(config).get("headrace_lake_rows_total") == 20, "twenty rows")
        until(lambda: figures(config)["headrace_lake_lag_offsets"] == 0, "no lag")
        told = figures(config)
        assert [told[f"headrace_lake_{name}_total"] for name in ("duplicates", "unreadable", "gap_offsets")] == [1, 1, 0]
        assert 0 <= told["headrace_lake_seconds_since_commit"] < 20 and told["headrace_lake_commits_total"] >= 1
        assert ready(config) == {"ready": True, "missing": ""}
        config.lake.commit_s = 1000.0
    finally:
        stop()
    worlds.is_the_lake_of(config.lake_place, *topic.partitions)


def test_what_was_read_is_committed_at_the_end(config):
    config.lake.commit_s = 1000.0
    topic = Paced([worlds.sample(n) for n in range(7)])
    stop = role.start(config, 0, topic)
    try:
        until(lambda: figures(config).get("headrace_lake_pending_rows") == 7, "seven rows that wait")
        assert figures(config)["headrace_lake_rows_total"] == 0
    finally:
        stop()
    assert len(reader.read(config.lake_place)) == 7


def test_a_lake_has_one_role(config):
    stop = role.start(config, 0, Paced([]))
    try:
        with pytest.raises(LakeHeld, match="another writer"):
            role.start(config, 0, Paced([]))
    finally:
        stop()


def test_a_source_that_fails_is_told_and_tried_again(config, monkeypatch):
    monkeypatch.setattr(role, "RETRY_S", 0.3)
    topic = Paced([worlds.sample(n) for n in range(5)])
    topic.away = 2
    stop = role.start(config, 0, topic)
    try:
        until(lambda: ready(config)["missing"] == "no Kafka broker answers at nowhere", "the trouble")
        until(lambda: figures(config).get("headrace_lake_rows_total") == 5, "five rows")
        assert ready(config)["ready"]
    finally:
        stop()


def test_damage_is_told_and_mended_by_a_person(config, monkeypatch):
    monkeypatch.setattr(role, "LASTING_S", 0.1)
    topic = Paced([worlds.sample(n) for n in range(5)])
    role.start(config, 0, topic)()
    worlds.drain(worlds.writer(config.lake_place, topic), topic)
    path = Path(config.lake_place.where) / "manifests" / "00000001.json"
    good = path.read_bytes()
    path.write_bytes(good[:50])
    stop = role.start(config, 0, topic)
    try:
        until(lambda: "00000001.json is no manifest" in ready(config)["missing"], "the damage")
        path.write_bytes(good)
        until(lambda: ready(config)["ready"], "the mend")
    finally:
        stop()


def test_manifests_are_made_one_by_itself(config, monkeypatch):
    monkeypatch.setattr(role, "MANIFESTS_MAX", 2)
    config.lake.commit_s = 0.05
    topic = Paced([worlds.sample(n) for n in range(20)])
    stop = role.start(config, 0, topic)
    try:
        until(lambda: figures(config).get("headrace_lake_rows_total") == 20, "twenty rows")
    finally:
        stop()
    folder = Path(config.lake_place.where)
    assert len(list((folder / "bases").glob("*.json"))) == 1 and len(list((folder / "manifests").iterdir())) <= 1
    worlds.is_the_lake_of(config.lake_place, *topic.partitions)
