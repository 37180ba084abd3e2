"""The comparison of frozen features with a run without kills: equal when nothing was changed, and every change seen."""

import copy

import numpy as np
import pytest

from headrace.config import Features
from headrace.features.events import EventBatch
from headrace.features.layout import F
from headrace.rpc.causes import Causes
from headrace.verify.frozen import compare
from tests.features.events import HALF_LIFE_S, RING, T0, shard_at

SOURCE = 5


def sent(n):
    """n interactions of a few users over two partitions, by (partition, offset)."""
    return {(n % 2, n // 2): {"event_id": f"e{n}", "user_id": f"u{n % 7}", "item_id": f"i{n % 11}", "ts_ms": T0 + 1000 * n,
                              "action": "click" if n % 3 == 2 else "impression", "value": 1.0, "context": {"item.genre": f"g{n % 4}"},
                              "exposure": None} for n in range(n)}


@pytest.fixture
def enriched(tmp_path):
    """What the features job makes of `sent`, when it meets the second partition's events first in every batch of 20."""
    events, shard, found = sent(300), shard_at(tmp_path), {}
    for start in range(0, 150, 10):
        part = [(p, o) for p in (1, 0) for o in range(start, start + 10)]
        batch = EventBatch([events[at] for at in part])
        where = np.array(part)
        causes = Causes(np.full(len(part), SOURCE, np.int32), where[:, 0].astype(np.int32), where[:, 1].astype(np.int64))
        answer = shard.freeze_and_fold(causes, batch.columns)
        for row, at in enumerate(part):
            found[(SOURCE, *at)] = {"action": events[at]["action"], "ts_ms": events[at]["ts_ms"],
                                  "features_sequence": int(answer.sequence[row]), "feature_keys": answer.keys[row].tobytes(),
                                  "feature_values": answer.values[row].tobytes(), "numbers": answer.numbers[row].tobytes()}
    shard.store.close()
    return found


def differing(enriched):
    return [one["found"] for one in compare(enriched, sent(300), Features(half_life_s=HALF_LIFE_S, ring_length=RING)) if not one["agree"]]


def test_what_was_not_changed_agrees(enriched):
    checks = compare(enriched, sent(300), Features(half_life_s=HALF_LIFE_S, ring_length=RING))
    assert all(one["agree"] for one in checks) and checks[-1]["found"] == 200


def test_live_rows_instead_of_frozen_ones_are_seen(enriched):
    """As if a repetition had been answered from the row as it is, with the exposure's own click in it."""
    changed = copy.deepcopy(enriched)
    record = changed[SOURCE, 1, 100]
    assert record["action"] == "impression"
    values = np.frombuffer(record["feature_values"], np.float32).copy()
    assert len(values) == F
    values[-4] += 1
    record["feature_values"] = values.tobytes()
    assert differing(changed) == [1]


def test_an_event_that_was_folded_twice_or_out_of_place_is_seen(enriched):
    changed = copy.deepcopy(enriched)
    changed[SOURCE, 0, 40]["features_sequence"] += 7
    assert len(differing(changed)) >= 1
    lost = {cause: record for cause, record in enriched.items() if cause != (SOURCE, 0, 5)}
    assert len(differing(lost)) >= 1
