"""Freeze and fold: what a user and an item are at an event, then the event put into them. Free functions over structured arrays.

`assemble_one` is the only code that turns rows into a model's input: training (freezing) and serving call the same, so they agree.
Numba's cache looks at this file and at the types of the arguments, and would keep the constants of an older layout.py. So only kernels that
are called are cached, and all end with a default argument, which is part of its type by value: KERNELS, a number of the layout and of
reducer_kernels.py. One number for all: Numba 0.68 takes every omitted integer of a process for the first one that it met, and goes by
its slow way (1 ms a call) for kernels of another.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import numpy as np

from headrace.features import layout, reducer_kernels
from headrace.features.jit_kernels import inner, kernel
from headrace.features.layout import (
    BIAS,
    CLICK,
    CONTEXT,
    CONTEXT_FIELDS,
    EMPTY_KEYS,
    FOLDED,
    FOLLOW,
    IMPRESSION,
    ITEM_AGE,
    ITEM_COUNT,
    ITEM_FIELD,
    ITEM_FIELDS,
    ITEM_ID,
    ITEM_LIFT,
    LAST_CLICK,
    LAST_CLICK_SEED,
    LAST_CLICK_VALUE,
    LAST_CLICKS,
    LIFT_MAX,
    LIFT_SCALE,
    LIFT_STEP,
    LIFT_WEIGHT,
    LOG_BUCKETS,
    PRIOR_RATIO,
    PRIOR_WEIGHT,
    RECENCY_MID,
    RECENCY_SPAN,
    RETRY,
    RING,
    ROW_VERSION,
    STREAK_STEP,
    USER_COUNT,
    USER_FIELD,
    USER_FIELDS,
    USER_ID,
    USER_LIFT,
    USER_RECENCY,
    USER_STREAK,
    F,
    K,
)

_ZERO = np.uint64(0)
_BIAS_KEY = np.uint64(EMPTY_KEYS[BIAS])
KERNELS = zlib.crc32(repr(sorted((name, value) for name, value in vars(layout).items() if name.isupper())).encode()
                     + Path(reducer_kernels.__file__).read_bytes())


@inner
def mix(seed, value):
    """uint64 of (seed, value): splitmix64's finish. The key of bucket `value` in the slot whose empty key is `seed`."""
    x = seed ^ ((value + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15))
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@inner
def decay(from_ms, to_ms, half_life_ms):
    """Factor of a count as of from_ms when it is read at to_ms; never above 1: time that goes backwards decays nothing."""
    return 1.0 if to_ms <= from_ms else 2.0 ** (-(to_ms - from_ms) / half_life_ms)


@inner
def ratio_of(clicks, impressions, prior):
    """Clicks per impression, drawn towards `prior` as if PRIOR_WEIGHT impressions had shown it; within 0 and 1."""
    return min(1.0, (clicks + PRIOR_WEIGHT * prior) / (impressions + PRIOR_WEIGHT))


@inner
def prior_of(totals):
    """Clicks per impression of the shard, from totals int64[2] (impressions, clicks): what is expected of whom nothing is known."""
    return ratio_of(float(totals[1]), float(totals[0]), PRIOR_RATIO)


@inner
def rate_of(item_row, prior):
    """What share of an item's impressions is clicked, since it was first seen."""
    return ratio_of(float(item_row.clicks_total), float(item_row.impressions_total), prior)


@inner
def within(x, bound):
    """`x`, at most `bound` away from 0."""
    return max(-bound, min(bound, x))


@inner
def log_odds(ratio):
    """Finite for 0 and 1 too."""
    held = max(1e-6, min(1.0 - 1e-6, ratio))
    return math.log(held / (1.0 - held))


@inner
def chance(odds):
    """The probability of log-odds."""
    return 1.0 / (1.0 + math.exp(-odds))


@inner
def log_bucket(amount):
    """0 to LOG_BUCKETS - 1: the whole part of log2(1 + amount)."""
    return np.uint64(min(LOG_BUCKETS - 1, int(math.log2(1.0 + max(0.0, amount)))))


@inner
def _put(keys, values, slot, key, value=1.0):
    if key != _ZERO:
        keys[slot] = key
        values[slot] = np.float32(value)


@inner
def assemble_one(user_row, item_row, user, item, context, ts_ms, half_life_ms, prior, keys, values, numbers):
    """Write a sample: keys uint64[F], values float32[F], numbers float32[K], the first of each when there is room for more, of a user row
    and an item row at ts_ms; `prior` as prior_of.

    `user` or `item` 0: none, its side stays empty. A row of zeros is a user or item never seen.
    """
    for n in range(F):
        keys[n] = EMPTY_KEYS[n]
        values[n] = 0.0
    for n in range(K):
        numbers[n] = 0.0
    _put(keys, values, BIAS, _BIAS_KEY)
    for n in range(CONTEXT_FIELDS):
        _put(keys, values, CONTEXT + n, context[n])
    if user != _ZERO:
        _user_side(user_row, user, ts_ms, half_life_ms, prior, keys, values, numbers)
    if item != _ZERO:
        _item_side(item_row, item, ts_ms, half_life_ms, prior, keys, values, numbers)


