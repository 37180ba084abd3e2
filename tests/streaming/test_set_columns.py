"""What definitions take of scanned bytes is what they take of decoded events."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pyflink")

from headrace.features.definition_files import texts
from headrace.features.events import EventBatch
from headrace.features.feature_set import BASE, FeatureSet
from headrace.features.known_sets import KnownSets, Layout
from headrace.schemas import kernels
from headrace.schemas.codec import Codec
from headrace.schemas.registry_store import SchemaStore
from headrace.streaming.event_keys import EventKeys
from headrace.streaming.sample_batch import Columns, of_now, wrong
from headrace.streaming.scanned import Reader
from headrace.streaming.set_columns import SetColumns
from tests.features.test_groups import interactions
from tests.streaming.test_scanned import IDS

FEATURES = Path(__file__).parent.parent / "features"
SHOP = FeatureSet.of(texts([FEATURES / "shop.toml", FEATURES / "shop.py"]))
CONTEXTS = st.dictionaries(
    st.sampled_from(["item.author", "item.genre", "item.price", "device", "context.device", "item.genr", "query", "item.author2",
                     "user.x"]),
    st.one_of(st.sampled_from(["", "3.5", "1_0", " 7 ", "nan", "inf", "1e999", "a|b||c|d|e", "|", "phone", "战争|剧", "y" * 3000]),
              st.text(max_size=6)), max_size=6)
RECORDS = st.fixed_dictionaries({
    "event_id": st.text(max_size=5), "request_id": st.none(), "scene": st.sampled_from(["", "feed", "详情"]),
    "user_id": IDS, "item_id": IDS,
    "action": st.sampled_from(["impression", "click", "like", "dwell", "wink"]), "value": st.floats(-10, 1000, width=32),
    "position": st.none(), "ts_ms": st.just(1_700_000_000_000), "context": CONTEXTS, "exposure": st.none()})


@pytest.fixture(scope="module")
def codec():
    return Codec("interactions", SchemaStore())


def both(codec, records):
    """(columns out of bytes, columns out of records, names told) of the records that are taken."""
    messages = [codec.encode(record) for record in records]
    reader, told = Reader(codec, 1 << 20, SHOP), []
    scanned, _ = reader.read(messages)
    rows = np.nonzero(scanned.seen == kernels.EVENT)[0]
    built_in = EventKeys(lambda names: None).columns(scanned, rows, scanned.ts_ms[rows])
    found = SetColumns(SHOP, told.extend).columns(scanned, rows, built_in["user"], built_in["item"],
                                                  lambda chosen: reader.decoded([messages[row] for row in chosen.tolist()]))
    return {**built_in, **found}, EventBatch([records[row] for row in rows.tolist()], SHOP), told


@given(records=st.lists(RECORDS, min_size=1, max_size=6))
@settings(max_examples=150, deadline=None)
def test_of_bytes_as_of_records(codec, records):
    found, batch, told = both(codec, records)
    assert set(found) == set(SHOP.event_columns)
    for name, column in batch.columns.items():
        np.testing.assert_array_equal(found[name], column, err_msg=name)
    assert set(told) <= set(batch.names)


def test_of_a_stream_of_events(codec):
    records = interactions(300, 8)
    found, batch, told = both(codec, records)
    for name, column in batch.columns.items():
        np.testing.assert_array_equal(found[name], column, err_msg=name)
    assert {"item_words=long", "item_words=query", "item_words=words"} == set(told)
    taken = ~np.isnan(found["x"])
    assert taken.any(axis=0).all(), "every definition counts some of them"


def test_what_was_served_with_a_set_from_before_is_made_a_sample_of_the_one_held(codec):
    before = FeatureSet.of((("f.toml", '[feature.user_first]\nentity = "user"\nreducer = "first_time"\n'),))
    known = KnownSets(SHOP, [Layout(one.name, one.layout_slots, one.layout_numbers) for one in (BASE, before)])
    rng = np.random.default_rng(3)
    keys, values, numbers = (rng.integers(1, 99, before.F).astype(np.uint64), rng.random(before.F).astype(np.float32),
                             rng.random(before.K).astype(np.float32))
    exposure = {"feature_set": before.name, "feature_keys": keys.tobytes(), "feature_values": values.tobytes(),
                "numbers": numbers.tobytes(), "features_sequence": 7, "model": "fm", "version": 4, "score": 0.5, "arms": []}
    record = {**interactions(1, 1)[0], "action": "impression", "exposure": exposure}
    strange, cut = ({**record, "exposure": exposure | change} for change in ({"feature_set": "shop@9"}, {"numbers": b""}))
    messages = [codec.encode(one) for one in (record, strange, cut, {**record, "exposure": None})]
    scanned, refused = Reader(codec, 1 << 20, SHOP, known).read(messages)
    assert [(row, error.reason) for row, error in refused] == [(1, "foreign_features"), (2, "foreign_features")]
    assert scanned.whole.tolist() == [1, 0, 0, 0] and scanned.seen[0] == scanned.seen[3] == kernels.EVENT
    whole = known.packed(before.name, keys.tobytes(), values.tobytes(), numbers.tobytes())
    assert all(column in scanned.data.tobytes() for column in whole) and SHOP.name.encode() in scanned.data.tobytes()
    _, refused = Reader(codec, 1 << 20, SHOP).read(messages)
    assert [row for row, _ in refused] == [0, 1, 2]


def test_samples_of_a_set_from_before_are_learnt_as_samples_of_the_one_held():
    before = FeatureSet.of((("f.toml", '[feature.user_first]\nentity = "user"\nreducer = "first_time"\n'),))
    known = KnownSets(SHOP, [Layout(before.name, before.layout_slots, before.layout_numbers)])
    rows = [(made.name, bytes(8 * made.F), bytes(4 * made.F), bytes(4 * made.K)) for made in (before, SHOP, BASE)]
    rows.append((before.name, b"", b"", b""))  # of another width: not ours to guess
    columns = Columns(np.zeros(4, np.float32), np.ones(4, np.float32), *map(list, zip(*rows, strict=True)))
    made = of_now(columns, known)
    assert [reason for _, (reason, _) in sorted(wrong(made, SHOP).items())] == ["foreign_sample", "foreign_sample"]
    assert made.feature_set == [SHOP.name, SHOP.name, BASE.name, before.name]
    assert np.frombuffer(made.numbers[0], "<f4")[-len(SHOP.definitions):].any(), "defaults that are not 0"
    plain = columns._replace(feature_set=[SHOP.name] * 4)
    assert of_now(plain, known) is plain
