"""The check of skew over a log made by a shard and its reads: nothing to find, then each of what it is there to find."""

import numpy as np
import pytest

from headrace.features.layout import NUMBERS
from headrace.recompute.skew import FROZEN, SERVED, SkewError, skew
from headrace.schemas.hashing import feature_key
from tests.features.events import HALF_LIFE_S, shard_at
from tests.features.test_groups import SHOP, fold, interactions


def exposure(sample, i, sequence):
    return {"feature_set": SHOP.name, "feature_keys": sample.keys[i].tobytes(), "feature_values": sample.values[i].tobytes(),
            "numbers": sample.numbers[i].tobytes(), "features_sequence": sequence}


@pytest.fixture
def log(tmp_path):
    return logged(tmp_path)


def logged(folder, **settings):
    """(interactions by place, enriched): four of ten impressions were served by an engine, some time before they were folded."""
    rng, shard = np.random.default_rng(2), shard_at(folder, feature_set=SHOP, **settings)
    sent, enriched = {}, []
    pending = interactions(400, 5)
    for at in range(0, 400, 10):
        part = pending[at : at + 10]
        for record in part:
            if record["action"] == "impression" and rng.random() < 0.4:
                record["ts_ms"] += int(rng.integers(1000))
                context = record["context"] = {"device": "phone"}
                moment = np.array([[feature_key("device", "phone"), feature_key("scene", record["scene"])]], np.uint64)
                user, item = (np.array([feature_key(f"{side}_id", record[f"{side}_id"])], np.uint64) for side in ("user", "item"))
                keys = np.zeros((1, 4), np.uint64)
                keys[0, 0] = feature_key("device", context["device"])
                made = shard.assemble(user, item, keys, np.array([record["ts_ms"]]), moment)
                record["exposure"] = exposure(made, 0, shard.sequence)
        frozen = fold(shard, part, at)
        for i, record in enumerate(part):
            sent[0, at + i] = record
            carried = {"feature_set": "", "feature_keys": b"", "feature_values": b"", "numbers": b"", "features_sequence": 0}
            if record["action"] == "impression":
                carried = record["exposure"] or exposure(frozen, i, int(frozen.sequence[i]))
            enriched.append({"partition": 0, "offset": at + i, "folded": int(frozen.sequence[i]), "ts_ms": record["ts_ms"],
                             "action": record["action"], **carried})
    shard.store.close()
    return sent, enriched


def checked(log, limit=1000, **settings):
    return skew(*log, SHOP, half_life_s=HALF_LIFE_S, limit=limit, **settings)


def test_nothing_differs_where_nothing_is_wrong(log):
    report = checked(log)
    assert report.mismatches == 0, report.examples
    assert report.checked[SERVED] > 20 and report.checked[FROZEN] > 20 and report.events == 400
    few = checked(log, 25)
    assert sum(few.checked.values()) == 25 and few.checked[SERVED] >= 20


def test_what_is_forgotten_is_forgotten_by_the_check_too(tmp_path):
    log = logged(tmp_path, idle_s=300.0)
    report = checked(log, idle_s=300.0)
    assert report.mismatches == 0, report.examples
    assert {"user_count", "user_impressions"} <= set(checked(log).folded_again)


def test_where_there_is_nothing_to_check_it_fails(log):
    sent, enriched = log
    with pytest.raises(SkewError, match="nothing could be checked: of the 400 events"):
        checked((sent, [record | {"feature_set": "base@1+other"} for record in enriched]))
    with pytest.raises(SkewError, match="of the 0 events"):
        checked((sent, []))


def test_a_number_that_was_served_otherwise_is_named(log):
    sent, enriched = log
    place = next(place for place, record in sent.items() if record["exposure"])
    record = next(one for one in enriched if one["offset"] == place[1])
    numbers = np.frombuffer(record["numbers"], "<f4").copy()
    numbers[len(NUMBERS) + 0] += 1  # the first definition
    numbers[NUMBERS.index("item_ctr")] += 0.5
    record["numbers"] = numbers.tobytes()
    report = checked(log)
    assert dict(report.folded_again) == {"user_clicks_1h": 1, "item_ctr": 1} and dict(report.duckdb) == {"user_clicks_1h@1": 1}
    assert any("user_clicks_1h" in one and f"served 0:{place[1]}" in one for one in report.examples)


def test_a_read_at_another_place_is_found(log):
    sent, enriched = log
    later = [one for one in enriched if sent[0, one["offset"]]["exposure"] and one["features_sequence"] > 300]
    for one in later:
        one["features_sequence"] -= 250
    assert checked(log).mismatches > len(later)


def test_a_log_without_its_beginning_cannot_be_checked(log):
    sent, enriched = log
    with pytest.raises(SkewError, match=r"the first of 400 events that were folded are not in enriched any more"):
        checked((sent, enriched[7:]))
    del sent[0, 3]
    with pytest.raises(SkewError, match=r"the event at 0:3 is in enriched, and gone from interactions"):
        checked((sent, enriched))


def test_what_is_on_its_way_is_left_for_another_time(log):
    sent, enriched = log
    report = checked((sent, [one for one in enriched if one["folded"] not in (300, 350)]))
    assert report.mismatches == 0 and report.events == 300 and 40 < sum(report.checked.values()) < 80


def test_repeats_of_enriched_and_heartbeats_are_passed_over(log):
    sent, enriched = log
    report = checked((sent, [*enriched, *enriched[:50], {**enriched[0], "folded": -1}]))
    assert report.mismatches == 0 and report.events == 400


