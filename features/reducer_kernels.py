"""Reducers: what a feature keeps of the events that it counts, folded, read and merged in place. Free functions over flat memory.

A state is a span of 8-byte words, all zeros when nothing was folded, seen through three views of the same memory: f float64, u uint64 and
b uint8. Its first word is 1 + the newest event time folded, in milliseconds, 0 for none; the reducer's own words begin behind it, at `at`.
`p` float64[PARAMS] are the definition's numbers, as features/reducers.py lays them out. Times are milliseconds as float64 (exact to 2^53).
Every reducer has three functions, told apart by a code: fold(x, y, token, ts), read(ts) and merge(two states). What is read does not depend
on the order in which events were folded, but for rounding; `top_n` beyond its capacity and `variance` are the exceptions by more.
"""

from __future__ import annotations

import math

import numpy as np

from headrace.features.jit_kernels import inner

PARAMS = 6
TILED, DECAYED, RATIO_TILED, RATIO_DECAYED, MEAN, VARIANCE, LAST_N, FIRST_TIME, LAST_TIME, DISTINCT, TOP_N, LOOKUP, LOOKUP_ID = range(13)
TTL = 5  # the place in p of the time to live; each reducer has the places before it

_U = np.uint64
_NONE = np.uint64(0)


@inner
def _left(dt_ms, half_life_ms):
    """What is left of 1 after dt_ms; 1 for a time that goes backwards, and for a half-life of infinity."""
    return 1.0 if dt_ms <= 0.0 else 2.0 ** (-dt_ms / half_life_ms)


@inner
def _tile(ts, tile_ms):
    return math.floor(ts / tile_ms)


# A ring of tiles: p[0] milliseconds a tile, p[1] tiles. f[at]: 1 + the newest tile; then the sum of tile n at place n % tiles.


@inner
def _tiled_fold(f, at, tile_ms, tiles, x, ts):
    tile, newest, held = _tile(ts, tile_ms), int(f[at]) - 1, int(tiles)
    if tile > newest:
        for n in range(max(newest + 1, tile - held + 1), tile + 1):
            f[at + 1 + n % held] = 0.0
        f[at] = tile + 1
    elif tile <= newest - held:
        return  # out of the window already
    f[at + 1 + tile % held] += x


@inner
def _tiled_read(f, at, tile_ms, tiles, ts):
    newest, held, total = int(f[at]) - 1, int(tiles), 0.0
    for n in range(max(_tile(ts, tile_ms) - held + 1, newest - held + 1, 0), newest + 1):
        total += f[at + 1 + n % held]
    return total


@inner
def _tiled_merge(f, at, other, tile_ms, tiles):
    held, theirs = int(tiles), int(f[other]) - 1
    for n in range(max(theirs - held + 1, 0), theirs + 1):
        _tiled_fold(f, at, tile_ms, tiles, f[other + 1 + n % held], (n + 0.5) * tile_ms)


# A sum that halves: f[at] as of the newest time, which is kept before it.


@inner
def _decayed_fold(f, at, half_life_ms, newest, x, ts):
    if ts >= newest:
        f[at] = f[at] * _left(ts - newest, half_life_ms) + x
    else:
        f[at] += x * _left(newest - ts, half_life_ms)


@inner
def _decayed_merge(f, at, other, half_life_ms, newest, theirs):
    as_of = max(newest, theirs)
    f[at] = f[at] * _left(as_of - newest, half_life_ms) + f[other] * _left(as_of - theirs, half_life_ms)


# Mean and variance: weight, mean, sum of squared differences (West 1979; Chan, Golub, LeVeque 1983 to merge).


@inner
def _moments_add(f, at, weight, mean, squares):
    if weight <= 0.0:
        return
    total = f[at] + weight
    apart = mean - f[at + 1]
    f[at + 2] += squares + apart * apart * f[at] * weight / total
    f[at + 1] += apart * weight / total
    f[at] = total


@inner
def _moments_fold(f, at, half_life_ms, newest, x, ts):
    left = _left(ts - newest, half_life_ms)
    f[at] *= left
    f[at + 2] *= left
    _moments_add(f, at, _left(newest - ts, half_life_ms), x, 0.0)


@inner
def _moments_merge(f, at, other, half_life_ms, newest, theirs):
    as_of = max(newest, theirs)
    ours, left = _left(as_of - newest, half_life_ms), _left(as_of - theirs, half_life_ms)
    f[at] *= ours
    f[at + 2] *= ours
    _moments_add(f, at, f[other] * left, f[other + 1], f[other + 2] * left)


# The last tokens: p[0] of them as (token, 1 + its newest time), the newest first; a token stands once.


