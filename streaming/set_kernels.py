"""Numba kernels of the features job for definitions: the columns that they look at, out of scanned interactions."""

from __future__ import annotations

import numba
import numpy as np

from headrace.schemas.kernels import xxh64

_BAR = 124  # |


@numba.njit(cache=True)
def column_places(d, chosen, entries, entry_ends, names, name_ends, found):
    """Where the values of C columns lie in the rows chosen int64[k] of a scan: first byte and length into int32[k,C,2], -1 and 0 where a
    row has none. names uint8[]: the columns' names as events have them, up to name_ends int64[C]."""
    for k in range(len(chosen)):
        row = chosen[k]
        first = entry_ends[row - 1] if row else 0
        for c in range(len(name_ends)):
            begin = name_ends[c - 1] if c else 0
            length = name_ends[c] - begin
            found[k, c, 0], found[k, c, 1] = -1, 0
            for e in range(first, entry_ends[row]):
                if entries[e, 1] != length or entries[e, 3] == 0:
                    continue
                same = True
                for n in range(length):
                    if d[entries[e, 0] + n] != names[begin + n]:
                        same = False
                        break
                if same:
                    found[k, c, 0], found[k, c, 1] = entries[e, 2], entries[e, 3]


@numba.njit(cache=True)
def keys_under(d, places, names, name_ends, several, scratch, tokens):
    """feature_key of the values at places int32[k,C,2], into tokens uint64[k,C,V], which hold zeros: of a column of `several` bool[C] each
    part between |, up to V. scratch uint8[]: room for a name, = and a value."""
    for c in range(len(name_ends)):
        begin = name_ends[c - 1] if c else 0
        size = name_ends[c] - begin
        for n in range(size):
            scratch[n] = names[begin + n]
        scratch[size] = 61  # =
        for k in range(len(places)):
            at, stop, held = places[k, c, 0], places[k, c, 0] + places[k, c, 1], 0
            while at < stop and held < tokens.shape[2]:
                part = at
                while part < stop and not (several[c] and d[part] == _BAR):
                    scratch[size + 1 + part - at] = d[part]
                    part += 1
                if part > at:
                    tokens[k, c, held] = xxh64(scratch, 0, size + 1 + part - at)
                    held += 1
                at = part + 1


@numba.njit(cache=True)
def keys_of_text(d, chosen, texts, column, prefix, scratch, keys):
    """xxh64 of `prefix` uint8[] and the text in `column` of texts int32[n,TEXTS,2], for the rows chosen int64[k], into keys uint64[k]."""
    size = len(prefix)
    for n in range(size):
        scratch[n] = prefix[n]
    for k in range(len(chosen)):
        begin, length = texts[chosen[k], column, 0], texts[chosen[k], column, 1]
        for n in range(length):
            scratch[size + n] = d[begin + n]
        keys[k] = xxh64(scratch, 0, size + length)


def bytes_of(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """(uint8[] of all, ends int64[n])."""
    data = [text.encode() for text in texts]
    return np.frombuffer(b"".join(data) or b"\x00", np.uint8).copy(), np.cumsum([len(one) for one in data], dtype=np.int64)
