"""The Python stages on frames, against the product's own shards in this process: no Flink, no broker."""

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("pyflink")

from headrace.features.layout import FEATURE_SET, SIDE, SLOTS, F, K
from headrace.models.catalog import MODELS
from headrace.models.fields import fields_of
from headrace.models.train import Trainer
from headrace.rpc.causes import Causes
from headrace.schemas.codec import Codec
from headrace.schemas.registry_store import SchemaStore
from headrace.streaming.featurize import Addresses, Featurize
from headrace.streaming.learn import Learn, Lesson
from headrace.streaming.vectorize import Vectorize
from tests.features.events import shard_at

NOW = 1_700_000_000_000
ADDRESSES = Addresses("", "", "")


class Counter:
    def __init__(self):
        self.count = 0

    def inc(self):
        self.count += 1


class Letters:
    """Collects dead letters; `flushed` tells that they were safe before the stage returned."""

    def __init__(self):
        self.sent, self.flushed = [], 0

    def send(self, *letter):
        self.sent.append(letter)

    def flush(self):
        self.flushed = len(self.sent)


class Local:
    """A feature client whose service is a shard in this process."""

    def __init__(self, shard):
        self.shard, self.told = shard, set()

    def names(self, names):
        self.told |= set(names)

    def freeze_and_fold(self, causes, batch):
        return self.shard.freeze_and_fold(causes, batch.columns)


@pytest.fixture
def stage(tmp_path):
    made = Featurize(ADDRESSES, 7, 4096)
    registry = SchemaStore()
    made.interactions, made.enriched = Codec("interactions", registry), Codec("enriched", registry)
    made.features, made.dead_letters = Local(shard_at(tmp_path / "features")), Letters()
    made.clamped, made.retries = Counter(), Counter()
    return made


def event(action="impression", user="u", item="i", ts_ms=NOW, event_id=None, exposure=None, **context):
    return {"event_id": event_id or f"{user}-{item}-{action}-{ts_ms}", "request_id": None, "scene": "", "user_id": user, "item_id": item,
            "action": action, "value": 1.0, "position": None, "ts_ms": ts_ms, "context": context, "exposure": exposure}


def run(stage, values, first_offset=0, append_ms=NOW):
    n = len(values)
    frame = stage.eval(pd.Series([b"key"] * n), pd.Series(values, dtype=object), pd.Series([3] * n, dtype="int32"),
                       pd.Series(range(first_offset, first_offset + n), dtype="int64"), pd.Series([append_ms] * n, dtype="int64"))
    return [(key, None if value is None else stage.enriched.decode(value)) for key, value in zip(frame["key"], frame["value"], strict=True)]


def encoded(stage, *events):
    return [stage.interactions.encode(one) for one in events]


def test_impressions_are_frozen_before_their_own_click(stage):
    first, click, second = run(stage, encoded(stage, event(), event("click"), event(ts_ms=NOW + 1)), append_ms=NOW + 10)
    assert (first[1]["source"], first[1]["partition"], first[1]["offset"]) == (7, 3, 0) and first[0] == b"u"
    assert first[1]["feature_set"] == FEATURE_SET and len(first[1]["feature_keys"]) == 8 * F and len(first[1]["numbers"]) == 4 * K
    before, after = (np.frombuffer(one[1]["numbers"], np.float32) for one in (first, second))
    assert before[:2].tolist() == [0.0, 0.0] and after[0] > 0.9 and after[1] > 0.9
    assert click[1]["action"] == "click" and click[1]["feature_keys"] == b""


def test_what_is_wrong_is_a_safe_dead_letter_and_the_rest_goes_on(stage):
    good, = encoded(stage, event())
    unknown = good[:1] + b"\x00\x00\x99\x99" + good[5:]
    rows = run(stage, [b"", b"\x01" + good[1:], good, good[:-3], None, unknown, b"x" * 5000], first_offset=10)
    assert [value is not None for _, value in rows] == [False, False, True, False, False, False, False]
    assert [(topic, partition, offset) for topic, partition, offset, *_ in stage.dead_letters.sent] == [
        ("interactions", 3, offset) for offset in (10, 11, 13, 14, 15, 16)]
    assert stage.dead_letters.flushed == 6 and all(letter[3] for letter in stage.dead_letters.sent)


def test_a_replay_gives_the_same_bytes_and_a_retry_nothing(stage):
    values = encoded(stage, event(), event("click"), event(item="j"))
    assert run(stage, values) == run(stage, values)
    again = run(stage, values[:1], first_offset=50)
    assert again[0][1] is None and stage.retries.count == 1


