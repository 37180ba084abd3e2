"""Numba kernels over encoded records: xxh64, and the scan of interactions into columns.

The scan takes only what is plainly right: one reading, every guard of walk.py and interaction.py met, written under a schema like ours.
What it doubts it marks, says nothing more of, and leaves to the codec, whose word on a record is the only one: so reasons are found in
one place. Free functions over arrays that the caller owns; every read is bounded by its record.
"""

from __future__ import annotations

import numba
import numpy as np

# Columns of `texts` int32[n, TEXTS, 2]: where a string's bytes begin and how many they are; request_id's are -1 when there is none.
EVENT_ID, REQUEST_ID, SCENE, USER_ID, ITEM_ID, ACTION = range(6)
TEXTS = 6
# Columns of `spans` int32[n, SPANS]. HEAD..VALUE_END: from event_id to value, which enriched holds in the same order. EXPOSURE, END: the
# exposure's fields, equal when there is none; TAIL: its model, version and score; ARMS: from its arms on.
HEAD, VALUE_END, EXPOSURE, TAIL, ARMS, END = range(6)
SPANS = 6
# Of `seen` uint8[n]: doubted, an event, a heartbeat; and whether the exposure carries a whole sample.
DOUBT, EVENT, HEARTBEAT = 0, 1, 2

_ID_MAX, _ACTION_MAX, _CONTEXT_MAX, _CONTEXT_BYTES_MAX = 256, 64, 64, 1024
_P1, _P2, _P3, _P4, _P5 = (np.uint64(prime) for prime in (
    0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5))
_U = np.uint64


@numba.njit(inline="always")
def _rotated(x, bits):
    return (x << _U(bits)) | (x >> _U(64 - bits))


@numba.njit(inline="always")
def _word(d, i, size):
    """The little-endian number of `size` bytes at i."""
    x = _U(0)
    for n in range(size):
        x |= _U(d[i + n]) << _U(8 * n)
    return x


@numba.njit(inline="always")
def _round(sum_, lane):
    return _rotated(sum_ + lane * _P2, 31) * _P1


@numba.njit(cache=True)
def xxh64(d, start, stop):
    """XXH64 (Collet), seed 0, of the bytes start to stop of uint8[m]: schemas.hashing's hash."""
    i, size = start, stop - start
    if size >= 32:
        a, b, c, e = _P1 + _P2, _P2, _U(0), _U(0) - _P1
        while i + 32 <= stop:
            a, b = _round(a, _word(d, i, 8)), _round(b, _word(d, i + 8, 8))
            c, e = _round(c, _word(d, i + 16, 8)), _round(e, _word(d, i + 24, 8))
            i += 32
        h = _rotated(a, 1) + _rotated(b, 7) + _rotated(c, 12) + _rotated(e, 18)
        for lane in (a, b, c, e):
            h = (h ^ _round(_U(0), lane)) * _P1 + _P4
    else:
        h = _P5
    h += _U(size)
    while i + 8 <= stop:
        h = _rotated(h ^ _round(_U(0), _word(d, i, 8)), 27) * _P1 + _P4
        i += 8
    if i + 4 <= stop:
        h = _rotated(h ^ (_word(d, i, 4) * _P1), 23) * _P2 + _P3
        i += 4
    while i < stop:
        h = _rotated(h ^ (_U(d[i]) * _P5), 11) * _P1
        i += 1
    h = (h ^ (h >> _U(33))) * _P2
    h = (h ^ (h >> _U(29))) * _P3
    return h ^ (h >> _U(32))


@numba.njit(cache=True)
def _long(d, i, end):
    """(number of the zigzag varint at i, index behind it); index -1 when it is padded, too long, or cut off by `end`."""
    n, shift = _U(0), 0
    while True:
        if i >= end:
            return np.int64(0), -1
        byte = d[i]
        i += 1
        n |= _U(byte & 127) << _U(shift)
        if byte < 128:
            break
        shift += 7
        if shift > 63:
            return np.int64(0), -1
    if (byte == 0 and shift > 0) or (shift == 63 and byte > 1):
        return np.int64(0), -1
    return np.int64(n >> _U(1)) ^ -np.int64(n & _U(1)), i


