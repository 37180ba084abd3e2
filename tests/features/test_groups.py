"""A shard with definitions against the twin of dictionaries: what is frozen at every event, and what is read afterwards."""

from pathlib import Path

import numpy as np
import pytest

from headrace.features import definition_files
from headrace.features.definitions import DefinitionError
from headrace.features.events import EventBatch
from headrace.features.feature_set import FeatureSet
from headrace.features.layout import F, K
from headrace.features.reducers import IDS
from headrace.features.set_kernels import NEWEST
from headrace.rpc.causes import Causes
from headrace.schemas.hashing import feature_key
from tests.features.events import T0, shard_at
from tests.features.set_twin import SetTwin

HERE = Path(__file__).parent
SHOP = FeatureSet.of(definition_files.texts([HERE / "shop.toml", HERE / "shop.py"]))
AUTHORS, GENRES = ["ann", "bob", "cy"], ["war", "war|drama", "drama|noir", ""]


def interactions(n, seed, late=0.1):
    """Impressions and actions of few users on few items, some late, columns of items that change."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(n):
        action = str(rng.choice(["impression", "click", "like", "dwell", "odd"]))
        ts = T0 + 20_000 * i - int(rng.random() < late) * int(rng.integers(2_000_000))
        item = int(rng.integers(12))
        context = {"item.author": AUTHORS[(item + i // 200) % 3], "item.genre": str(rng.choice(GENRES))} if rng.random() < 0.7 else {}
        context |= {"item.price": str(round(float(rng.random() * 9), 2))} if rng.random() < 0.5 else {}
        context |= {"device": str(rng.choice(["phone", "tablet", "tv"]))} if rng.random() < 0.8 else {}
        context |= {"query": "a long query of words"} if rng.random() < 0.1 else {}
        made.append({"event_id": f"e{seed}-{i}", "request_id": None, "scene": str(rng.choice(["feed", "detail"])), "position": None,
                     "user_id": f"u{int(rng.integers(6))}", "item_id": f"i{item}", "action": action, "ts_ms": ts, "exposure": None,
                     "value": float(rng.integers(1, 900)) if action == "dwell" else 1.0,
                     "context": {name: text for name, text in context.items() if text}})
    return made


def causes_at(first, n):
    return Causes(np.full(n, 3, np.int32), np.zeros(n, np.int32), np.arange(first, first + n))


def fold(shard, records, first=0):
    return shard.freeze_and_fold(causes_at(first, len(records)), EventBatch(records, shard.set).columns)


def told(row, feature_set):
    """{definition: number or tokens' slot keys} of (keys, values, numbers) of one sample."""
    keys, values, numbers = row
    found, slot, number = {}, F, K
    for d, one in enumerate(feature_set.definitions):
        width = int(feature_set.width[d])
        if width:
            found[one.name] = [int(key) for key, value in zip(keys[slot : slot + width], values[slot : slot + width], strict=True) if value]
            slot += width
        else:
            found[one.name] = float(numbers[number])
            number += 1
    return found


def expected(seen, feature_set):
    """The twin's tokens as the keys of slots."""
    from tests.naive import bucket_of

    return {one.name: [bucket_of(feature_key(one.name, ""), token) for token in seen[one.name]] if one.kind.makes == IDS else seen[one.name]
            for one in feature_set.definitions}


def assert_same(found, wanted, what):
    for name, value in wanted.items():
        if name == "item_users":
            assert found[name] == pytest.approx(value, abs=0.6), (what, name)
        elif isinstance(value, list):
            assert found[name] == value, (what, name)
        else:
            assert found[name] == pytest.approx(value, rel=1e-4, abs=1e-4), (what, name)


@pytest.mark.parametrize(("seed", "idle"), [(1, {}), (2, {}), (3, {"idle_s": 300.0}), (4, {"idle_s": 1500.0})])
def test_what_is_frozen_and_read_is_what_the_twin_says(tmp_path, seed, idle):
    records, twin = interactions(700, seed), SetTwin(SHOP.definitions, **idle)
    shard, at = shard_at(tmp_path, feature_set=SHOP, **idle), 0
    for size in (1, 2, 300, 1, 396):  # calls of several sizes: rows are read anew between them
        part = records[at : at + size]
        frozen = fold(shard, part, at)
        for i, record in enumerate(part):
            seen = twin.event(record)
            if record["action"] == "impression":
                assert_same(told([column[i] for column in frozen[:3]], SHOP), expected(seen, SHOP), (at + i, record))
        at += size
        if size == 300:  # a new process
            shard.store.close()
            shard = shard_at(tmp_path, feature_set=SHOP, **idle)
    shard.flush()
    stored = [np.frombuffer(row, np.float64) for family in shard.store.families() if family.startswith("group ")
              for _, row in shard.store.scan(family)]
    assert len(stored) > 50 and all(row[NEWEST] > 0 for row in stored), "a row into which nothing was folded is not kept"
    users, items, devices = [f"u{n}" for n in (0, 1, 5, 99)], ["i0", "i7", "i99", "i3"], ["phone", "tv", "", "tablet"]
    moment = np.array([[feature_key("device", device) if device else 0, feature_key("scene", "feed")] for device in devices], np.uint64)
    assert SHOP.moments == ("context.device", "scene")
    read = shard.assemble(np.array([feature_key("user_id", user) for user in users], np.uint64),
                          np.array([feature_key("item_id", item) for item in items], np.uint64), np.zeros((4, 4), np.uint64),
                          np.full(4, T0 + 15_000_000), moment)
    for i, pair in enumerate(zip(users, items, devices, strict=True)):
        seen = twin.read(*pair[:2], "feed", {"device": pair[2]}, T0 + 15_000_000)
        assert_same(told([column[i] for column in read], SHOP), expected(seen, SHOP), pair)
    shard.store.close()


def test_repeated_causes_and_retries_fold_nothing_twice(tmp_path):
    records = interactions(200, 3)
    once, twice = shard_at(tmp_path / "once", feature_set=SHOP), shard_at(tmp_path / "twice", feature_set=SHOP)
    first = fold(once, records)
    fold(twice, records[:150])
    again = fold(twice, records[100:], 100)  # fifty of them a second time
    np.testing.assert_array_equal(again.numbers, first.numbers[100:])
    np.testing.assert_array_equal(again.keys, first.keys[100:])
    retry = twice.freeze_and_fold(causes_at(1000, 20), EventBatch(records[-20:], SHOP).columns)  # a client sends them under other causes
    assert retry.status.tolist() == [2] * 20
    once.flush()
    twice.flush()
    for family in [name for name in twice.store.families() if name.startswith("group ")]:
        assert dict(once.store.scan(family)) == dict(twice.store.scan(family))
    once.store.close()
    twice.store.close()


def test_a_definition_added_keeps_the_others_and_one_changed_is_refused(tmp_path):
    text = '[feature.user_pressed]\nentity = "user"\nreducer = "count"\nwhere = { action = "click" }\n'
    more = '[feature.user_all]\nentity = "user"\nreducer = "count"\n'
    records, first, both = interactions(300, 4), FeatureSet.of((("a.toml", text),)), FeatureSet.of((("a.toml", more + text),))
    whole = SetTwin(both.definitions)
    shard = shard_at(tmp_path, feature_set=first)
    fold(shard, records[:200])
    shard.store.close()
    for record in records[:200]:
        whole.event(record)
    for key in list(whole.states):
        if key[0].name == "user_all":
            del whole.states[key]  # it was not there yet
    shard = shard_at(tmp_path, feature_set=both)
    frozen = fold(shard, records[200:], 200)
    for i, record in enumerate(records[200:]):
        seen = whole.event(record)
        if record["action"] == "impression":
            assert_same(told([column[i] for column in frozen[:3]], both), seen, record)
    repeated = fold(shard, records[:200])  # frozen before there was user_all
    column = K + 0
    assert repeated.status.tolist() == [1] * 200 and (repeated.numbers[:, column] == 0).all() and repeated.numbers[:, K + 1].any()
    shard.store.close()
    changed = FeatureSet.of((("a.toml", text.replace('"click"', '"like"')),))
    with pytest.raises(DefinitionError, match=r"a.toml:1: feature user_pressed@1 was kept with where .*write version = 2"):
        shard_at(tmp_path, feature_set=changed)


def test_a_set_travels_as_its_files():
    import pickle

    again = pickle.loads(pickle.dumps(SHOP))
    assert again.name == SHOP.name and again.slots == SHOP.slots and again.digest == SHOP.digest
    assert again.definitions[-1].function({"context": {"query": "some words of it"}}) == ["some", "words"]


def test_one_user_with_many_items_sees_what_each_pair_sees_alone(tmp_path):
    """Also where the same rows come again, at another time, and where there are none."""
    shard = shard_at(tmp_path, feature_set=SHOP)
    fold(shard, interactions(400, 6))
    chance, n = np.random.default_rng(1), 60
    users = np.repeat([feature_key("user_id", user) for user in ("u1", "u2", "nobody")], 20).astype(np.uint64)
    items = np.array([feature_key("item_id", f"i{chance.integers(14)}") for _ in range(n)], np.uint64)
    items[:3] = items[0]
    devices = chance.choice(["phone", "tv"], n).tolist()
    moment = np.array([[feature_key("device", device), feature_key("scene", "feed")] for device in devices], np.uint64)
    times = T0 + 8_000_000 + 1000 * (np.arange(n) // 7)
    together = shard.assemble(users, items, np.zeros((n, 4), np.uint64), times, moment)
    for i in range(n):
        at = slice(i, i + 1)
        alone = shard.assemble(users[at], items[at], np.zeros((1, 4), np.uint64), times[at], moment[at])
        for mine, theirs in zip(alone, together, strict=True):
            np.testing.assert_array_equal(mine[0], theirs[i])
    assert len(np.unique(together.numbers, axis=0)) > 20
    shard.store.close()