@inner
def _last_fold(f, u, at, kept, token, stamp):
    size = int(kept)
    place = size  # where the token stands, or the end
    for n in range(size):
        if u[at + 2 * n] == token:
            place = n
            break
    if place < size and f[at + 2 * place + 1] >= stamp:
        return
    if place == size:
        place = size - 1
        held = u[at + 2 * place]
        if held != _NONE and (f[at + 2 * place + 1] > stamp or (f[at + 2 * place + 1] == stamp and held > token)):
            return  # older than all that are kept
    while place > 0 and (u[at + 2 * place - 2] == _NONE or f[at + 2 * place - 1] < stamp
                         or (f[at + 2 * place - 1] == stamp and u[at + 2 * place - 2] < token)):
        u[at + 2 * place] = u[at + 2 * place - 2]
        f[at + 2 * place + 1] = f[at + 2 * place - 1]
        place -= 1
    u[at + 2 * place] = token
    f[at + 2 * place + 1] = stamp


# Distinct tokens: HyperLogLog (Flajolet et al. 2007) of 2^p[0] registers of a byte, small counts by linear counting.


@inner
def _spread(token):
    """MurmurHash3's finalizer: tokens of buckets and ids alike fill all bits."""
    x = (token ^ (token >> _U(33))) * _U(0xFF51AFD7ED558CCD)
    x = (x ^ (x >> _U(33))) * _U(0xC4CEB9FE1A85EC53)
    return x ^ (x >> _U(33))


@inner
def _distinct_fold(b, at, bits, token):
    hashed, width = _spread(token), int(bits)
    register, rest = int(hashed >> _U(64 - width)), hashed << _U(width)
    rank = 1
    while rank <= 64 - width and not rest >> _U(63):
        rest <<= _U(1)
        rank += 1
    b[8 * at + register] = max(int(b[8 * at + register]), rank)


_RANKS = 2.0 ** -np.arange(256.0)


