"""The Python stages on frames, against the product's own shards in this process: no Flink, no broker."""

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("pyflink")

from headrace.features.layout import EMPTY_KEYS, FEATURE_SET, SIDE, SLOTS, F, K
from headrace.models.catalog import MODELS
from headrace.models.fields import fields_of
from headrace.models.train import NotFinite, Trainer
from headrace.rpc.causes import Causes
from headrace.rpc.errors import Refused, Unavailable
from headrace.rpc.freshness import Newest
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

    def inc(self, n=1):
        self.count += n


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
        self.shard, self.told, self.masked = shard, set(), ()

    def names(self, names):
        self.told |= set(names)

    def freeze_and_fold(self, causes, batch):
        return self.shard.freeze_and_fold(causes, batch)


@pytest.fixture
def stage(tmp_path):
    made = Featurize(ADDRESSES, 7, 4096)
    registry = SchemaStore()
    made.prepare(Codec("interactions", registry), Codec("enriched", registry))
    made.features, made.dead_letters = Local(shard_at(tmp_path / "features")), Letters()
    made.clamped, made.retries, made.scorer = Counter(), Counter(), None
    return made


def event(action="impression", user="u", item="i", ts_ms=NOW, event_id=None, exposure=None, **context):
    return {"event_id": event_id or f"{user}-{item}-{action}-{ts_ms}", "request_id": None, "scene": "", "user_id": user, "item_id": item,
            "action": action, "value": 1.0, "position": None, "ts_ms": ts_ms, "context": context, "exposure": exposure}


def run(stage, values, first_offset=0, append_ms=NOW, key=b"u"):
    n = len(values)
    frame = stage.eval(pd.Series([key] * n, dtype=object), pd.Series(values, dtype=object), pd.Series([3] * n, dtype="int32"),
                       pd.Series(range(first_offset, first_offset + n), dtype="int64"), pd.Series([append_ms] * n, dtype="int64"))
    return [(key, None if value is None else stage.enriched.decode(value)) for value in frame]


def encoded(stage, *events):
    return [stage.interactions.encode(one) for one in events]


def lies(n):
    """Where n records of a stage's topic lie."""
    return pd.Series([0] * n, dtype="int32"), pd.Series(range(n), dtype="int64")


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


class Served:
    """A scorer that gives a score a row, or nobody who answers."""

    def __init__(self, answers=True):
        self.model, self.answers, self.asked, self.masked = "fm", answers, [], None

    def score(self, keys, values, numbers, masked=()):
        self.masked = masked
        self.asked.append((keys, values, numbers))
        return (np.arange(len(keys), dtype=np.float32) / 8, 77) if self.answers else None


def test_exposures_are_scored_when_they_are_made_and_pass_without_a_score_when_nobody_answers(stage):
    stage.scorer = Served()
    values = encoded(stage, event(item="a"), event(item="a", action="click"), event(item="b"), event(action="heartbeat", user="", item=""))
    rows = [row for _, row in run(stage, values)]
    assert [(row["model"], row["version"], row["score"]) for row in rows] == [
        ("fm", 77, 0.0), (None, None, None), ("fm", 77, 0.125), (None, None, None)]
    (keys, values, numbers), = stage.scorer.asked
    assert [row["feature_keys"] for row in rows if row["score"] is not None] == [key.tobytes() for key in keys]
    assert values.shape == (2, F) and numbers.shape == (2, K)
    stage.scorer = Served(answers=False)
    (_, row), = run(stage, encoded(stage, event(item="c")), first_offset=10)
    assert row["score"] is None and len(row["feature_keys"]) == 8 * F


def test_time_ahead_of_the_broker_is_clamped_and_counted(stage):
    rows = run(stage, encoded(stage, event(ts_ms=NOW + 3_600_000), event(item="j", ts_ms=NOW + 500)))
    assert [row["ts_ms"] for _, row in rows] == [NOW, NOW + 500] and stage.clamped.count == 1


def test_heartbeats_keep_their_key_and_are_not_folded(stage):
    (key, row), = run(stage, encoded(stage, event("heartbeat", "", "", event_id="heartbeat")), key=b"key")
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

    def push(self, model, effect, causes, compute, newest=None):
        self.pushed.append((model, effect, causes, compute(np.arange(len(causes)))))
        self.newest = newest


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
    return [*lies(n), *causes, pd.Series([1.0, 0.0] * n)[:n],
            pd.Series([1.0] * n), pd.Series([feature_set] * n), pd.Series([row.tobytes() for row in keys]),
            pd.Series([np.ones(F, np.float32).tobytes()] * n), pd.Series([np.full(K, 0.5, np.float32).tobytes()] * n),
            pd.Series([NOW - offset % 5 for offset in offsets], dtype="int64")]


def test_a_push_names_each_cause_once_and_counts_every_slot(learner):
    stage, shards = learner
    frame = stage.eval(*sample_columns([4, 5, 4, 6], [1, 2, 1, 1]))
    (model, effect, causes, updates), = shards.pushed
    assert (model, effect) == ("fm", "click") and isinstance(causes, Causes) and causes.offset.tolist() == [4, 5, 6]
    assert updates["counts"][1].sum() == 3 * F
    assert shards.newest == Newest(7, 0, 5, NOW)  # of the latest event time, not of the last row
    assert frame["user"].tolist() == [True, True, False, False] and frame["item"].tolist() == [True, False, False, False]


