"""The feature service end to end: role, Flight, client; every verb of the contract."""

from __future__ import annotations

import socket

import httpx
import numpy as np
import pytest

from headrace.config import Config
from headrace.features import service
from headrace.features.client import FeatureClient
from headrace.features.events import EventBatch
from headrace.features.feature_set import FeatureSet
from headrace.features.layout import EMPTY_KEYS, F, K
from headrace.features.service import FeatureService
from headrace.roles import features as role
from headrace.rpc.causes import Causes
from headrace.rpc.client import Client
from headrace.rpc.errors import BadMessage, Refused, TooOld, Unavailable
from headrace.schemas.hashing import feature_key
from tests.features.events import T0, columns, random_rows, shard_at


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture
def config(tmp_path) -> Config:
    config = Config()
    config.stack.data_dir = tmp_path
    config.features.address = f"127.0.0.1:{free_port()}"
    config.features.http_port = free_port()
    config.features.ring_length = 1 << 16
    return config


@pytest.fixture
def client(config):
    stop = role.start(config)
    client = FeatureClient(config.features.address, deadline_s=1.0)
    yield client
    client.close()
    stop()


def interaction(n: int, **changes: object) -> dict:
    return {"event_id": f"e{n}", "request_id": None, "scene": "", "user_id": "u1", "item_id": f"i{n % 3}", "action": "impression",
            "value": 1.0, "position": None, "ts_ms": T0 + n, "context": {"user.age": "25"}, "exposure": None} | changes


def causes_of(n: int) -> Causes:
    return Causes(np.full(n, 5, np.int32), np.zeros(n, np.int32), np.arange(n))


def test_every_verb(client, config):
    batch = EventBatch([interaction(0), interaction(1), interaction(2), interaction(3, action="click"), interaction(4, action="click"),
                        interaction(5, action="click", item_id="i0")])
    assert client.names(batch.names) == len(batch.names) and client.names(batch.names) == 0
    frozen = client.freeze_and_fold(causes_of(6), batch)
    assert frozen.keys.shape == (6, F) and frozen.numbers.shape == (6, K) and frozen.sequence.tolist() == [0, 1, 2, 3, 4, 5]
    assert frozen.status.tolist() == [0] * 6 and frozen.keys[0, 3] == feature_key("user.age", "25") and frozen.keys[0, 4] == EMPTY_KEYS[4]
    again = client.freeze_and_fold(causes_of(6), batch)
    assert again.status.tolist() == [1] * 6
    np.testing.assert_array_equal(again.keys, frozen.keys)

    user = client.user(feature_key("user_id", "u1"))
    assert (user.found, user.impressions, user.clicks) == (True, 3, 3)
    assert user.recent[:4].tolist() == [feature_key("item_id", one) for one in ("i2", "i1", "i0")] + [0]
    assert user.recent_clicked[0] == feature_key("item_id", "i0")
    assert not client.user(1).found

    items, score = client.popular(10)
    assert items[0] == "i0" and set(items) == {"i0", "i1"} and score[0] > score[1]
    assert client.resolve(np.array([feature_key("user.age", "25"), 1], np.uint64)) == ["user.age=25", None]
    one = np.array([feature_key("user_id", "u1")], np.uint64)
    assembled = client.assemble(one, np.array([feature_key("item_id", "i0")], np.uint64), np.zeros((1, 4), np.uint64), np.array([T0 + 9]))
    assert assembled.keys.shape == (1, F) and assembled.sequence == 6 and assembled.numbers[0, 1] > 2.9
    stats = client.stats()
    assert {name: stats[name] for name in ("users", "items", "sequence", "applied", "duplicates", "retries")} == {
        "users": 1, "items": 3, "sequence": 6, "applied": 6, "duplicates": 6, "retries": 0}
    base = f"http://127.0.0.1:{config.features.http_port}"
    assert httpx.get(f"{base}/ready", trust_env=False).status_code == 200
    assert 'events_total{status="repeated"} 6.0' in httpx.get(f"{base}/metrics", trust_env=False).text


def test_a_restart_keeps_everything(config):
    stop = role.start(config)
    client = FeatureClient(config.features.address, deadline_s=10.0)
    rows = random_rows(300, 6)
    first = client.freeze_and_fold(*columns(rows))
    stop()
    with pytest.raises(Unavailable):
        FeatureClient(config.features.address, deadline_s=0.2).stats()
    stop = role.start(config)
    again = client.freeze_and_fold(*columns(rows))  # the same client finds it again
    assert (again.status == 1).all()
    np.testing.assert_array_equal(again.numbers, first.numbers)
    client.close()
    stop()