@inner
def _user_side(row, user, ts_ms, half_life_ms, prior, keys, values, numbers):
    _put(keys, values, USER_ID, user)
    for n in range(USER_FIELDS):
        _put(keys, values, USER_FIELD + n, row.fields[n])
    factor = decay(row.decayed_ts_ms, ts_ms, half_life_ms)
    impressions, clicks = row.impressions * factor, row.clicks * factor
    ratio = ratio_of(clicks, impressions, prior)
    values[USER_LIFT] = np.float32(LIFT_SCALE * row.lift)
    values[USER_STREAK] = np.float32(row.streak)
    _put(keys, values, USER_COUNT, mix(EMPTY_KEYS[USER_COUNT], log_bucket(float(row.impressions_total))))
    recency_s = -1.0
    if row.events_total > 0:
        recency_s = max(0.0, (ts_ms - row.last_ts_ms) / 1000.0)
        values[USER_RECENCY] = np.float32((math.log2(1.0 + recency_s) - RECENCY_MID) / RECENCY_SPAN)
    for n in range(LAST_CLICKS):
        clicked = row.clicked[(int(row.clicked_next) - 1 - n) % RING]
        if clicked != _ZERO:
            _put(keys, values, LAST_CLICK + n, mix(LAST_CLICK_SEED, clicked), LAST_CLICK_VALUE)
    numbers[0], numbers[1], numbers[2], numbers[3] = impressions, clicks, ratio, recency_s


@inner
def _item_side(row, item, ts_ms, half_life_ms, prior, keys, values, numbers):
    _put(keys, values, ITEM_ID, item)
    for n in range(ITEM_FIELDS):
        _put(keys, values, ITEM_FIELD + n, row.fields[n])
    factor = decay(row.decayed_ts_ms, ts_ms, half_life_ms)
    impressions, clicks = row.impressions * factor, row.clicks * factor
    ratio = ratio_of(clicks, impressions, prior)
    if row.events_total > 0:
        values[ITEM_LIFT] = np.float32(within(log_odds(rate_of(row, prior)) - log_odds(prior), LIFT_MAX))
    _put(keys, values, ITEM_COUNT, mix(EMPTY_KEYS[ITEM_COUNT], log_bucket(float(row.impressions_total))))
    age_s = -1.0
    if row.events_total > 0:
        age_s = max(0.0, (ts_ms - row.first_ts_ms) / 1000.0)
        _put(keys, values, ITEM_AGE, mix(EMPTY_KEYS[ITEM_AGE], log_bucket(age_s)))
    numbers[4], numbers[5], numbers[6], numbers[7] = impressions, clicks, ratio, age_s


@inner
def _forgotten(row, ts_ms, idle_ms):
    """Whether a row was without an event for so long before ts_ms that it is as none."""
    return row.version != 0 and ts_ms - row.last_ts_ms > idle_ms


@kernel
def assemble(users, items, user_index, item_index, user, item, context, ts_ms, half_life_ms, idle_ms, totals, keys, values, numbers,
             kernels_number=KERNELS):
    """`assemble_one` for m pairs. users USER_ROW[u], items ITEM_ROW[i], *_index int64[m] into them, user and item uint64[m], totals as in
    prior_of. A row that was idle for more than idle_ms is read as the blank one."""
    prior = prior_of(totals)
    for i in range(len(ts_ms)):
        user_at = 0 if _forgotten(users[user_index[i]], ts_ms[i], idle_ms) else user_index[i]
        item_at = 0 if _forgotten(items[item_index[i]], ts_ms[i], idle_ms) else item_index[i]
        assemble_one(users[user_at], items[item_at], user[i], item[i], context[i], ts_ms[i], half_life_ms, prior,
                     keys[i], values[i], numbers[i])


@inner
def _is_retry(row, event):
    """Whether the event is among the user's last. Its cause is another one: an applied cause never comes here."""
    if event == _ZERO:
        return False
    for n in range(RING):  # noqa: SIM110 (Numba has no any)
        if row.event[n] == event:
            return True
    return False


@inner
def _count(row, impression, click, ts_ms, half_life_ms):
    """Add to the decayed counts; a late event adds what would be left of it."""
    added = 1.0
    if ts_ms >= row.decayed_ts_ms:
        factor = decay(row.decayed_ts_ms, ts_ms, half_life_ms)
        row.impressions *= factor
        row.clicks *= factor
        row.decayed_ts_ms = ts_ms
    else:
        added = decay(ts_ms, row.decayed_ts_ms, half_life_ms)
    if impression:
        row.impressions += added
        row.impressions_total += 1
    if click:
        row.clicks += added
        row.clicks_total += 1
    row.events_total += 1
    row.last_ts_ms = max(row.last_ts_ms, ts_ms)