def test_a_feature_that_is_frozen_is_learnt_and_scored_as_its_default(learner, stage):
    made, shards = learner
    made.masked = lambda: ("user_lift",)
    made.eval(*sample_columns([4, 5], [1, 2]))
    (_, _, _, updates), = shards.pushed
    assert EMPTY_KEYS[SLOTS.index("user_lift")] in updates["counts"][0], "the slot has its key without a value"
    assert np.uint64(SLOTS.index("user_lift")) not in updates["counts"][0] and np.uint64(SLOTS.index("item_lift")) in updates["counts"][0]
    stage.scorer, stage.features.masked = Served(), ("user_lift",)
    (_, row), = run(stage, encoded(stage, event(item="a")))
    assert stage.scorer.masked == ("user_lift",) and len(row["feature_keys"]) == 8 * F


def test_of_two_stages_each_has_an_effect_of_its_own_and_a_negative_at_its_close_touches_nobody(learner):
    stage, shards = learner
    early = sample_columns([4, 5], [1, 2])
    early[5] = pd.Series([0.0, 0.0])
    first = Learn(ADDRESSES, Lesson("fm", "click", 0.0, 4096, provisional=True))
    first.trainer = Trainer(stage.trainer.model, shards.pull, shards.push, l2=0.0, window_offsets=4096, effect=first.lesson.effect)
    assert first.eval(*early)["user"].tolist() == [True, True]
    stage.lesson = Lesson("fm", "click", 0.0, 4096, scored=True)
    late = [*sample_columns([4, 5, 6], [1, 2, 3]), pd.Series(["fm"] * 3), pd.Series([0.25] * 3), pd.Series(["fast", "fast", "eager"])]
    assert stage.eval(*late)["user"].tolist() == [True, False, True]
    (_, effect, causes, told), (_, final, confirmed, learnt) = shards.pushed
    assert (effect, causes.offset.tolist(), final, confirmed.offset.tolist()) == ("click.provisional", [4, 5], "click", [4, 5, 6])
    assert told["counts"][1].sum() == 2 * F and learnt["counts"][1].sum() == F, "of `fast` the exposure is counted, not its label"
    assert len(told["metrics"][0]) == 0 and learnt["metrics"][1].sum() > 0
    assert (first.lesson.name, stage.lesson.name) == ("train-fm-provisional", "train-fm")


def with_letters(stage):
    stage.dead_letters = Letters()
    return stage.dead_letters


def test_samples_that_cannot_be_learnt_are_dead_letters_and_the_rest_is_learnt(learner):
    stage, shards = learner
    letters = with_letters(stage)
    columns = sample_columns(range(8), [1, 1, 2, 2, 3, 3, 4, 1])
    columns[5][1] = np.nan
    columns[6][2] = np.inf
    columns[7][0] = "other@2"
    columns[8][3] = b"short"
    columns[9][4] = np.full(F, np.inf, np.float32).tobytes()
    columns[10][5] = np.full(K, np.nan, np.float32).tobytes()
    columns[9][6], columns[6][6] = np.full(F, 3e38, np.float32).tobytes(), 1e10
    with np.errstate(all="ignore"):
        frame = stage.eval(*columns)
    told = {offset: (topic, partition, reason) for topic, partition, offset, reason, _, _ in letters.sent}
    assert told == {0: ("interactions", 0, "foreign_sample"), 6: ("interactions", 0, "non_finite_gradient"),
                    **{offset: ("interactions", 0, "bad_sample") for offset in range(1, 6)}}
    assert letters.flushed == 7 and all(len(letter[4]) > 20 for letter in letters.sent)
    assert [pushed[2].offset.tolist() for pushed in shards.pushed] == [[7]]
    assert frame["user"].tolist() == [False] * 7 + [True] == frame["item"].tolist()


def test_a_sample_that_fails_alone_is_poison_and_its_repetition_is_not_touched(learner):
    stage, shards = learner
    letters, learn = with_letters(stage), stage.trainer.learn

    def failing(batch, causes, *rest, **more):
        if 5 in causes.offset.tolist():
            raise KeyError("no such thing")
        return learn(batch, causes, *rest, **more)

    stage.trainer.learn = failing
    frame = stage.eval(*sample_columns([4, 5, 5, 6], [1, 2, 2, 3]))
    assert [letter[:4] for letter in letters.sent] == [("interactions", 0, 5, "poison_sample")] and "no such thing" in letters.sent[0][4]
    assert sorted(offset for pushed in shards.pushed for offset in pushed[2].offset.tolist()) == [4, 6]
    assert frame["user"].tolist() == [True, False, False, True]