@numba.njit(cache=True)
def _bytes(d, i, end):
    """(where the bytes or string at i begin, the index behind them); -1 when their length is no length."""
    n, i = _long(d, i, end)
    if i < 0 or n < 0 or n > end - i:
        return -1, -1
    return i, i + n


@numba.njit(cache=True)
def _text(d, i, stop, controls):
    """Whether the bytes i to stop are UTF-8 as Python's decoder takes it, and with `controls` False free of U+0000 to 1F and 7F to 9F."""
    while i < stop:
        byte = d[i]
        if byte < 0x80:
            if not controls and (byte < 0x20 or byte == 0x7F):
                return False
            i += 1
            continue
        if byte < 0xC2 or byte > 0xF4:
            return False
        more = 1 if byte < 0xE0 else 2 if byte < 0xF0 else 3
        if i + more >= stop:
            return False
        second = d[i + 1]
        low = 0xA0 if byte == 0xE0 else 0x90 if byte == 0xF0 else 0x80
        high = 0x9F if byte == 0xED else 0x8F if byte == 0xF4 else 0xBF
        if second < low or second > high or (not controls and byte == 0xC2 and second < 0xA0):
            return False
        for n in range(2, more + 1):
            if d[i + n] & 0xC0 != 0x80:
                return False
        i += more + 1
    return True


@numba.njit(cache=True)
def _floats_finite(d, i, stop):
    while i < stop:
        if d[i + 3] & 0x7F == 0x7F and d[i + 2] & 0x80:
            return False
        i += 4
    return True


@numba.njit(inline="always")
def _double(d, i, cast, number):
    cast[0] = _word(d, i, 8)
    return number[0]


@numba.njit(cache=True)
def _same(d, i, e, j, size):
    for n in range(size):  # noqa: SIM110 (a generator costs a frame in Numba)
        if d[i + n] != e[j + n]:
            return False
    return True


@numba.njit(cache=True)
def _context(d, i, end, entries, at):
    """(entries after the map at i, the index behind it): name and value of each into entries int32[m,4] from `at` on; index -1: doubted."""
    first = at
    while True:
        count, i = _long(d, i, end)
        if i < 0 or count < 0 or count > _CONTEXT_MAX - (at - first):
            return first, -1
        if count == 0:
            return at, i
        for _ in range(count):
            name, i = _bytes(d, i, end)
            if i < 0 or i == name or i - name > _CONTEXT_BYTES_MAX or not _text(d, name, i, True):
                return first, -1
            for n in range(name, i):
                if d[n] == 61:  # =
                    return first, -1
            for other in range(first, at):
                if entries[other, 1] == i - name and _same(d, entries[other, 0], d, name, i - name):
                    return first, -1
            entries[at, 0], entries[at, 1] = name, i - name
            value, i = _bytes(d, i, end)
            if i < 0 or i - value > _CONTEXT_BYTES_MAX or not _text(d, value, i, True):
                return first, -1
            entries[at, 2], entries[at, 3] = value, i - value
            at += 1


@numba.njit(cache=True)
def _exposure(d, i, end, feature_set, widths, spans, cast, number):
    """(index behind the exposure's fields at i, whether it carries a whole sample); index -1: doubted. Its TAIL and ARMS go to `spans`."""
    name, i = _bytes(d, i, end)
    if i < 0:
        return -1, False
    named = i - name
    if named and not (named == len(feature_set) and _same(d, name, feature_set, 0, named)):
        return -1, False
    for column in range(3):
        begin, i = _bytes(d, i, end)
        if i < 0 or i - begin != (widths[column] if named else 0) or (column and not _floats_finite(d, begin, i)):
            return -1, False
    _, i = _long(d, i, end)
    if i < 0 or i >= end:
        return -1, False
    spans[TAIL] = i
    if d[i] == 2:
        begin, i = _bytes(d, i + 1, end)
        if i < 0 or not _text(d, begin, i, True):
            return -1, False
    elif d[i] == 0:
        i += 1
    else:
        return -1, False
    if i >= end or (d[i] != 0 and d[i] != 2):
        return -1, False
    if d[i] == 2:
        _, i = _long(d, i + 1, end)
        if i < 0:
            return -1, False
    else:
        i += 1
    if i >= end or (d[i] != 0 and d[i] != 2):
        return -1, False
    if d[i] == 2:
        if i + 9 > end:
            return -1, False
        score = _double(d, i + 1, cast, number)
        if not 0.0 <= score <= 1.0:
            return -1, False
        i += 9
    else:
        i += 1
    spans[ARMS] = i
    while True:
        count, i = _long(d, i, end)
        if i < 0 or count < 0:
            return -1, False
        if count == 0:
            return i, named > 0
        for _ in range(count):
            begin, i = _bytes(d, i, end)
            if i < 0 or not _text(d, begin, i, True):
                return -1, False