@inner
def _distinct_read(f, b, at, bits):
    size, empty, total = 1 << int(bits), 0, 0.0
    for word in range(at, at + size // 8):
        if f[word] == 0.0:
            empty += 8
            total += 8.0
            continue
        for n in range(8 * word, 8 * word + 8):
            empty += b[n] == 0
            total += _RANKS[b[n]]
    alpha = 0.673 if size == 16 else 0.697 if size == 32 else 0.709 if size == 64 else 0.7213 / (1.0 + 1.079 / size)
    estimate = alpha * size * size / total
    return size * math.log(size / empty) if estimate <= 2.5 * size and empty else estimate


# The heaviest tokens: p[1] pairs of (token, decayed weight); a new one takes the lightest's place and weight (Metwally et al. 2005).


@inner
def _top_age(f, at, capacity, left):
    if left != 1.0:
        for n in range(int(capacity)):
            f[at + 2 * n + 1] *= left


@inner
def _top_add(f, u, at, capacity, token, weight):
    lightest = 0
    for n in range(int(capacity)):
        if u[at + 2 * n] == token:
            f[at + 2 * n + 1] += weight
            return
        if u[at + 2 * lightest] != _NONE and (u[at + 2 * n] == _NONE or f[at + 2 * n + 1] < f[at + 2 * lightest + 1]):
            lightest = n
    before = f[at + 2 * lightest + 1] if u[at + 2 * lightest] != _NONE else 0.0
    u[at + 2 * lightest] = token
    f[at + 2 * lightest + 1] = before + weight


@inner
def _top_read(f, u, at, capacity, ids):
    """The heaviest tokens into ids uint64[n], the heaviest first, of equal ones the greater token."""
    for place in range(len(ids)):
        best = -1
        for n in range(int(capacity)):
            token, taken = u[at + 2 * n], False
            for earlier in range(place):
                taken |= ids[earlier] == token
            if token == _NONE or taken:
                continue
            if best < 0 or f[at + 2 * n + 1] > f[at + 2 * best + 1] or (
                    f[at + 2 * n + 1] == f[at + 2 * best + 1] and token > u[at + 2 * best]):
                best = n
        if best < 0:
            return
        ids[place] = u[at + 2 * best]


@inner
def fold_one(code, f, u, b, at, p, x, y, token, ts):
    """Fold an event at `ts` into the state at `at`: x the number, y of a ratio what it is over, token uint64 of a reducer of tokens."""
    newest, own = f[at] - 1.0, at + 1
    if newest < 0.0:
        newest = ts
    if code == TILED:
        _tiled_fold(f, own, p[0], p[1], x, ts)
    elif code == DECAYED:
        _decayed_fold(f, own, p[0], newest, x, ts)
    elif code == RATIO_TILED:
        _tiled_fold(f, own, p[0], p[1], x, ts)
        _tiled_fold(f, own + 1 + int(p[1]), p[0], p[1], y, ts)
    elif code == RATIO_DECAYED:
        _decayed_fold(f, own, p[0], newest, x, ts)
        _decayed_fold(f, own + 1, p[0], newest, y, ts)
    elif code in (MEAN, VARIANCE):
        _moments_fold(f, own, p[0], newest, x, ts)
    elif code == LAST_N:
        _last_fold(f, u, own, p[0], token, ts + 1.0)
    elif code == FIRST_TIME:
        f[own] = ts + 1.0 if f[own] == 0.0 else min(f[own], ts + 1.0)
    elif code == DISTINCT:
        _distinct_fold(b, own, p[0], token)
    elif code == TOP_N:
        _top_age(f, own, p[1], _left(ts - newest, p[2]))
        _top_add(f, u, own, p[1], token, x * _left(newest - ts, p[2]))
    elif code == LOOKUP and (f[at] == 0.0 or ts > newest or (ts == newest and x > f[own])):
        f[own] = x
    f[at] = max(f[at], ts + 1.0)


@inner
def fold_ids(u, f, at, width, tokens, i, d, ts):
    """LOOKUP_ID: the tokens of event i for definition d, in uint64[n,D,m], stand in the state, up to its width, when it is the newest; of
    two at one time the greater first."""
    first = tokens[i, d, 0]
    if first != _NONE and (ts + 1.0 > f[at] or (ts + 1.0 == f[at] and first > u[at + 1])):
        for n in range(int(width)):
            u[at + 1 + n] = tokens[i, d, n] if n < tokens.shape[2] else _NONE
        f[at] = ts + 1.0


@inner
def expired(f, at, p, ts):
    """Whether nothing is in the state, or what is there is beyond its time to live at `ts`."""
    return f[at] == 0.0 or ts - (f[at] - 1.0) > p[TTL]


@inner
def read_number(code, f, b, at, p, ts):
    """The state as one number at `ts`, or at the newest time folded when that is later. Only of one that is not `expired`."""
    newest, own = f[at] - 1.0, at + 1
    ts = max(ts, newest)
    if code == TILED:
        return _tiled_read(f, own, p[0], p[1], ts)
    if code == DECAYED:
        return f[own] * _left(ts - newest, p[0])
    if code == RATIO_TILED:
        over = _tiled_read(f, own + 1 + int(p[1]), p[0], p[1], ts)
        return (_tiled_read(f, own, p[0], p[1], ts) + p[2] * p[3]) / (over + p[3])
    if code == RATIO_DECAYED:
        left = _left(ts - newest, p[0])
        return (f[own] * left + p[2] * p[3]) / (f[own + 1] * left + p[3])
    if code == MEAN:
        return f[own + 1]
    if code == VARIANCE:
        return f[own + 2] / f[own]
    if code == FIRST_TIME:
        return (ts - (f[own] - 1.0)) / 1000.0
    if code == LAST_TIME:
        return (ts - newest) / 1000.0
    if code == DISTINCT:
        return _distinct_read(f, b, own, p[0])
    return f[own]  # LOOKUP


@inner
def read_ids(code, f, u, at, p, ids):
    """The state as tokens, into ids uint64[width], which hold zeros. Only of one that is not `expired`."""
    own = at + 1
    if code == TOP_N:
        _top_read(f, u, own, p[1], ids)
        return
    step = 2 if code == LAST_N else 1
    for n in range(len(ids)):
        ids[n] = u[own + step * n]


@inner
def merge_one(code, f, u, b, at, other, p):
    """Put the state at `other` into the one at `at`: as if its events had been folded there."""
    if f[other] == 0.0:
        return
    fresh = f[at] == 0.0
    theirs = f[other] - 1.0
    newest, own, others = theirs if fresh else f[at] - 1.0, at + 1, other + 1
    if code == TILED:
        _tiled_merge(f, own, others, p[0], p[1])
    elif code == DECAYED:
        _decayed_merge(f, own, others, p[0], newest, theirs)
    elif code == RATIO_TILED:
        _tiled_merge(f, own, others, p[0], p[1])
        _tiled_merge(f, own + 1 + int(p[1]), others + 1 + int(p[1]), p[0], p[1])
    elif code == RATIO_DECAYED:
        _decayed_merge(f, own, others, p[0], newest, theirs)
        _decayed_merge(f, own + 1, others + 1, p[0], newest, theirs)
    elif code in (MEAN, VARIANCE):
        _moments_merge(f, own, others, p[0], newest, theirs)
    elif code == LAST_N:
        for n in range(int(p[0])):
            if u[others + 2 * n] != _NONE:
                _last_fold(f, u, own, p[0], u[others + 2 * n], f[others + 2 * n + 1])
    elif code == FIRST_TIME:
        f[own] = f[others] if fresh else min(f[own], f[others])
    elif code == DISTINCT:
        for n in range(8 * own, 8 * own + (1 << int(p[0]))):
            b[n] = max(b[n], b[n + 8 * (others - own)])
    elif code == TOP_N:
        as_of = max(newest, theirs)
        _top_age(f, own, p[1], _left(as_of - newest, p[2]))
        for n in range(int(p[1])):
            if u[others + 2 * n] != _NONE:
                _top_add(f, u, own, p[1], u[others + 2 * n], f[others + 2 * n + 1] * _left(as_of - theirs, p[2]))
    elif code == LOOKUP and (fresh or theirs > newest or (theirs == newest and f[others] > f[own])):
        f[own] = f[others]
    elif code == LOOKUP_ID and (fresh or theirs > newest or (theirs == newest and u[others] > u[own])):
        for n in range(int(p[0])):
            u[own + n] = u[others + n]
    f[at] = max(f[at], f[other])
