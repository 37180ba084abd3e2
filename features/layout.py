"""The feature set base@1: slots of the model's input, numbers beside them, rows as they lie in the store.

Every slot always has a key. A slot without a value has the key feature_key(slot, "") and the value 0, so a sample has F keys. The lifts,
the streak and the recency are numbers: one key each, feature_key(slot, ""), and a value around 0.
"""

from __future__ import annotations

import numpy as np

from headrace.schemas.hashing import feature_key

FEATURE_SET = "base@1"
ROW_VERSION = 4

USER_FIELDS, ITEM_FIELDS, CONTEXT_FIELDS, LAST_CLICKS = 4, 6, 4, 3
RING = 64

SLOTS: tuple[str, ...] = (
    "bias", "user_id", "item_id",
    *(f"user.{n}" for n in range(USER_FIELDS)), *(f"item.{n}" for n in range(ITEM_FIELDS)),
    *(f"context.{n}" for n in range(CONTEXT_FIELDS)),
    "user_lift", "user_streak", "user_count", "user_recency", "item_lift", "item_count", "item_age",
    *(f"last_click.{n}" for n in range(LAST_CLICKS)))
F = len(SLOTS)
BIAS, USER_ID, ITEM_ID, USER_FIELD, ITEM_FIELD, CONTEXT = (SLOTS.index(name) for name in (
    "bias", "user_id", "item_id", "user.0", "item.0", "context.0"))
USER_LIFT, USER_STREAK, USER_COUNT, USER_RECENCY, ITEM_LIFT, ITEM_COUNT, ITEM_AGE, LAST_CLICK = (SLOTS.index(name) for name in (
    "user_lift", "user_streak", "user_count", "user_recency", "item_lift", "item_count", "item_age", "last_click.0"))

_USER_SIDE = ("user_id", "user.", "user_", "last_click.")
_ITEM_SIDE = ("item_id", "item.", "item_")
SIDE = np.array([1 if name.startswith(_USER_SIDE) else 2 if name.startswith(_ITEM_SIDE) else 0 for name in SLOTS], np.uint8)
SIDE.setflags(write=False)

NUMBERS: tuple[str, ...] = (
    "user_impressions", "user_clicks", "user_ctr", "user_recency_s", "item_impressions", "item_clicks", "item_ctr", "item_age_s")
"""Decayed counts, smoothed ratios of 0 to 1, seconds; user_recency_s and item_age_s are -1 for a user or item never seen."""
K = len(NUMBERS)

EMPTY_KEYS = np.array([feature_key(name, "") for name in SLOTS], np.uint64)
"""uint64[F]: the key of each slot when it has no value; the seed of the keys of its buckets too."""
EMPTY_KEYS.setflags(write=False)
LAST_CLICK_SEED = np.uint64(feature_key("last_click", ""))  # one field for the three: where in the list a click stands does not matter

LOG_BUCKETS = 64
PRIOR_RATIO = 0.1  # before the shard has seen anything; then clicks per impression of all it has seen
PRIOR_WEIGHT = 5.0  # impressions that the prior counts for
STREAK_STEP = 1.0  # of the user's offset that follows the last impressions
LIFT_STEP, LIFT_WEIGHT = 8.0, 5.0  # of the offset over days: LIFT_STEP / (LIFT_WEIGHT + impressions)
LIFT_SCALE = 2.0  # AdaGrad steps as far for every slot, so scale is speed
RECENCY_MID, RECENCY_SPAN = 8.0, 4.0  # log2 of seconds: about 0 at four minutes, 1 at an hour
LIFT_MAX = 4.0
LAST_CLICK_VALUE = 0.125  # below 1: such keys are rare, and at 1 their first steps cost more than they teach

ACTIONS = ("impression", "click", "like", "repost", "comment", "follow", "dwell", "hide")
"""Codes are 1-based: IMPRESSION is 1; every other action is OTHER."""
ACTION_CODES = {name: code for code, name in enumerate(ACTIONS, 1)}
IMPRESSION, CLICK, FOLLOW = ACTION_CODES["impression"], ACTION_CODES["click"], ACTION_CODES["follow"]
OTHER = len(ACTIONS) + 1
# click, like, repost, comment and follow (CLICK..FOLLOW) are positive: they count as clicks in ratios

USER_ROW = np.dtype([
    ("version", "u1"), ("recent_next", "u1"), ("clicked_next", "u1"), ("event_next", "u1"),
    ("begun", "<u4"),  # how often it began anew
    ("impressions", "<f8"), ("clicks", "<f8"),  # decayed, as of decayed_ts_ms
    ("lift", "<f8"), ("streak", "<f8"),  # log-odds above those of the items shown: over days, over the last impressions
    ("decayed_ts_ms", "<i8"), ("last_ts_ms", "<i8"),
    ("impressions_total", "<i8"), ("clicks_total", "<i8"), ("events_total", "<i8"),
    ("fields", "<u8", (USER_FIELDS,)),
    ("recent", "<u8", (RING,)), ("clicked", "<u8", (RING,)),  # item keys; NAME_next is where the next one goes
    ("event", "<u8", (RING,))])
"""A user: counts, fields, the last items seen and clicked, and the last events (how a client's retry is known)."""

ITEM_ROW = np.dtype([
    ("version", "u1"), ("spare", "u1", 7),
    ("impressions", "<f8"), ("clicks", "<f8"),
    ("decayed_ts_ms", "<i8"), ("first_ts_ms", "<i8"), ("last_ts_ms", "<i8"),
    ("impressions_total", "<i8"), ("clicks_total", "<i8"), ("events_total", "<i8"),
    ("fields", "<u8", (ITEM_FIELDS,))])


def now(row: bytes, dtype: np.dtype) -> bytes:
    """A row of users or items as it lies in the store, of this version or of 3, in which a user's had the causes of its last events behind
    it. Raises AssertionError for another."""
    assert row[0] in (ROW_VERSION, 3), f"a row of version {row[0]}; this code reads {ROW_VERSION}"
    return row if row[0] == ROW_VERSION else bytes([ROW_VERSION]) + row[1 : dtype.itemsize]


NEVER_MS = 1 << 62
"""What a row may be idle when it is never forgotten."""

EVENT_COLUMNS: dict[str, tuple[str, tuple[int | None, ...]]] = {
    "ts_ms": ("int64", (None,)), "action": ("uint8", (None,)), "user": ("uint64", (None,)), "item": ("uint64", (None,)),
    "event": ("uint64", (None,)), "value": ("float32", (None,)), "user_fields": ("uint64", (None, USER_FIELDS)),
    "item_fields": ("uint64", (None, ITEM_FIELDS)), "context": ("uint64", (None, CONTEXT_FIELDS)), "served": ("uint8", (None,))}
"""Dtype and shape of each array of events, as they travel to `freeze_and_fold`."""

FOLDED, REPEATED, RETRY = 0, 1, 2
"""Status of an event: folded now; this cause was answered before; its event was folded under another cause."""
