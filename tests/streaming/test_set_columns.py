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
from headrace.features.feature_set import FeatureSet
from headrace.schemas import kernels
from headrace.schemas.codec import Codec
from headrace.schemas.registry_store import SchemaStore
from headrace.streaming.event_keys import EventKeys
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