def test_time_ahead_of_the_broker_is_clamped_and_counted(stage):
    rows = run(stage, encoded(stage, event(ts_ms=NOW + 3_600_000), event(item="j", ts_ms=NOW + 500)))
    assert [row["ts_ms"] for _, row in rows] == [NOW, NOW + 500] and stage.clamped.count == 1


def test_heartbeats_keep_their_key_and_are_not_folded(stage):
    (key, row), = run(stage, encoded(stage, event("heartbeat", "", "", event_id="heartbeat")))
    assert key == b"key" and row["action"] == "heartbeat" and stage.features.shard.counts["applied"] == 0


def test_a_served_impression_keeps_its_features(stage):
    keys, values = np.arange(F, dtype=np.uint64), np.ones(F, np.float32)
    served = {"feature_set": FEATURE_SET, "feature_keys": keys.tobytes(), "feature_values": values.tobytes(),
              "numbers": np.zeros(K, np.float32).tobytes(), "features_sequence": 9, "model": "fm", "version": 5, "score": 0.5,
              "arms": ["a=b"]}
    whole, partial = run(stage, encoded(stage, event(exposure=served), event(item="j", exposure=served | {
        "feature_set": "", "feature_keys": b"", "feature_values": b"", "numbers": b""})))
    assert whole[1]["feature_keys"] == keys.tobytes() and whole[1]["score"] == 0.5 and whole[1]["arms"] == ["a=b"]
    assert partial[1]["feature_set"] == FEATURE_SET and len(partial[1]["feature_keys"]) == 8 * F and partial[1]["model"] == "fm"


class Shards:
    """Pull gives zeros; push keeps what compute makes for all causes."""

    def __init__(self, dim=9):
        self.dim, self.pushed = dim, []

    def pull(self, model, table, keys):
        return np.zeros((len(keys), self.dim), np.float32), 5

    def push(self, model, effect, causes, compute):
        self.pushed.append((model, effect, causes, compute(np.arange(len(causes)))))


@pytest.fixture
def learner():
    made, shards = Learn(ADDRESSES, Lesson("fm", "click", 0.0, 4096)), Shards()
    made.trainer = Trainer(MODELS["fm"](fields_of(SLOTS, SIDE)), shards.pull, shards.push, l2=0.0, window_offsets=4096, effect="click")
    return made, shards


def sample_columns(offsets, users, feature_set=FEATURE_SET):
    n = len(offsets)
    keys = np.tile(np.arange(F, dtype=np.uint64), (n, 1))
    keys[:, SLOTS.index("user_id")] = users
    causes = [pd.Series([7] * n, dtype="int32"), pd.Series([0] * n, dtype="int32"), pd.Series(offsets, dtype="int64")]
    return [*causes, pd.Series([1.0, 0.0] * n)[:n],
            pd.Series([1.0] * n), pd.Series([feature_set] * n), pd.Series([row.tobytes() for row in keys]),
            pd.Series([np.ones(F, np.float32).tobytes()] * n), pd.Series([np.full(K, 0.5, np.float32).tobytes()] * n)]


def test_a_push_names_each_cause_once_and_counts_every_slot(learner):
    stage, shards = learner
    frame = stage.eval(*sample_columns([4, 5, 4, 6], [1, 2, 1, 1]))
    (model, effect, causes, updates), = shards.pushed
    assert (model, effect) == ("fm", "click") and isinstance(causes, Causes) and causes.offset.tolist() == [4, 5, 6]
    assert updates["counts"][1].sum() == 3 * F
    assert frame["user"].tolist() == [True, True, False, False] and frame["item"].tolist() == [True, False, False, False]


def test_samples_of_another_feature_set_stop_the_job(learner):
    with pytest.raises(ValueError, match=r"feature set 'other@2'.*learns on 'base@1'"):
        learner[0].eval(*sample_columns([1], [1], "other@2"))


def test_an_id_twice_in_a_batch_gives_one_vector(tmp_path):
    class Service:
        def assemble(self, users, items, context, ts_ms):
            class Answer:
                keys = np.tile(np.arange(F, dtype=np.uint64), (len(users), 1))
                values = np.ones((len(users), F), np.float32)

            return Answer

    stage, shards = Vectorize(ADDRESSES, "fm"), Shards()
    stage.features, stage.parameters, stage.newest = Service(), shards, 0
    frame = stage.eval(pd.Series(["user", "item", "user"]), pd.Series(["1", "1", "1"]), pd.Series([NOW] * 3, dtype="int64"))
    assert [vector is not None for vector in frame["vector"]] == [False, True, True]
    assert np.frombuffer(frame["vector"][2], np.float32).tolist() == [0.0] * 8 + [1.0] and (SIDE == 1).any()
    assert frame["sequence"].tolist() == [0, 5, 5]