@inner
def _compare(row, rate, impression, click, ts_ms, half_life_ms):
    """Move the user's two offsets by what an item clicked at `rate` let expect and what came: one step of online logistic regression each,
    so a click raises both, always. Before _count moves the time."""
    odds = log_odds(rate)
    # With this one, as much of it as _count will add: its click steps as far.
    seen = row.impressions * decay(row.decayed_ts_ms, ts_ms, half_life_ms) + impression * decay(ts_ms, row.decayed_ts_ms, half_life_ms)
    lift_step = LIFT_STEP / (LIFT_WEIGHT + seen)
    if impression:
        row.lift -= lift_step * chance(odds + row.lift)
        row.streak -= STREAK_STEP * chance(odds + row.streak)
    if click:
        row.lift += lift_step
        row.streak += STREAK_STEP
    row.lift = within(row.lift, LIFT_MAX)
    row.streak = within(row.streak, LIFT_MAX)


@inner
def _remember(row, item, impression, click, event):
    if impression and row.recent[(int(row.recent_next) - 1) % RING] != item:
        row.recent[row.recent_next] = item
        row.recent_next = (row.recent_next + 1) % RING
    if click and row.clicked[(int(row.clicked_next) - 1) % RING] != item:
        row.clicked[row.clicked_next] = item
        row.clicked_next = (row.clicked_next + 1) % RING
    if event != _ZERO:
        row.event[row.event_next] = event
        row.event_next = (row.event_next + 1) % RING


@inner
def _describe(row, fields):
    """Fields of a user or item are what the newest event that names any says."""
    named = False
    for n in range(len(fields)):
        named |= fields[n] != _ZERO
    if named:
        for n in range(len(fields)):
            row.fields[n] = fields[n]


@inner
def _clear(words):
    for n in range(len(words)):
        words[n] = _ZERO


@kernel
def freeze_and_fold(users, items, user_words, item_words, user_index, item_index, ts_ms, action, user, item, event,
                    user_fields, item_fields, context, served, half_life_ms, idle_ms, totals, sequence_now, keys, values, numbers,
                    sequence, status, kernels_number=KERNELS):
    """Event by event: answer a retry, begin a row anew that was idle for more than idle_ms, take the event's fields, freeze an impression,
    fold. Returns (the sequence after: events folded ever,
    how many were folded behind a newer event of their user).

    users USER_ROW[u], items ITEM_ROW[i] and totals int64[2] (see prior_of) are changed in place; *_words uint64[u or i,w] are the same
    memory; *_index int64[n] into the rows. Written:
    keys uint64[n,F], values float32[n,F], numbers float32[n,K] (zeros unless an impression that is not served is frozen), sequence
    int64[n] before the event, status uint8[n].
    """
    late = 0
    for i in range(len(ts_ms)):
        user_row, item_row = users[user_index[i]], items[item_index[i]]
        sequence[i] = sequence_now
        if _is_retry(user_row, event[i]):
            status[i] = RETRY
            continue
        status[i] = FOLDED
        if _forgotten(user_row, ts_ms[i], idle_ms):
            begun = user_row.begun + 1
            _clear(user_words[user_index[i]])
            user_row.begun = begun
        if _forgotten(item_row, ts_ms[i], idle_ms):
            _clear(item_words[item_index[i]])
        _describe(user_row, user_fields[i])
        _describe(item_row, item_fields[i])
        impression = action[i] == IMPRESSION
        click = CLICK <= action[i] <= FOLLOW
        prior = prior_of(totals)
        rate = rate_of(item_row, prior)
        if impression and served[i] == 0:
            assemble_one(user_row, item_row, user[i], item[i], context[i], ts_ms[i], half_life_ms, prior, keys[i], values[i], numbers[i])
        if item_row.events_total == 0 or ts_ms[i] < item_row.first_ts_ms:
            item_row.first_ts_ms = ts_ms[i]
        late += ts_ms[i] < user_row.last_ts_ms
        user_row.version = ROW_VERSION
        item_row.version = ROW_VERSION
        _compare(user_row, rate, impression, click, ts_ms[i], half_life_ms)
        _count(user_row, impression, click, ts_ms[i], half_life_ms)
        _count(item_row, impression, click, ts_ms[i], half_life_ms)
        totals[0] += impression
        totals[1] += click
        _remember(user_row, item[i], impression, click, event[i])
        sequence_now += 1
    return sequence_now, late


assert EMPTY_KEYS.shape == (F,)
