"""What a role's start is handed: only what its parameters name."""

import threading

import numpy as np
import pytest

from headrace import serve
from headrace.config import Config, Model
from headrace.kafka import Record
from headrace.ps import publish
from headrace.roles import ps
from headrace.schemas.codec import Codec
from headrace.schemas.registry_store import SchemaStore
from tests.ps import worlds


class Told:
    """In place of the publisher to Kafka."""

    def __init__(self, _config):
        self.said = []

    def __call__(self, *_):
        self.said.append("published")

    def queue(self, *_):
        self.said.append("queued")

    def flush(self):
        self.said.append("flushed")


@pytest.fixture
def asked(monkeypatch):
    monkeypatch.setattr(serve, "Publisher", Told)
    return lambda start: serve._asked(start, Config(), "replica")


def test_a_role_that_asks_for_nothing(asked):
    assert asked(lambda config, index=0, **_: None) == {}


def test_a_role_that_publishes(asked):
    given = asked(lambda config, index, specs, publish: None)
    given["publish"]("weights.fm", b"1", {})
    assert given["publish"].said == ["published"]
    assert [spec.model for spec in given["specs"]] == ["fm"]


def test_every_model_is_trained_and_one_is_served(monkeypatch):
    monkeypatch.setattr(serve, "Publisher", Told)
    config = Config(models={"lr": Model(name="lr", version=3)})
    given = {role: serve._asked(lambda config, index, specs: None, config, role)["specs"] for role in ("ps", "replica")}
    assert [spec.scope for spec in given["ps"]] == ["fm@1", "lr@3"]
    assert [spec.scope for spec in given["replica"]] == ["fm@1"]


def test_a_role_that_flushes_itself(asked):
    given = asked(lambda config, index, specs, publish, flush: None)
    given["publish"]("weights.fm", b"1", {})
    given["flush"]()
    assert given["flush"].__self__.said == ["queued", "flushed"]


def test_a_round_of_all_slots_is_flushed_once(asked, tmp_path):
    given = asked(ps.start)
    keys = np.arange(4000, dtype=np.uint64)
    with worlds.store(tmp_path) as store:
        store.shard.push("fm", "click", worlds.causes([0]), {"weights": (keys, np.ones((len(keys), 3), np.float32))})
        assert publish.Publisher(store.shard, given["publish"], lambda: 1, given["flush"]).run_pass() == len(keys)
    assert given["flush"].__self__.said == ["queued"] * 64 + ["flushed"]


def test_a_fold_passes_over_tombstones_and_what_is_not_readable(monkeypatch):
    codec = Codec("touched", SchemaStore())
    good = codec.encode({"source": 1, "partition": 0, "offset": 7, "space": "user", "id": "u1", "model": "fm", "ts_ms": 1})
    values = [good, None, b"\x00broken", good]
    batch = [Record("touched.fm", 0, n, 0, b"k", value) for n, value in enumerate(values)]
    monkeypatch.setattr("headrace.kafka.read_batches", lambda *_, **__: iter([[], batch]))
    monkeypatch.setattr(serve.Codecs, "of", lambda self, topic: codec)
    folded = []
    serve._consume(Config(), "touched.fm", folded.append, threading.Event())
    assert [len(records) for records in folded] == [2]
