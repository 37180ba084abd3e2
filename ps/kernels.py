"""Numba kernels of the parameter server: index, rows, optimizers, as free functions over arrays that the caller owns.

No signatures, since arrays from Flight and from the log are read-only; no fastmath, since NaN must stay one. nogil, so that Flight's
threads parse the next message meanwhile. Indices are checked at the door (ps/table.py) and trusted here.

An index is uint64[capacity, 2], capacity a power of two: a bucket is a key and row + 1, where 0 says free (every uint64 is a legal key);
16 bytes, so that one cache line answers most lookups. Linear probing from the low bits of mix(key). A key that is removed leaves no trace:
what lies behind it moves up (Knuth, TAOCP 3, 6.4, algorithm R). Only in an index that is being left, whose buckets must not move, its
bucket is marked GONE.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

AHEAD = 32  # rows: memory answers within the time that these take
_NEXT_LINE = np.uint64(3)  # buckets: a probe that leaves its home's line has mostly no further to go
_ONE = np.uint64(1)
_ZERO = np.uint64(0)
GONE = np.uint64(0xFFFFFFFFFFFFFFFF)  # minus one, as a signed number: negative, as for a key that is not there
_S33 = np.uint64(33)
_S16, _S32, _S48 = np.uint64(16), np.uint64(32), np.uint64(48)
_SLOT_SHIFT = np.uint64(58)
_LOW16 = np.uint64(0xFFFF)
_DEVIATION = (3.0 / (65536.0**2 - 1.0)) ** 0.5  # 1 / that of the sum of four of 0..65535
_M1 = np.uint64(0xFF51AFD7ED558CCD)
_M2 = np.uint64(0xC4CEB9FE1A85EC53)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _prefetch(typing, array, row, column):
    """Ask for the cache line of array[row, column] without waiting for it; any index does: no memory is read or written for the program.

    LLVM's llvm.prefetch for reading, to be kept in all caches. Numba has no name for it.
    """
    del typing

    def generate(context, builder, signature, given):
        view, byte, int32 = context.make_array(signature.args[0])(context, builder, given[0]), ir.IntType(8).as_pointer(), ir.IntType(32)
        steps = cgutils.unpack_tuple(builder, view.strides)
        offset = builder.add(builder.mul(given[1], steps[0]), builder.mul(given[2], steps[1]))
        address = builder.inttoptr(builder.add(builder.ptrtoint(view.data, offset.type), offset), byte)
        wanted = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), [byte, int32, int32, int32]),
                                                "llvm.prefetch.p0")
        builder.call(wanted, [address, int32(0), int32(3), int32(1)])
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64), generate


prefetch: Any = intrinsic(_prefetch)
"""`prefetch(array, row, column)` in a kernel."""


@njit(cache=True, nogil=True)
def prefetch_row(rows, row, columns):
    """Ask for the first `columns` columns of a row."""
    for c in range(0, columns, 64 // rows.itemsize):
        prefetch(rows, row, c)


@njit(cache=True, nogil=True)
def mix(key):
    """MurmurHash3's 64-bit finalizer (Appleby): a bijection of uint64 whose every bit depends on every bit of the key.

    High 6 bits: the slot. Low bits: the home bucket. So the two do not disturb each other, whatever share of the slots a shard holds.
    """
    key = (key ^ (key >> _S33)) * _M1
    key = (key ^ (key >> _S33)) * _M2
    return key ^ (key >> _S33)


@njit(cache=True, nogil=True)
def slots_of(keys):
    """int64[n]: slot (0..63) of uint64[n]."""
    slots = np.empty(len(keys), np.int64)
    for i in range(len(keys)):
        slots[i] = np.int64(mix(keys[i]) >> _SLOT_SHIFT)
    return slots


@njit(cache=True, nogil=True)
def foreign(keys, first, stop):
    """The position of a key whose slot is not in first..stop-1, else -1."""
    for i in range(len(keys)):
        slot = np.int64(mix(keys[i]) >> _SLOT_SHIFT)
        if slot < first or slot >= stop:
            return i
    return -1


@njit(cache=True, nogil=True)
def repeated(keys, scratch):
    """The position of a key seen before in uint64[n], else -1. `scratch`: uint64[capacity, 2] of zeros, capacity a power of two > n."""
    for i in range(len(keys)):
        if _claim(scratch, keys[i], np.uint64(i)) != np.int64(i):
            return i
    return -1


@njit(cache=True, nogil=True)
def _claim(index, key, row):
    """The row of `key` in `index`; when it has none, `row` is put there."""
    mask = np.uint64(index.shape[0] - 1)
    at = mix(key) & mask
    while True:
        held = index[at, 1]
        if held == _ZERO:
            index[at, 0] = key
            index[at, 1] = row + _ONE
            return np.int64(row)
        if index[at, 0] == key:
            return np.int64(held - _ONE)
        at = (at + _ONE) & mask


@njit(cache=True, nogil=True)
def _find(index, key, at):
    """The row of `key` from home bucket `at` on, -1 when it has none."""
    mask = np.uint64(index.shape[0] - 1)
    while True:
        held = index[at, 1]
        if held == _ZERO:
            return np.int64(-1)
        if index[at, 0] == key:
            return np.int64(held - _ONE)
        at = (at + _ONE) & mask


@njit(cache=True, nogil=True)
def _prefetch_home(index, key, mask):
    """Ask for the home bucket of `key` and for the line that a probe may go on to."""
    home = mix(key)
    prefetch(index, np.int64(home & mask), 0)
    prefetch(index, np.int64((home + _NEXT_LINE) & mask), 0)


@njit(cache=True, nogil=True)
def lookup(index, old, keys, rows):
    """rows int64[n] of keys uint64[n], -1 for an unknown one. `old`: the index that is being left, or uint64[0, 2].

    Buckets are asked for AHEAD keys before they are probed, so that many cache misses are under way at once.
    """
    mask = np.uint64(index.shape[0] - 1)
    for i in range(min(AHEAD, len(keys))):
        _prefetch_home(index, keys[i], mask)
    for i in range(len(keys)):
        if i + AHEAD < len(keys):
            _prefetch_home(index, keys[i + AHEAD], mask)
        rows[i] = _find(index, keys[i], mix(keys[i]) & mask)
    if old.shape[0] > 0:
        mask = np.uint64(old.shape[0] - 1)
        for i in range(len(keys)):
            if rows[i] < 0:
                rows[i] = _find(old, keys[i], mix(keys[i]) & mask)


@njit(cache=True, nogil=True)
def find_or_insert(index, old, keys, rows, arena_keys, high, free, left, born):
    """Like `lookup`, but an unknown key gets a row: the last of free[:left], and when none is left `high`, `high` + 1, ...; these go to
    born int64[n] in the order of `keys`. Returns (high, left, how many were born).

    Also right for keys that repeat. The caller has seen to it that the index has room for all; at the end of the arena it stops and says -1
    were born.
    """
    lookup(index, old, keys, rows)
    count = 0
    for i in range(len(keys)):
        if rows[i] < 0:
            if left == 0 and high == len(arena_keys):
                return high, left, -1
            fresh = free[left - 1] if left > 0 else high
            row = _claim(index, keys[i], np.uint64(fresh))
            if row == fresh:
                arena_keys[row] = keys[i]
                born[count] = row
                count += 1
                if left > 0:
                    left -= 1
                else:
                    high += 1
            rows[i] = row
    return high, left, count


@njit(cache=True, nogil=True)
def remove(index, old, keys, rows):
    """Take keys uint64[n] out of both indices; rows int64[n] that they had, -1 for an unknown one."""
    for i in range(len(keys)):
        row = _remove(index, keys[i])
        if old.shape[0] > 0:
            row = max(row, _entomb(old, keys[i]))
        rows[i] = row


@njit(cache=True, nogil=True)
def _remove(index, key):
    mask = np.uint64(index.shape[0] - 1)
    hole = mix(key) & mask
    while True:
        held = index[hole, 1]
        if held == _ZERO:
            return np.int64(-1)
        if index[hole, 0] == key:
            break
        hole = (hole + _ONE) & mask
    row = np.int64(held - _ONE)
    at = hole
    while True:
        at = (at + _ONE) & mask
        if index[at, 1] == _ZERO:
            break
        home = mix(index[at, 0]) & mask
        if ((at - home) & mask) >= ((at - hole) & mask):  # its home is not behind the hole: it may move there
            index[hole, 0] = index[at, 0]
            index[hole, 1] = index[at, 1]
            hole = at
    index[hole, 1] = _ZERO
    return row


@njit(cache=True, nogil=True)
def _entomb(old, key):
    mask = np.uint64(old.shape[0] - 1)
    at = mix(key) & mask
    while old[at, 1] != _ZERO:
        if old[at, 0] == key and old[at, 1] != GONE:
            row = np.int64(old[at, 1] - _ONE)
            old[at, 1] = GONE
            return row
        at = (at + _ONE) & mask
    return np.int64(-1)


@njit(cache=True, nogil=True)
def migrate(old, index, start, stop):
    """Copy the occupied buckets start..stop-1 of `old` into `index`."""
    for at in range(start, stop):
        if old[at, 1] != _ZERO and old[at, 1] != GONE:
            _claim(index, old[at, 0], old[at, 1] - _ONE)


@njit(cache=True, nogil=True)
def load(index, keys):
    """Put row i for keys[i], for all of uint64[n], into an empty index; the position of a repeated key, else -1."""
    for i in range(len(keys)):
        if _claim(index, keys[i], np.uint64(i)) != np.int64(i):
            return i
    return -1


@njit(cache=True, nogil=True)
def gather(rows, at, out):
    """out[i] = the first columns of rows[at[i]]; zeros where at[i] is -1."""
    for i in range(len(at)):
        if i + AHEAD < len(at):
            prefetch_row(rows, at[i + AHEAD], out.shape[1])
        row = at[i]
        if row < 0:
            for c in range(out.shape[1]):
                out[i, c] = 0
        else:
            for c in range(out.shape[1]):
                out[i, c] = rows[row, c]


@njit(cache=True, nogil=True)
def put(rows, at, values):
    """rows[at[i]] = values[i], absolute."""
    for i in range(len(at)):
        if i + AHEAD < len(at):
            prefetch_row(rows, at[i + AHEAD], values.shape[1])
        for c in range(values.shape[1]):
            rows[at[i], c] = values[i, c]


@njit(cache=True, nogil=True)
def seed(keys, rows, at, dim, scale):
    """Weights of the rows at int64[n]: column 0 is 0, column c is `scale` x what (keys[i], c) give: the sum of four uniform numbers, near a
    standard normal (Irwin 1927; Hall 1927), of mean 0 and deviation 1, within 3.5.

    Of key and column alone, in whole numbers until the end, so the order in which keys come, the shard, the replica and the machine's
    libraries do not matter; and ten times as fast as logarithm and cosine (Box and Muller 1958).
    """
    for i in range(len(keys)):
        rows[at[i], 0] = 0
        own = mix(keys[i])
        for c in range(1, dim):
            h = mix(own + np.uint64(c) * _GOLDEN)
            total = (h & _LOW16) + ((h >> _S16) & _LOW16) + ((h >> _S32) & _LOW16) + (h >> _S48)
            rows[at[i], c] = np.float32(scale * ((np.float64(total) - 131070.0) * _DEVIATION))


@njit(cache=True, nogil=True)
def clear(rows, at):
    """Zero the rows `at`, whoever had them."""
    for i in range(len(at)):
        for c in range(rows.shape[1]):
            rows[at[i], c] = 0


@njit(cache=True, nogil=True)
def stamp(array, at, value):
    """array[at[i]] = value."""
    for i in range(len(at)):
        array[at[i]] = value


@njit(cache=True, nogil=True)
def older(touched, flags, start, stop, before, out):
    """Rows start..stop-1 whose flags say that they are in use (bit 2) and that were touched before `before`, to out int64[>= stop - start];
    how many."""
    count = 0
    for row in range(start, stop):
        out[count] = row
        count += (flags[row] & 2 != 0) & (np.int64(touched[row]) < before)
    return count


@njit(cache=True, nogil=True)
def count_exact(counts, at, born, most, out):
    """Count the rows `at` of counts uint8 once more, from 0 where they are in born int64[m] first; out bool[n]: `most` is reached."""
    for i in range(len(born)):
        counts[born[i]] = 0
    for i in range(len(at)):
        counts[at[i]] = min(counts[at[i]] + 1, 255)
        out[i] = counts[at[i]] >= most


@njit(cache=True, nogil=True)
def count_bloom(counters, keys, most, out):
    """Count keys uint64[n] once more in counters uint8[64, m], m a power of two, a line for each slot of keys; out bool[n]: `most` reached.

    A counting Bloom filter (Fan et al. 2000) of four counters a key, of which only the lowest grow (Estan and Varghese 2002); the four are
    Kirsch and Mitzenmacher's (2006) of two hashes. It may count too much, never too little.
    """
    mask = np.uint64(counters.shape[1] - 1)
    for i in range(len(keys)):
        h = mix(keys[i])
        slot = np.int64(h >> _SLOT_SHIFT)
        step = (mix(h ^ _GOLDEN) << _ONE) | _ONE
        low = 255
        for k in range(4):
            low = min(low, int(counters[slot, (h + np.uint64(k) * step) & mask]))
        for k in range(4):
            at = (h + np.uint64(k) * step) & mask
            if counters[slot, at] == low and low < 255:
                counters[slot, at] = low + 1
        out[i] = low + 1 >= most


@njit(cache=True, nogil=True)
def flag(flags, at, bits):
    """Set `bits` uint8 of flags uint8[rows_max] at rows `at` int64[n]."""
    for i in range(len(at)):
        flags[at[i]] |= bits


@njit(cache=True, nogil=True)
def mark(flags, changed, count, at):
    """Note rows `at` in changed[:count] once each (lowest bit of flags uint8[rows_max]); returns the new count."""
    for i in range(len(at)):
        if flags[at[i]] & 1 == 0:
            flags[at[i]] |= 1
            changed[count] = at[i]
            count += 1
    return count
