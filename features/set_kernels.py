"""Events into the states of a feature set, and out of them what a model sees. Rows lie one after the other in flat memory.

Three views of one memory are passed: f float64, u uint64, b uint8. starts int64[n,G,M] says where the rows of event i lie, group by group:
up to M rows of a group (an item of several tags has several), -1 for none. Definition d (of D) keeps its state in the rows of group[d],
at[d] words behind the row's start. Events are folded into all rows of the group; reading merges them, in the words from `scratch` on.
Lookups are folded before an event is frozen: what is known of an item at its exposure is in the exposure's sample.
Numba's cache looks at this file and at the types of the arguments, and would keep the code of an older reducer_kernels.py: so kernels that
are cached end with a default argument, which is part of its type by value: a number of that file.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import numba
import numpy as np

from headrace.features import reducer_kernels
from headrace.features.kernels import mix
from headrace.features.reducer_kernels import LOOKUP, LOOKUP_ID, TTL, expired, fold_ids, fold_one, merge_one, read_ids, read_number

_NONE = np.uint64(0)
_REDUCERS = zlib.crc32(Path(reducer_kernels.__file__).read_bytes())
NEWEST = 1  # the word of a row that is 1 + the newest event time folded into any of its states


@numba.njit
def _clear(f, at, words):
    f[at : at + words] = 0.0


@numba.njit
def _fold_state(code, f, u, b, at, words, width, p, x, y, tokens, ts):
    """Fold one event into one state, which begins anew when its time to live has passed. Nothing for an event older than that."""
    if f[at] != 0.0:
        newest = f[at] - 1.0
        if ts - newest > p[TTL]:
            _clear(f, at, words)
        elif newest - ts > p[TTL]:
            return
    if code == LOOKUP_ID:
        fold_ids(u, f, at, width, tokens, ts)
        return
    if tokens[0] == _NONE:
        fold_one(code, f, u, b, at, p, x, y, _NONE, ts)
        return
    for n in range(len(tokens)):
        if tokens[n] != _NONE:
            fold_one(code, f, u, b, at, p, x, y, tokens[n], ts)


@numba.njit
def fold_event(f, u, b, starts, group, at, words, width, code, p, lookups, x, y, tokens, ts):
    """Fold an event at ts into the rows at starts int64[G,M], into the `lookups` or into all others: for each definition x, y float64[D]
    (NaN: it does not count the event; y of a ratio NaN: not in what it is over), tokens uint64[D,T], 0 for none."""
    for d in range(len(code)):
        if (math.isnan(x[d]) and math.isnan(y[d])) or (code[d] >= LOOKUP) != lookups:
            continue
        number, over = 0.0 if math.isnan(x[d]) else x[d], 0.0 if math.isnan(y[d]) else y[d]
        for m in range(starts.shape[1]):
            start = starts[group[d], m]
            if start >= 0:
                _fold_state(code[d], f, u, b, start + at[d], words[d], width[d], p[d], number, over, tokens[d], ts)
                f[start + NEWEST] = max(f[start + NEWEST], ts + 1.0)


@numba.njit
def read_event(f, u, b, starts, group, at, words, width, code, p, default, column, ts, scratch, numbers, ids):
    """What the rows at starts int64[G,M] say at ts: numbers float32[N] and ids uint64[I], each definition's from column[d] on."""
    for d in range(len(code)):
        where, held = -1, 0
        for m in range(starts.shape[1]):
            start = starts[group[d], m]
            if start < 0 or expired(f, start + at[d], p[d], ts):
                continue
            held += 1
            if held == 1:
                where = start + at[d]
                continue
            if held == 2:
                f[scratch : scratch + words[d]] = f[where : where + words[d]]
                where = scratch
            merge_one(code[d], f, u, b, scratch, start + at[d], p[d])
        if width[d] == 0:
            numbers[column[d]] = np.float32(default[d] if where < 0 else read_number(code[d], f, b, where, p[d], ts))
        else:
            ids[column[d] : column[d] + width[d]] = _NONE
            if where >= 0:
                read_ids(code[d], f, u, where, p[d], ids[column[d] : column[d] + width[d]])


@numba.njit(cache=True, nogil=True)
def freeze_and_fold_groups(f, u, b, starts, group, at, words, width, code, p, default, column, scratch, x, y, tokens, ts_ms, frozen, folded,
                           numbers, ids, reducers_number=_REDUCERS):
    """Event by event: what it sees (frozen uint8[n]), then the event put in (folded uint8[n]). starts int64[n,G,M], x, y float64[n,D],
    tokens uint64[n,D,T], ts_ms int64[n]; numbers float32[n,N] and ids uint64[n,I] are written for what is frozen."""
    for i in range(len(ts_ms)):
        ts = float(ts_ms[i])
        if folded[i]:
            fold_event(f, u, b, starts[i], group, at, words, width, code, p, True, x[i], y[i], tokens[i], ts)
        if frozen[i]:
            read_event(f, u, b, starts[i], group, at, words, width, code, p, default, column, ts, scratch, numbers[i], ids[i])
        if folded[i]:
            fold_event(f, u, b, starts[i], group, at, words, width, code, p, False, x[i], y[i], tokens[i], ts)


@numba.njit(cache=True, nogil=True)
def fold_attributes(f, u, starts, group, at, width, tokens, ts_ms, folded, out, reducers_number=_REDUCERS):
    """Event by event: the lookups of columns take what it carries (tokens uint64[n,A,T]; folded uint8[n]), and say what holds then: into
    out uint64[n,A,VALUES], which holds zeros. starts int64[n,G,M]; group, at, width int64[A]."""
    for i in range(len(ts_ms)):
        for a in range(len(at)):
            start = starts[i, group[a], 0]
            if start < 0:
                continue
            if folded[i] and tokens[i, a, 0] != _NONE:
                fold_ids(u, f, start + at[a], width[a], tokens[i, a], float(ts_ms[i]))
                f[start + NEWEST] = max(f[start + NEWEST], float(ts_ms[i]) + 1.0)
            for n in range(width[a]):
                out[i, a, n] = u[start + at[a] + 1 + n]


@numba.njit(cache=True, nogil=True)
def mix_pairs(a, b, out):
    """Row keys of pairs of tokens uint64[n]; 0 where one of them is 0."""
    for i in range(len(a)):
        if a[i] == _NONE or b[i] == _NONE:
            out[i] = _NONE
            continue
        out[i] = mix(a[i], b[i])


@numba.njit(cache=True, nogil=True)
def read_groups(f, u, b, starts, group, at, words, width, code, p, default, column, scratch, ts_ms, numbers, ids,
                reducers_number=_REDUCERS):
    """What n pairs see at ts_ms int64[n]; as in `freeze_and_fold_groups`."""
    for i in range(len(ts_ms)):
        read_event(f, u, b, starts[i], group, at, words, width, code, p, default, column, float(ts_ms[i]), scratch, numbers[i], ids[i])


@numba.njit(cache=True, nogil=True)
def merge_rows(f, u, b, into, other, at, words, code, p, reducers_number=_REDUCERS):
    """Put the rows that start at other int64[n] into those at into int64[n], the definitions of one group: what a backfill has folded of
    the past into what the stream has folded since."""
    for i in range(len(into)):
        for d in range(len(code)):
            merge_one(code[d], f, u, b, into[i] + at[d], other[i] + at[d], p[d])
        f[into[i] + NEWEST] = max(f[into[i] + NEWEST], f[other[i] + NEWEST])
