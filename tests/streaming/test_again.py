"""What a checkpoint passed over, worked on by the stages themselves: first, once, and sent where the job's sink writes."""

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("pyflink")

from headrace.features.layout import FEATURE_SET, F, K
from headrace.schemas.codec import Codec
from headrace.schemas.registry_store import SchemaStore
from headrace.streaming import featurize
from headrace.streaming.positions import Message, Standing
from headrace.streaming.vectorize import Vectorize
from tests.streaming.test_stages import ADDRESSES, NOW, encoded, event, learner, lies, run, sample_columns, stage

__all__ = ["learner", "stage"]  # fixtures of theirs


class Passed:
    """Positions of a stage that stood before `messages`, which a checkpoint passed over."""

    def __init__(self, *messages):
        self.messages, self.done, self.closed = messages, [], False

    def missed(self, partition, offset):
        yield from [[one] for one in self.messages]

    def passed(self, partition, offset):
        self.done.append((partition.tolist(), offset.tolist()))

    def close(self):
        self.closed = True


class Sink:
    def __init__(self):
        self.sent, self.flushed = [], 0

    def send(self, topic, key, value):
        self.sent.append((topic, key, value))

    def flush(self):
        self.flushed = len(self.sent)


def passed_over(stage, into, *messages):
    stage.standing, stage.positions, stage._sender = Standing("group", "topic", into, 4), Passed(*messages), Sink()
    return stage._sender


def has_written(monkeypatch, *values):
    """`enriched` has these; gives since when it was asked."""
    asked = []
    monkeypatch.setattr(featurize, "appended", lambda where, topic, since_ms: asked.append((topic, since_ms)) or iter(values))
    return asked


def test_events_that_a_checkpoint_passed_over_are_folded_first_and_written_by_the_stage(stage, monkeypatch):
    has_written(monkeypatch)
    first, heartbeat, bad = encoded(stage, event(), event("heartbeat", user="", item="", ts_ms=NOW), event(user="v"))
    sink = passed_over(stage, "enriched", *(Message(3, 4 + at, key, value, NOW) for at, (key, value) in enumerate(
        ((b"u", first), (b"", heartbeat), (b"u", bad)))))
    (_, later), = run(stage, encoded(stage, event(ts_ms=NOW + 1)), first_offset=7, append_ms=NOW + 10)
    assert [(topic, key) for topic, key, _ in sink.sent] == [("enriched", b"u"), ("enriched", b"")] and sink.flushed == 2
    written = stage.enriched.decode(sink.sent[0][2])
    assert (written["source"], written["partition"], written["offset"]) == (7, 3, 4)
    before, after = (np.frombuffer(one["numbers"], np.float32) for one in (written, later))
    assert before[0] == 0.0 and after[0] > 0.9, "the user's first impression counts in the second"
    assert [letter[2:4] for letter in stage.dead_letters.sent] == [(6, "wrong_key")]
    assert stage.positions.done == [([3], [7])]
    stage.close()
    assert stage.positions.closed


def test_what_is_in_enriched_already_is_not_written_again_and_so_not_told_as_late(stage, monkeypatch):
    values = encoded(stage, event(), event("click"), event(item="j"))
    rows = run(stage, values[:2], first_offset=4)
    theirs = stage.enriched.encode({**rows[0][1], "source": 8, "offset": 6})
    asked = has_written(monkeypatch, *(stage.enriched.encode(record) for _, record in rows), theirs, b"\x01not ours")
    sink = passed_over(stage, "enriched", *(Message(3, 4 + at, b"u", value, NOW + at) for at, value in enumerate(values)))
    run(stage, encoded(stage, event(ts_ms=NOW + 1)), first_offset=7)
    assert [stage.enriched.decode(value)["offset"] for _, _, value in sink.sent] == [6]
    assert asked == [("enriched", NOW + at - featurize.CLOCKS_MS) for at in range(3)]  # this Positions gives one at a time


def test_samples_that_a_checkpoint_passed_over_are_learnt_first_and_their_touches_written(learner):
    stage, shards = learner
    registry = SchemaStore()
    stage.samples, stage.touched = Codec("samples", registry), Codec("touched.fm", registry)
    keys, numbers = np.arange(F, dtype=np.uint64).tobytes(), np.full(K, 0.5, np.float32).tobytes()
    sample = {"source": 7, "partition": 0, "offset": 40, "event_id": "e", "user_id": "u", "item_id": "i", "ts_ms": NOW, "strategy": "wait",
              "target": "click", "label": 1.0, "action_ts_ms": NOW + 5, "feature_set": FEATURE_SET, "feature_keys": keys,
              "feature_values": np.ones(F, np.float32).tobytes(), "numbers": numbers}
    values = [stage.samples.encode(one) for one in (sample, sample | {"target": "like", "offset": 41}, sample | {
        "offset": 42, "label": 0.0, "action_ts_ms": None})]
    sink = passed_over(stage, "touched.fm", *(Message(0, at, b"u", value, NOW) for at, value in enumerate([*values, b"\x01not ours"])))
    stage.eval(*sample_columns([50], [1]))
    assert [pushed[2].offset.tolist() for pushed in shards.pushed] == [[40], [42], [50]]
    touches = [(topic, key, stage.touched.decode(value)) for topic, key, value in sink.sent]
    assert [(topic, key, one["space"], one["id"], one["offset"], one["caused_ms"]) for topic, key, one in touches] == [
        ("touched.fm", b"u", "user", "u", 40, NOW + 5), ("touched.fm", b"i", "item", "i", 40, NOW + 5),
        ("touched.fm", b"u", "user", "u", 42, NOW), ("touched.fm", b"i", "item", "i", 42, NOW)]


def test_touches_that_a_checkpoint_passed_over_give_their_vectors_first():
    stage, registry = Vectorize(ADDRESSES, "fm"), SchemaStore()
    stage.touched, stage.written = Codec("touched.fm", registry), Codec("vectors", registry)
    stage._vectors = lambda space, ids, as_of_ms: (np.full((len(ids), 2), len(ids[0]), np.float32), 4)
    touch = {"source": 7, "partition": 0, "offset": 40, "space": "item", "id": "long", "model": "fm", "ts_ms": NOW, "caused_ms": NOW - 1}
    sink = passed_over(stage, "vectors", Message(0, 0, b"long", stage.touched.encode(touch), NOW), Message(0, 1, None, b"", NOW))
    stage.eval(*lies(1), pd.Series(["user"]), pd.Series(["1"]), pd.Series([NOW], dtype="int64"))
    (topic, key, value), = sink.sent
    record = stage.written.decode(value)
    assert (topic, key) == ("vectors", b"item:long") and np.frombuffer(record["vector"], np.float32).tolist() == [4.0, 4.0]
    assert (record["id"], record["offset"], record["caused_ms"], record["sequence"]) == ("long", 40, NOW - 1, 4)
