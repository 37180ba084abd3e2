"""The stream against SQL over the log: two ways to the same numbers that share no code but the definitions."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from headrace.features import definition_files
from headrace.features.definitions import Condition
from headrace.features.feature_set import FeatureSet
from headrace.recompute.engine import Query, Recomputed
from headrace.recompute.statements import field_of
from headrace.schemas.hashing import feature_key
from tests.features.events import T0, shard_at
from tests.features.test_groups import SHOP, assert_same, fold, interactions, told
from tests.naive import bucket_of

HERE = Path(__file__).parent


def as_slots(said, definitions):
    """Texts of ids as the keys of slots; how many different ones there are of `distinct`."""
    return {one.name: len(said[one.identity]) if one.reducer == "distinct" else
            [bucket_of(feature_key(one.name, ""), feature_key(field_of(one), text)) for text in said[one.identity]]
            if isinstance(said[one.identity], list) else said[one.identity] for one in definitions}


@pytest.fixture(scope="module", params=[(1, 0.0), (2, 0.0), (3, 0.0), (4, 300.0), (5, 1500.0)])
def folded(request, tmp_path_factory):
    seed, idle_s = request.param
    records = interactions(600, seed, late=0.2)
    shard = shard_at(tmp_path_factory.mktemp("shard"), feature_set=SHOP, idle_s=idle_s)
    frozen = fold(shard, records)
    made = Recomputed(SHOP.definitions, list(zip(frozen.sequence.tolist(), records, strict=True)), idle_s)
    yield records, shard, frozen, made
    made.close()
    shard.store.close()


def test_what_was_frozen_is_what_the_log_says(folded):
    records, _, frozen, recomputed = folded
    at = [i for i, record in enumerate(records) if record["action"] == "impression"]
    said = recomputed.seen([Query(int(frozen.sequence[i]), True, records[i]["ts_ms"], records[i]["user_id"], records[i]["item_id"],
                                  records[i]["scene"], records[i]["context"]) for i in at])
    assert len(at) > 80
    for i, one in zip(at, said, strict=True):
        assert_same(told([column[i] for column in frozen[:3]], SHOP), as_slots(one, SHOP.definitions), records[i])


def test_what_is_served_is_what_the_log_says(folded):
    _, shard, _, recomputed = folded
    rng = np.random.default_rng(1)
    pairs = [(f"u{rng.integers(7)}", f"i{rng.integers(13)}", str(rng.choice(["phone", "tablet", "tv"])), int(rng.integers(20_000_000)))
             for _ in range(60)]
    moment = np.array([[feature_key("device", device), feature_key("scene", "feed")] for _, _, device, _ in pairs], np.uint64)
    read = shard.assemble(np.array([feature_key("user_id", user) for user, *_ in pairs], np.uint64),
                          np.array([feature_key("item_id", item) for _, item, *_ in pairs], np.uint64), np.zeros((60, 4), np.uint64),
                          np.array([T0 + later for *_, later in pairs]), moment)
    said = recomputed.seen([Query(shard.sequence, False, T0 + later, user, item, "feed", {"device": device})
                            for user, item, device, later in pairs])
    for i, one in enumerate(said):
        assert_same(told([column[i] for column in read], SHOP), as_slots(one, SHOP.definitions), pairs[i])


def test_a_feature_that_is_computed_otherwise_is_found(folded):
    """What the check is for: one definition read as another."""
    records, _, frozen, right = folded
    wrong = [dataclasses.replace(one, where=Condition(actions=("click",))) if one.name == "user_clicks_1h" else one
             for one in SHOP.definitions]
    recomputed = Recomputed(wrong, list(zip(frozen.sequence.tolist(), records, strict=True)), right.idle_s)
    at = [i for i, record in enumerate(records) if record["action"] == "impression"]
    said = recomputed.seen([Query(int(frozen.sequence[i]), True, records[i]["ts_ms"], records[i]["user_id"], records[i]["item_id"],
                                  records[i]["scene"], records[i]["context"]) for i in at])
    recomputed.close()
    apart = {name for i, one in zip(at, said, strict=True)
             for name, value in as_slots(one, wrong).items() if name != "item_users"
             and told([column[i] for column in frozen[:3]], SHOP)[name] != pytest.approx(value, rel=1e-4, abs=1e-4)}
    assert apart == {"user_clicks_1h"}


def test_nothing_folded_says_the_defaults():
    small = FeatureSet.of(definition_files.texts([HERE.parents[1] / "features" / "shop.toml"]))
    recomputed = Recomputed(small.definitions, [(0, interactions(1, 1)[0])])
    said, = recomputed.seen([Query(0, False, T0, "nobody", "nothing", "", {})])
    recomputed.close()
    assert (said["item_ctr_2h@1"], said["item_dwell_mean@1"], said["user_genres@1"], said["user_first@1"]) == (0.1, -1.0, [], -1.0)