def test_a_broken_model_stops_the_job_and_refuses_no_sample(learner):
    stage, shards = learner
    letters = with_letters(stage)
    stage.trainer._pull = lambda model, table, keys: (np.full((len(keys), shards.dim), np.nan, np.float32), 1)
    with pytest.raises(NotFinite):
        stage.eval(*sample_columns([4, 5, 6], [1, 2, 3]))
    assert letters.sent == []


def test_a_parameter_server_that_refuses_stops_the_job(learner):
    stage, _ = learner
    with_letters(stage)

    def full(*_):
        raise Refused("table weights is full")

    stage.trainer._push = full
    with pytest.raises(Refused):
        stage.eval(*sample_columns([4, 5], [1, 2]))


def test_an_event_that_fails_alone_is_poison_and_the_rest_is_folded_in_order(stage):
    fold = stage.features.freeze_and_fold

    def failing(causes, batch):
        if 13 in causes.offset.tolist():
            raise ZeroDivisionError("a defect")
        return fold(causes, batch)

    stage.features.freeze_and_fold = failing
    good = encoded(stage, *(event(item=f"i{n}", ts_ms=NOW + n) for n in range(8)))
    rows = run(stage, [*good[:5], b"", *good[5:]], first_offset=10)
    assert [value is None for _, value in rows] == [offset in (13, 15) for offset in range(10, 19)]
    assert [letter[2:4] for letter in stage.dead_letters.sent] == [(15, "empty"), (13, "poison")]  # each once, however often it was cut
    assert "ZeroDivisionError: a defect" in stage.dead_letters.sent[1][4] and stage.dead_letters.flushed == 2
    assert stage.features.shard.counts["applied"] == 7
    numbers = [np.frombuffer(value["numbers"], np.float32)[0] for _, value in rows if value]
    assert numbers == sorted(numbers) and len(set(numbers)) == 7  # the user's impressions grow one by one


def test_a_feature_service_that_is_away_refuses_nothing(stage):
    def away(causes, batch):
        raise Unavailable("nobody answers")

    stage.features.freeze_and_fold = away
    with pytest.raises(Unavailable):
        run(stage, encoded(stage, event(), event("click")))
    assert stage.dead_letters.sent == []


def test_features_served_by_another_set_or_width_are_refused_not_frozen_anew(stage):
    served = {"feature_set": FEATURE_SET, "feature_keys": bytes(8 * F), "feature_values": bytes(4 * F), "numbers": bytes(4 * K),
              "features_sequence": 9, "model": "fm", "version": 5, "score": 0.5, "arms": []}
    changes = [{"feature_set": "other@2"}, {"feature_keys": bytes(8), "feature_values": bytes(4)}, {"numbers": b""}, {}]
    rows = run(stage, encoded(stage, *(event(item=f"i{n}", exposure=served | change) for n, change in enumerate(changes))))
    assert [value is None for _, value in rows] == [True, True, True, False]
    assert [letter[3] for letter in stage.dead_letters.sent] == ["foreign_features", "feature_width", "feature_width"]


@pytest.mark.parametrize("key", [None, b"v", b"\x00\x00\x00\x00\x01\x02u"])
def test_a_key_that_is_not_the_user_is_refused(stage, key):
    (_, value), = run(stage, encoded(stage, event()), key=key)
    assert value is None and stage.dead_letters.sent[0][3] == "wrong_key"


def test_an_id_twice_in_a_batch_gives_one_vector(tmp_path):
    class Service:
        def assemble(self, users, items, context, ts_ms):
            class Answer:
                keys = np.tile(np.arange(F, dtype=np.uint64), (len(users), 1))
                values, numbers = np.ones((len(users), F), np.float32), np.zeros((len(users), K), np.float32)
                masked = ()

            return Answer

    stage, shards = Vectorize(ADDRESSES, "fm"), Shards()
    stage.features, stage.parameters, stage.newest = Service(), shards, 0
    frame = stage.eval(*lies(3), pd.Series(["user", "item", "user"]), pd.Series(["1", "1", "1"]), pd.Series([NOW] * 3, dtype="int64"))
    assert [vector is not None for vector in frame["vector"]] == [False, True, True]
    assert np.frombuffer(frame["vector"][2], np.float32).tolist() == [0.0] * 8 + [1.0] and (SIDE == 1).any()
    assert frame["sequence"].tolist() == [0, 5, 5]


def test_a_touch_that_fails_alone_is_poison_and_the_other_vectors_are_made():
    stage = Vectorize(ADDRESSES, "fm")
    letters = with_letters(stage)

    def vectors(space, ids, as_of_ms):
        if "2" in ids:
            raise IndexError("no row")
        return np.ones((len(ids), 9), np.float32), 4

    stage._vectors = vectors
    frame = stage.eval(*lies(3), pd.Series(["user", "item", "user"]), pd.Series(["1", "2", "3"]), pd.Series([NOW] * 3, dtype="int64"))
    assert [vector is not None for vector in frame["vector"]] == [True, False, True] and frame["sequence"].tolist() == [4, 0, 4]
    (topic, partition, offset, reason, detail, _), = letters.sent
    assert (topic, partition, offset, reason) == ("touched.fm", -1, -1, "poison_touch") and "item '2'" in detail and "no row" in detail
