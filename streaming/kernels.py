"""Numba kernels of the features job: the keys of scanned interactions, and the writing of enriched records.

Free functions over arrays that the caller owns, on what schemas.kernels.scan found; they trust it.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from headrace.schemas.kernels import ACTION, ARMS, END, EVENT_ID, EXPOSURE, HEAD, ITEM_ID, TAIL, USER_ID, VALUE_END, xxh64

USER, ITEM, CONTEXT = 0, 1, 2
_U = np.uint64


@numba.njit(cache=True)
def _below(d, a, b):
    """Whether the name of context entry a int32[4] comes before b's, byte by byte, which is the order of their characters."""
    for n in range(min(a[1], b[1])):
        if d[a[0] + n] != d[b[0] + n]:
            return d[a[0] + n] < d[b[0] + n]
    return a[1] < b[1]


@numba.njit(cache=True)
def _begins(d, entry, prefix):
    if entry[1] < len(prefix):
        return False
    for n in range(len(prefix)):  # noqa: SIM110 (a generator costs a frame in Numba)
        if d[entry[0] + n] != prefix[n]:
            return False
    return True


@numba.njit(cache=True)
def _side(d, entry, user, item):
    if _begins(d, entry, user):
        return USER
    return ITEM if _begins(d, entry, item) else CONTEXT


@numba.njit(cache=True)
def _told(table, key):
    """Whether a key stands in the open-addressing set uint64[2^b]; 0 is an empty place."""
    mask = _U(len(table) - 1)
    at = (key ^ (key >> _U(29))) & mask
    while table[at] != 0:
        if table[at] == key:
            return True
        at = (at + _U(1)) & mask
    return False


@numba.njit(cache=True)
def tell(table, keys):
    """Add keys uint64[k] to the set uint64[2^b], which keeps room; how many are new to it."""
    mask = _U(len(table) - 1)
    new = 0
    for key in keys:
        at = (key ^ (key >> _U(29))) & mask
        while table[at] != 0 and table[at] != key:
            at = (at + _U(1)) & mask
        if table[at] == 0 and key != 0:
            table[at] = key
            new += 1
    return new


@numba.njit(cache=True)
def _noted(table, key, name, part, length, unknown, unknown_keys, count):
    """The count of unknown keys, one more when `key` is not in the set: its name (-1: user_id, -2: item_id, else a context entry), and
    where its value lies."""
    if _told(table, key):
        return count
    if count < len(unknown):
        unknown[count, 0], unknown[count, 1], unknown[count, 2] = name, part, length
        unknown_keys[count] = key
    return count + 1


@numba.njit(cache=True)
def _hashed(d, scratch, size, start, length):
    """xxh64 of the first `size` bytes of scratch and the bytes at `start`."""
    for n in range(length):
        scratch[size + n] = d[start + n]
    return xxh64(scratch, 0, size + length)


@numba.njit(cache=True)
def keys_of(d, chosen, texts, entries, entry_ends, action_keys, other, prefixes, prefix_ends, table, order, scratch, action, user, item,
            event, user_fields, item_fields, context, unknown, unknown_keys):
    """Columns of features.layout.EVENT_COLUMNS for the rows chosen int64[k] of a scan; the count of keys that are not in the set `table`.

    prefixes uint8[]: "user_id=", "item_id=", "user.", "item." up to prefix_ends int64[4]. action_keys uint64[]: xxh64 of the actions of
    codes 1 and up; `other` is the code of all else. order int32[64], scratch uint8[4096]: room. Filled: action uint8[k], user, item, event
    uint64[k], the fields uint64[k,slots], which hold zeros; unknown int32[u,3] and unknown_keys uint64[u], as many as there is room for.
    """
    user_name, item_name = prefixes[: prefix_ends[0]], prefixes[prefix_ends[0] : prefix_ends[1]]
    user_side, item_side = prefixes[prefix_ends[1] : prefix_ends[2]], prefixes[prefix_ends[2] : prefix_ends[3]]
    count = 0
    filled = np.zeros(3, np.int64)
    for k in range(len(chosen)):
        row = chosen[k]
        text = texts[row]
        hashed = xxh64(d, text[ACTION, 0], text[ACTION, 0] + text[ACTION, 1])
        action[k] = other
        for code in range(len(action_keys)):
            if action_keys[code] == hashed:
                action[k] = code + 1
        event[k] = xxh64(d, text[EVENT_ID, 0], text[EVENT_ID, 0] + text[EVENT_ID, 1]) if text[EVENT_ID, 1] else _U(0)
        scratch[: len(user_name)] = user_name
        user[k] = _hashed(d, scratch, len(user_name), text[USER_ID, 0], text[USER_ID, 1])
        count = _noted(table, user[k], -1, text[USER_ID, 0], text[USER_ID, 1], unknown, unknown_keys, count)
        scratch[: len(item_name)] = item_name
        item[k] = _hashed(d, scratch, len(item_name), text[ITEM_ID, 0], text[ITEM_ID, 1])
        count = _noted(table, item[k], -2, text[ITEM_ID, 0], text[ITEM_ID, 1], unknown, unknown_keys, count)
        first = entry_ends[row - 1] if row else 0
        held = entry_ends[row] - first
        for n in range(held):  # in the order of their names
            place = n
            while place > 0 and _below(d, entries[first + n], entries[order[place - 1]]):
                order[place] = order[place - 1]
                place -= 1
            order[place] = first + n
        filled[:] = 0
        for n in range(held):
            entry = entries[order[n]]
            if d[entry[0]] == 95:  # _
                continue
            side = _side(d, entry, user_side, item_side)
            slots = user_fields if side == USER else item_fields if side == ITEM else context
            size = entry[1]
            for b in range(size):
                scratch[b] = d[entry[0] + b]
            scratch[size] = 61  # =
            begin, stop = entry[2], entry[2] + entry[3]
            while begin < stop:
                part = begin
                while part < stop and (side == CONTEXT or d[part] != 124):  # |
                    part += 1
                if part > begin:
                    key = _hashed(d, scratch, size + 1, begin, part - begin)
                    count = _noted(table, key, order[n], begin, part - begin, unknown, unknown_keys, count)
                    if filled[side] < slots.shape[1]:
                        slots[k, filled[side]] = key
                    filled[side] += 1
                begin = part + 1
    return count


