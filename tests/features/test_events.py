"""Interactions to columns."""

from __future__ import annotations

import numpy as np

from headrace.features.events import EventBatch
from headrace.features.layout import EVENT_COLUMNS, FEATURE_SET, F
from headrace.schemas.hashing import event_key, feature_key

RECORD = {"event_id": "e1", "request_id": None, "scene": "", "user_id": "u1", "item_id": "i1", "action": "click", "value": 2.5,
          "position": None, "ts_ms": 1_700_000_000_000, "context": {}, "exposure": None}


def test_columns_follow_the_contract():
    for records in ([], [RECORD], [RECORD, {**RECORD, "action": "wink"}]):
        columns = EventBatch(records).columns
        assert columns.keys() == EVENT_COLUMNS.keys()
        for name, (dtype, shape) in EVENT_COLUMNS.items():
            assert columns[name].dtype == np.dtype(dtype)
            assert columns[name].shape == (len(records), *shape[1:])


def test_fields_go_to_their_sides_in_order_of_names():
    context = {"user.b": "2", "user.a": "1", "item.genre": "Comedy||Drama", "hour": "13", "device": "a|b", "_private": "x", "user.c": ""}
    batch = EventBatch([{**RECORD, "context": context}])
    assert batch.columns["user_fields"][0].tolist() == [feature_key("user.a", "1"), feature_key("user.b", "2"), 0, 0]
    assert batch.columns["item_fields"][0, :3].tolist() == [feature_key("item.genre", "Comedy"), feature_key("item.genre", "Drama"), 0]
    assert batch.columns["context"][0].tolist() == [feature_key("device", "a|b"), feature_key("hour", "13"), 0, 0]
    assert (batch.columns["user"][0], batch.columns["item"][0]) == (feature_key("user_id", "u1"), feature_key("item_id", "i1"))
    assert set(batch.names) == {"user.a=1", "user.b=2", "item.genre=Comedy", "item.genre=Drama", "hour=13", "device=a|b", "user_id=u1",
                                "item_id=i1"}
    assert batch.dropped == 0


def test_the_first_values_win():
    batch = EventBatch([{**RECORD, "context": {"item.a": "1|2|3|4|5|6|7|8", "x": "1", "y": "2", "z": "3", "v": "4", "w": "5"}}])
    assert batch.dropped == 2 + 1
    assert batch.columns["item_fields"][0, 5] == feature_key("item.a", "6")
    assert feature_key("z", "3") not in batch.columns["context"][0].tolist()


def test_actions_events_and_served():
    whole = {"feature_set": FEATURE_SET, "feature_keys": bytes(8 * F)}
    records = [{**RECORD, "action": "impression", "exposure": whole}, {**RECORD, "action": "click", "exposure": whole},
               {**RECORD, "action": "impression", "exposure": {"feature_set": "", "feature_keys": b""}},
               {**RECORD, "action": "impression", "exposure": {**whole, "feature_set": "other@1"}},
               {**RECORD, "action": "wink", "event_id": ""}]
    columns = EventBatch(records).columns
    assert columns["served"].tolist() == [1, 0, 0, 0, 0]
    assert columns["action"].tolist() == [1, 2, 1, 1, 9]
    assert columns["event"].tolist() == [event_key("e1")] * 4 + [0]
    assert columns["value"][0] == 2.5
