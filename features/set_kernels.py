"""Events into the states of a feature set, and out of them what a model sees. Rows lie one after the other in flat memory.

Three views of one memory are passed: f float64, u uint64, b uint8. starts int64[n,G,M] says where the rows of event i lie, group by group:
up to M rows of a group (an item of several tags has several), -1 for none. Definition d (of D) keeps its state in the rows of group[d],
at[d] words behind the row's start. Events are folded into all rows of the group; reading merges them, in the words from `scratch` on.
Lookups are folded before an event is frozen: what is known of an item at its exposure is in the exposure's sample.
Numba's cache would keep the code of an older reducer_kernels.py: so kernels that are cached end with KERNELS (kernels.py).
"""

from __future__ import annotations

import math

import numpy as np

from headrace.features.jit_kernels import inner, kernel
from headrace.features.kernels import KERNELS, mix
from headrace.features.reducer_kernels import LOOKUP, LOOKUP_ID, TTL, expired, fold_ids, fold_one, merge_one, read_ids, read_number

_NONE = np.uint64(0)
NEWEST = 1  # the word of a row that is 1 + the newest event time folded into any of its states


@inner
def _begins(f, at, words, ttl_ms, ts):
    """Whether a state takes an event at ts: it begins anew when its time to live has passed, and takes none that is older than that."""
    if f[at] == 0.0:
        return True
    newest = f[at] - 1.0
    if ts - newest > ttl_ms:
        for n in range(at, at + words):
            f[n] = 0.0
    return newest - ts <= ttl_ms


@inner
def _fold(f, u, b, start, at, words, width, code, p, x, y, tokens, i, d, ts):
    """Fold event i at ts into definition d's state in the row that starts at `start`."""
    f[start + NEWEST] = max(f[start + NEWEST], ts + 1.0)
    if not _begins(f, start + at, words, p[TTL], ts):
        return
    if code == LOOKUP_ID:
        fold_ids(u, f, start + at, width, tokens, i, d, ts)
    elif tokens[i, d, 0] == _NONE:
        fold_one(code, f, u, b, start + at, p, x, y, _NONE, ts)
    else:
        for n in range(tokens.shape[2]):
            if tokens[i, d, n] != _NONE:
                fold_one(code, f, u, b, start + at, p, x, y, tokens[i, d, n], ts)


@inner
def _read(f, u, b, starts, at, words, width, code, p, default, column, ts, scratch, numbers, ids):
    """What a definition's states in the rows at starts int64[M] say at ts: numbers float32[N] or ids uint64[I], from column on."""
    where, held = -1, 0
    for start in starts:
        if start < 0 or expired(f, start + at, p, ts):
            continue
        held += 1
        if held == 1:
            where = start + at
            continue
        if held == 2:
            for n in range(words):
                f[scratch + n] = f[where + n]
            where = scratch
        merge_one(code, f, u, b, scratch, start + at, p)
    if width == 0:
        numbers[column] = np.float32(default if where < 0 else read_number(code, f, b, where, p, ts))
        return
    for n in range(column, column + width):
        ids[n] = _NONE
    if where >= 0:
        read_ids(code, f, u, where, p, ids[column : column + width])