def test_what_the_door_refuses(client, config):
    causes, events = columns(random_rows(3, 1))
    good = {**causes._asdict(), **events}
    raw = Client(config.features.address)
    changes = [{"user": np.zeros(3, np.uint64)}, {"item": np.zeros(3, np.uint64)}, {"source": np.full(3, -1, np.int32)},
               {"offset": np.full(3, -1, np.int64)}, {"ts_ms": np.full(3, -1, np.int64)}, {"ts_ms": np.full(3, 1 << 60, np.int64)},
               {"ts_ms": np.zeros(2, np.int64)}, {"user_fields": np.zeros((3, 5), np.uint64)}, {"action": np.zeros(3, np.int64)}]
    for change in changes:
        with pytest.raises(BadMessage):
            raw.call("freeze_and_fold", {}, good | change)
    with pytest.raises(BadMessage, match="missing"):
        raw.call("freeze_and_fold", {}, {name: array for name, array in good.items() if name != "served"})
    with pytest.raises(Refused, match="base@1"):
        raw.call("freeze_and_fold", {"feature_set": "other@2"}, good)
    for header in ({}, {"names": "a=b"}, {"names": ["ab"]}, {"names": ["a=" + "b" * 5000]}, {"names": [1]}):
        with pytest.raises(BadMessage):
            raw.call("names", header)
    for k in (-1, "1", None):
        with pytest.raises(BadMessage):
            raw.call("popular", {"k": k})
    assert client.stats()["applied"] == 0
    raw.call("freeze_and_fold", {}, good | {"offset": np.array([1 << 20, 1, 2])})  # the ring has never moved: all are new in one call
    with pytest.raises(TooOld):
        raw.call("freeze_and_fold", {}, good | {"partition": np.zeros(3, np.int32), "offset": np.array([9, 10, 11])})
    raw.close()


def test_a_second_opener_and_a_taken_port_are_said(client, config):
    with pytest.raises(OSError, match="cannot be opened"):
        role.start(config)
    config.stack.data_dir = config.stack.data_dir / "other"
    with pytest.raises(OSError, match="cannot serve"):
        role.start(config)


def test_a_fold_gives_way_more_often_while_somebody_reads(tmp_path, monkeypatch):
    given, shard = [], shard_at(tmp_path)
    verbs = FeatureService(shard, lambda: given.append(shard.sequence)).verbs()

    def fold(first):
        causes, events = columns([{"cause": (1, 0, n), "event": n + 1} for n in range(first, first + 600)])
        assert (verbs["freeze_and_fold"]({}, {**causes._asdict(), **events})[1]["status"] == 0).all()

    fold(0)
    assert given == []
    held = verbs["stats"]({}, {})[0]["families"]
    assert (held["users"]["rows"], held["items"]["rows"], held["log"]["rows"]) == (1, 1, 1) and held["log"]["bytes"] > 600
    one = np.ones(1, np.uint64)
    verbs["assemble"]({}, {"user": one, "item": one, "context": np.zeros((1, 4), np.uint64), "ts_ms": np.array([T0])})
    fold(600)
    assert given == [856, 1112]
    monkeypatch.setattr(service, "READING_S", 0.0)  # long ago
    fold(1200)
    assert given == [856, 1112]
    shard.close()


def test_a_part_of_a_backfill_is_looked_at_at_the_door(tmp_path):
    one = shard_at(tmp_path, feature_set=FeatureSet.of((("a.toml", '[feature.user_all]\nentity = "user"\nreducer = "count"\n'),)))
    merge, told = FeatureService(one).verbs()["merge_states"], FeatureService(one).verbs()["backfills"]
    header = {"feature_set": one.set.name, "definition": "user_all@1", "digest": "d", "part": 0, "parts": 1, "before": -1,
              "about": {"events": 3, "source": "a log"}}
    arrays = {"keys": np.array([4, 9], np.uint64), "newest": np.full(2, 6.0), "reach": np.full(2, 6.0),
              "states": np.array([[6.0, 3.0], [5.0, 1.0]]).view(np.uint64)}
    for wrong in ({"part": 1}, {"parts": "1"}, {"before": None}, {"about": {}}, {"digest": 5}):
        with pytest.raises(BadMessage):
            merge(header | wrong, arrays)
    for wrong in ({"keys": np.array([9, 4], np.uint64)}, {"keys": np.array([0, 4], np.uint64)}, {"reach": np.zeros(1)},
                  {"states": np.zeros((2, 3), np.uint64)}):
        with pytest.raises(BadMessage):
            merge(header, arrays | wrong)
    for wrong in ({"feature_set": "base@1"}, {"definition": "user_none@1"}, {"before": 7}):
        with pytest.raises(Refused):
            merge(header | wrong, arrays | ({"states": np.zeros((2, 1), np.uint64)} if "definition" in wrong else {}))
    assert one.backfills.told == {"user_all@1": {"since": 0}} and not one.failed
    assert merge(header, arrays)[0] == {"sequence": 0, "next": 1} == merge(header, arrays)[0]
    assert told({}, {})[0]["definitions"]["user_all@1"]["backfill"]["events"] == 3
    read = one.assemble(np.array([4, 9, 5], np.uint64), np.zeros(3, np.uint64), np.zeros((3, 4), np.uint64), np.full(3, 10))
    assert read.numbers[:, K].tolist() == [3.0, 1.0, 0.0]
    one.close()
