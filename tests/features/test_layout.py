"""The layout is a contract: slots, sides, keys that never change."""

from __future__ import annotations

import numpy as np

from headrace.features import kernels
from headrace.features.layout import (
    ACTION_CODES,
    EMPTY_KEYS,
    EVENT_COLUMNS,
    FEATURE_SET,
    LAST_CLICK_SEED,
    LOG_BUCKETS,
    NUMBERS,
    SIDE,
    SLOTS,
    F,
    K,
)
from headrace.schemas.hashing import feature_key
from tests import naive


def test_widths():
    assert (FEATURE_SET, F, K) == ("base@1", 27, 8)
    assert len(set(SLOTS)) == F == len(SIDE) == len(EMPTY_KEYS)
    assert len(NUMBERS) == K
    assert EVENT_COLUMNS["user_fields"][1] == (None, 4) and EVENT_COLUMNS["item_fields"][1] == (None, 6)


def test_sides():
    side = dict(zip(SLOTS, SIDE.tolist(), strict=True))
    assert side["bias"] == side["context.3"] == 0
    assert {side[name] for name in ("user_id", "user.0", "user_lift", "user_streak", "user_count", "user_recency", "last_click.2")} == {1}
    assert {side[name] for name in ("item_id", "item.5", "item_lift", "item_count", "item_age")} == {2}


def test_actions():
    assert ACTION_CODES == {"impression": 1, "click": 2, "like": 3, "repost": 4, "comment": 5, "follow": 6, "dwell": 7, "hide": 8}


def test_keys_of_buckets_never_meet():
    seeds = [*(np.uint64(key) for key in EMPTY_KEYS), LAST_CLICK_SEED]
    keys = [int(kernels.mix(seed, np.uint64(n))) for seed in seeds for n in range(LOG_BUCKETS)]
    keys += [int(key) for key in EMPTY_KEYS]
    assert len(set(keys)) == len(keys)


def test_mix_is_the_twins():
    for number in (0, 1, 19, 1 << 63, (1 << 64) - 1):
        seed = np.uint64(feature_key("user_ctr", ""))
        assert int(kernels.mix(seed, np.uint64(number))) == naive.bucket("user_ctr", number)
    assert naive.bucket("user_ctr", 3) == 4232539977516844133  # stored models hold it


def test_buckets():
    assert [int(kernels.log_bucket(float(x))) for x in (-1, 0, 1, 2, 3, 7, 1e30)] == [0, 0, 1, 1, 2, 3, 63]


def test_rates():
    assert kernels.ratio_of(0.0, 0.0, 0.3) == 0.3 and kernels.ratio_of(10.0, 0.0, 0.3) == 1.0 and kernels.ratio_of(1.0, 5.0, 0.2) == 0.2
    assert kernels.prior_of(np.array([0, 0])) == 0.1 and kernels.prior_of(np.array([5, 5])) == 0.55
    assert kernels.log_odds(0.5) == 0 and -14 < kernels.log_odds(0.0) < -13 and 13 < kernels.log_odds(1.0) < 14
    assert [kernels.within(x, 1.0) for x in (-3.0, 0.5, 3.0)] == [-1.0, 0.5, 1.0]


def test_decay_never_grows():
    assert kernels.decay(1000, 2000, 1000.0) == 0.5
    assert kernels.decay(2000, 1000, 1000.0) == 1.0
    assert kernels.decay(0, 4_000_000_000_000, 1000.0) == 0.0