@kernel
def freeze_and_fold_groups(f, u, b, starts, group, at, words, width, code, p, default, column, scratch, x, y, tokens, ts_ms, frozen, folded,
                           numbers, ids, kernels_number=KERNELS):
    """Definition by definition, which know nothing of each other, and event by event: what it sees (frozen uint8[n]), then the event put in
    (folded uint8[n]). starts int64[n,G,M], x, y float64[n,D] (NaN: it does not count the event; y of a ratio NaN: not in what it is over),
    tokens uint64[n,D,T], 0 for none, ts_ms int64[n]; numbers float32[n,N] and ids uint64[n,I] are written for what is frozen."""
    for d in range(len(code)):
        lookup, g, own = code[d] >= LOOKUP, group[d], p[d]
        for i in range(len(ts_ms)):
            ts = float(ts_ms[i])
            if frozen[i] and not lookup:
                _read(f, u, b, starts[i, group[d]], at[d], words[d], width[d], code[d], p[d], default[d], column[d], ts, scratch,
                      numbers[i], ids[i])
            no_x, no_y = math.isnan(x[i, d]), math.isnan(y[i, d])
            if folded[i] and not (no_x and no_y):
                for m in range(starts.shape[2]):
                    if starts[i, g, m] >= 0:
                        _fold(f, u, b, starts[i, g, m], at[d], words[d], width[d], code[d], own, 0.0 if no_x else x[i, d],
                              0.0 if no_y else y[i, d], tokens, i, d, ts)
            if frozen[i] and lookup:
                _read(f, u, b, starts[i, group[d]], at[d], words[d], width[d], code[d], p[d], default[d], column[d], ts, scratch,
                      numbers[i], ids[i])


@kernel
def fold_attributes(f, u, starts, group, at, width, p, tokens, ts_ms, folded, out, kernels_number=KERNELS):
    """Event by event: the lookups of columns take what it carries (tokens uint64[n,A,T]; folded uint8[n]), and say what holds then: into
    out uint64[n,A,VALUES], which holds zeros. starts int64[n,G,M]; group, at, width int64[A], p float64[A,PARAMS]."""
    for i in range(len(ts_ms)):
        for a in range(len(at)):
            start = starts[i, group[a], 0]
            if start < 0:
                continue
            ts = float(ts_ms[i])
            if folded[i] and tokens[i, a, 0] != _NONE:
                f[start + NEWEST] = max(f[start + NEWEST], ts + 1.0)
                if _begins(f, start + at[a], 1 + width[a], p[a, TTL], ts):
                    fold_ids(u, f, start + at[a], width[a], tokens, i, a, ts)
            for n in range(0 if expired(f, start + at[a], p[a], ts) else width[a]):
                out[i, a, n] = u[start + at[a] + 1 + n]


@kernel
def mix_pairs(a, b, out):
    """Row keys of pairs of tokens uint64[n]; 0 where one of them is 0."""
    for i in range(len(a)):
        if a[i] == _NONE or b[i] == _NONE:
            out[i] = _NONE
            continue
        out[i] = mix(a[i], b[i])


@inner
def _same(a, b):
    for m in range(len(a)):  # noqa: SIM110 (Numba has no all)
        if a[m] != b[m]:
            return False
    return True


@kernel
def read_groups(f, u, b, starts, group, at, words, width, code, p, default, column, scratch, ts_ms, numbers, ids,
                kernels_number=KERNELS):
    """What n pairs see at ts_ms int64[n]; as in `freeze_and_fold_groups`. A pair of the same rows as the one before it, as of one user with
    many items, sees the same."""
    for d in range(len(code)):
        for i in range(len(ts_ms)):
            if i > 0 and ts_ms[i] == ts_ms[i - 1] and _same(starts[i, group[d]], starts[i - 1, group[d]]):
                if width[d] == 0:
                    numbers[i, column[d]] = numbers[i - 1, column[d]]
                for n in range(column[d], column[d] + width[d]):
                    ids[i, n] = ids[i - 1, n]
                continue
            _read(f, u, b, starts[i, group[d]], at[d], words[d], width[d], code[d], p[d], default[d], column[d], float(ts_ms[i]), scratch,
                  numbers[i], ids[i])


@kernel
def merge_rows(f, u, b, into, other, at, words, code, p, kernels_number=KERNELS):
    """Put the rows that start at other int64[n] into those at into int64[n], the definitions of one group: what a backfill has folded of
    the past into what the stream has folded since."""
    for i in range(len(into)):
        for d in range(len(code)):
            merge_one(code[d], f, u, b, into[i] + at[d], other[i] + at[d], p[d])
        f[into[i] + NEWEST] = max(f[into[i] + NEWEST], f[other[i] + NEWEST])