@numba.njit(cache=True)
def _interaction(d, i, end, heartbeat, feature_set, widths, ts_range, value_max, texts, spans, entries, at, cast, number):
    """(seen, value, ts_ms, entries after it, whether a whole sample) of the datum i to end; seen DOUBT: nothing else counts."""
    doubt = DOUBT, 0.0, np.int64(0), at, False
    spans[HEAD] = i
    for column in range(TEXTS):
        if column == REQUEST_ID:
            if i >= end or (d[i] != 0 and d[i] != 2):
                return doubt
            i += 1
            if d[i - 1] == 0:
                texts[column, 0] = texts[column, 1] = -1
                continue
        begin, i = _bytes(d, i, end)
        if i < 0 or i - begin > (_ACTION_MAX if column == ACTION else _ID_MAX) or not _text(d, begin, i, False):
            return doubt
        texts[column, 0], texts[column, 1] = begin, i - begin
    action, length = texts[ACTION]
    for n in range(action, action + length):
        if d[n] == 44:  # a comma
            return doubt
    beat = length == len(heartbeat) and _same(d, action, heartbeat, 0, length)
    if length == 0 or (not beat and (texts[USER_ID, 1] == 0 or texts[ITEM_ID, 1] == 0)) or i + 9 > end:
        return doubt
    value = _double(d, i, cast, number)
    if not -value_max <= value <= value_max:
        return doubt
    i += 8
    spans[VALUE_END] = i
    if d[i] == 2:
        position, i = _long(d, i + 1, end)
        if i < 0 or position < 0 or position > 0x7FFFFFFF:
            return doubt
    elif d[i] == 0:
        i += 1
    else:
        return doubt
    ts_ms, i = _long(d, i, end)
    if i < 0 or ts_ms < ts_range[0] or ts_ms > ts_range[1]:
        return doubt
    at, i = _context(d, i, end, entries, at)
    if i < 0 or i >= end or (d[i] != 0 and d[i] != 2):
        return doubt
    i += 1
    spans[EXPOSURE] = spans[TAIL] = spans[ARMS] = i
    whole = False
    if d[i - 1] == 2:
        i, whole = _exposure(d, i, end, feature_set, widths, spans, cast, number)
    spans[END] = i
    if i != end:
        return doubt
    return HEARTBEAT if beat else EVENT, value, ts_ms, at, whole


@numba.njit(cache=True)
def scan(d, ends, schema_ids, bytes_max, heartbeat, feature_set, widths, ts_range, value_max, seen, value, ts_ms, texts, spans, entries,
         entry_ends, whole):
    """Columns of n messages of interactions, in uint8[m] one after the other up to ends int64[n].

    schema_ids int64[s]: under which ids a datum is written as ours. widths int64[3]: bytes of keys, values and numbers of feature_set
    uint8[]. Filled: seen uint8[n], value float64[n], ts_ms int64[n], texts int32[n,TEXTS,2], spans int32[n,SPANS], entries int32[e,4] (name
    and value of the context's, of row i those up to entry_ends int64[n]; e: 64 a row is enough), whole uint8[n].
    """
    cast = np.empty(1, np.uint64)
    number = cast.view(np.float64)
    start = at = 0
    for row in range(len(ends)):
        end = ends[row]
        seen[row], whole[row] = DOUBT, 0
        if 6 <= end - start <= bytes_max and d[start] == 0:
            schema_id = np.int64(0)
            for n in range(1, 5):
                schema_id = (schema_id << 8) | np.int64(d[start + n])
            for known in schema_ids:
                if known == schema_id:
                    found = _interaction(d, start + 5, end, heartbeat, feature_set, widths, ts_range, value_max, texts[row], spans[row],
                                         entries, at, cast, number)
                    seen[row], value[row], ts_ms[row], at = found[0], found[1], found[2], found[3]
                    whole[row] = 1 if found[4] else 0
                    break
        entry_ends[row] = at
        start = end