@numba.njit(cache=True)
def _put_long(out, o, number):
    n = _U((number << 1) ^ (number >> 63))
    while n >= _U(128):
        out[o] = np.uint8(n & _U(127)) | np.uint8(128)
        n >>= _U(7)
        o += 1
    out[o] = np.uint8(n)
    return o + 1


@numba.njit(cache=True)
def _put(out, o, d, start, stop):
    for i in range(start, stop):
        out[o] = d[i]
        o += 1
    return o


@numba.njit(cache=True)
def _put_sized(out, o, d):
    o = _put_long(out, o, np.int64(len(d)))
    return _put(out, o, d, 0, len(d))


@numba.njit(cache=True)
def write_enriched(d, header, spans, source, partition, offset, ts_ms, sequence, folded, newest_ms, frozen, at, keys, values, numbers,
                   feature_set, model, version, score, out, ends):
    """Messages of `enriched` for n records of a scan, into out uint8[] up to ends int64[n].

    spans int32[n,SPANS] are theirs; source, partition, offset, ts_ms, sequence, folded, newest_ms int64[n]. frozen uint8[n]: 1 takes
    features from row at int64[n] of keys uint8[m,8F], values uint8[m,4F], numbers uint8[m,4K] (bytes) under feature_set uint8[]; else an
    exposure's fields are copied as they are. A frozen row whose score float64[n] is not NaN carries `model` uint8[], version and it in the
    exposure's place.
    """
    cast = np.empty(1, np.float64)
    bits = cast.view(np.uint8)
    o = 0
    for n in range(len(spans)):
        span = spans[n]
        o = _put(out, o, header, 0, len(header))
        o = _put_long(out, o, source[n])
        o = _put_long(out, o, partition[n])
        o = _put_long(out, o, offset[n])
        o = _put(out, o, d, span[HEAD], span[VALUE_END])
        o = _put_long(out, o, ts_ms[n])
        exposed = span[EXPOSURE] != span[END]
        if exposed and not frozen[n]:
            o = _put(out, o, d, span[EXPOSURE], span[END])
            o = _put_long(out, o, folded[n])
            o = _put_long(out, o, newest_ms[n])
            ends[n] = o
            continue
        if frozen[n]:
            o = _put_sized(out, o, feature_set)
            o = _put_sized(out, o, keys[at[n]])
            o = _put_sized(out, o, values[at[n]])
            o = _put_sized(out, o, numbers[at[n]])
        else:
            out[o : o + 4] = 0
            o += 4
        o = _put_long(out, o, sequence[n])
        if frozen[n] and not math.isnan(score[n]):
            out[o] = 2
            o = _put_sized(out, o + 1, model)
            out[o] = 2
            o = _put_long(out, o + 1, version)
            out[o] = 2
            cast[0] = score[n]
            o = _put(out, o + 1, bits, 0, 8)
        elif exposed:
            o = _put(out, o, d, span[TAIL], span[ARMS])
        else:
            out[o : o + 3] = 0
            o += 3
        if exposed:
            o = _put(out, o, d, span[ARMS], span[END])
        else:
            out[o] = 0
            o += 1
        o = _put_long(out, o, folded[n])
        o = _put_long(out, o, newest_ms[n])
        ends[n] = o
