"""Rows in memory: found by key, which of their words an event changed, and those changes put again into rows read from disk.

A table's rows lie one after the other as words of 8 bytes, place 0 a blank one that is nobody's. Keys are found by open addressing: `seats`
int32[a power of two] hold 1 + nothing (0: free) or the place of a row; keys uint64[places]. A change is words: one of the family's number
and how many words changed, the key, their numbers (four a word, 16 bits each), and what they are now. Of no word: the row is deleted.
"""

from __future__ import annotations

import numpy as np

from headrace.features.jit_kernels import inner, kernel

_U = np.uint64
_NONE = np.uint64(0)
_BEGUN = np.uint64(32)  # above these bits of its first word a row with rings says how often it began anew
COUNT_BITS = 32  # of a change's first word; the family's number is above
WORDS_MAX = 1 << 16
CHANGE_MIN = 2  # words of a change


@inner
def _seat(key, mask):
    """Where a key is looked for first (splitmix64's finish)."""
    x = (key ^ (key >> _U(30))) * _U(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> _U(27))) * _U(0x94D049BB133111EB)
    return np.int64((x ^ (x >> _U(31))) & _U(mask))


@inner
def _find(seats, keys, key):
    mask = len(seats) - 1
    at = _seat(key, mask)
    while seats[at] != 0 and keys[seats[at]] != key:
        at = (at + 1) & mask
    return at


@kernel
def look(seats, keys, used, turn, wanted, places, touched, count):
    """places int64[n] of wanted uint64[n]: 0 for none (key 0) and for one that is not held. Each place that is met first in this `turn` is
    put into touched int64[] from `count` on. Returns (touched now, how many are not held)."""
    missing = 0
    for i in range(len(wanted)):
        places[i] = 0
        if wanted[i] == _NONE:
            continue
        place = seats[_find(seats, keys, wanted[i])]
        places[i] = place
        if place == 0:
            missing += 1
        elif used[place] != turn:
            used[place] = turn
            touched[count] = place
            count += 1
    return count, missing


@kernel
def find(seats, keys, wanted, places):
    """places int64[n] of wanted uint64[n], 0 for one that is not held; nobody is taken to have used them."""
    for i in range(len(wanted)):
        places[i] = seats[_find(seats, keys, wanted[i])]


@kernel
def insert(seats, keys, free, left, new, places):
    """Take places int64[n] off the free ones for distinct keys uint64[n] that are not held; returns how many are left of free int64[]."""
    for i in range(len(new)):
        left -= 1
        place = free[left]
        keys[place] = new[i]
        seats[_find(seats, keys, new[i])] = place
        places[i] = place
    return left


@inner
def _leave(seats, keys, key):
    """Take a key's seat away; those behind it move up."""
    mask = len(seats) - 1
    gap = _find(seats, keys, key)
    at = gap
    while True:
        at = (at + 1) & mask
        if seats[at] == 0:
            break
        if (at - _seat(keys[seats[at]], mask)) & mask >= (at - gap) & mask:
            seats[gap] = seats[at]
            gap = at
    seats[gap] = 0


@kernel
def evict(seats, keys, used, met, dirty, free, left, turn, hand, wanted):
    """Free places until `wanted` are free: by a clock's hand (Corbato 1968) that passes what was used since it came last, what this turn
    uses, and what is dirty. Returns (free now, hand); fewer when there are no more."""
    for _ in range(2 * len(keys)):
        if left >= wanted:
            break
        hand = hand + 1 if hand + 1 < len(keys) else 1
        if keys[hand] == _NONE or used[hand] == turn or dirty[hand] != 0:
            continue
        if used[hand] != met[hand]:
            met[hand] = used[hand]
            continue
        _leave(seats, keys, keys[hand])
        keys[hand] = _NONE
        free[left] = hand
        left += 1
    return left, hand


@kernel
def drop(seats, keys, free, left, places):
    """Free distinct places int64[n], which are held."""
    for i in range(len(places)):
        _leave(seats, keys, keys[places[i]])
        keys[places[i]] = _NONE
        free[left] = places[i]
        left += 1
    return left


@inner
def _put(out, numbers, values, count, row, word):
    """One changed word: its number and what it is."""
    shift = _U(16 * (count % 4))
    if count % 4 == 0:
        out[numbers + count // 4] = _NONE
    out[numbers + count // 4] |= _U(word) << shift
    values[count] = row[word]
    return count + 1


@inner
def _end(out, start, family, key, values, count):
    """Write a change's head and, behind the numbers, its values; returns where the next one begins."""
    out[start] = _U(family) << _U(COUNT_BITS) | _U(count)
    out[start + 1] = key
    at = start + 2 + (count + 3) // 4
    for n in range(count):
        out[at + n] = values[n]
    return at + count


@inner
def _ring(out, numbers, values, count, row, before, total, ring, length):
    """The positions of a ring that were written: from where its next one was before to where it is, or all when that may be a round or the
    row began anew."""
    shift = _U(8 * ring[0])
    first = np.int64((before[0] >> shift) & _U(255))
    written = (np.int64((row[0] >> shift) & _U(255)) - first) % length
    if np.int64(row[total]) - np.int64(before[total]) >= length or row[0] >> _BEGUN != before[0] >> _BEGUN:
        first, written = np.int64(0), np.int64(length)
    for n in range(written):
        count = _put(out, numbers, values, count, row, ring[1] + (first + n) % length)
    return count


@kernel
def changes(rows, keys, places, before, stamp, rings, length, total, family, values, out, at, changed):
    """What rows uint64[places,w] at places int64[n] have that before uint64[n,b] has not, into out uint64[] from `at` on, and which places
    changed into changed int64[]. Words from b on are rings of `length` words: rings int64[r,2] are the byte of the row's first word
    that says where the next one goes, and the ring's first word; word `total` counts what may have gone into them.
    `stamp`: the first word of a row that changed, 0 for what it is. Returns (at, changed, how many of them are new: their first was 0)."""
    found, new = 0, 0
    for i in range(len(places)):
        row, count = rows[places[i]], 0
        for word in range(1, before.shape[1]):
            if row[word] != before[i, word]:
                count = _put(out, at + 2, values, count, row, word)
        for r in range(len(rings)):
            count = _ring(out, at + 2, values, count, row, before[i], total, rings[r], length)
        if count == 0 and row[0] == before[i, 0]:
            continue
        if stamp != _NONE:
            row[0] = stamp
        if row[0] != before[i, 0]:
            count = _put(out, at + 2, values, count, row, 0)
        new += before[i, 0] == _NONE
        at = _end(out, at, family, keys[places[i]], values, count)
        changed[found] = places[i]
        found += 1
    return at, found, new


@kernel
def keys_changed(words, families, keys):
    """Family int64[] and key uint64[] of each change in words uint64[]; returns how many there are."""
    at, count = np.int64(0), 0
    while at < len(words):
        families[count], keys[count] = words[at] >> _U(COUNT_BITS), words[at + 1]
        changed = np.int64(words[at] & _U((1 << COUNT_BITS) - 1))
        at += 2 + (changed + 3) // 4 + changed
        count += 1
    return count


@inner
def _change(words, at, changed, values, row):
    """Do the change at a word, of `changed` words whose values begin at `values`, to its row."""
    if changed == 0:
        for n in range(len(row)):
            row[n] = _NONE
    for n in range(changed):
        word = (words[at + 2 + n // 4] >> _U(16 * (n % 4))) & _U(WORDS_MAX - 1)
        row[np.int64(word)] = words[values + n]


@kernel
def redo(words, family, keys, rows):
    """Put a family's changes in words uint64[] into rows uint64[n,w], those of keys uint64[n], ascending; others are left out."""
    at = np.int64(0)
    while at < len(words):
        changed = np.int64(words[at] & _U((1 << COUNT_BITS) - 1))
        values = at + 2 + (changed + 3) // 4
        place = np.searchsorted(keys, words[at + 1])
        if words[at] >> _U(COUNT_BITS) == _U(family) and place < len(keys) and keys[place] == words[at + 1]:
            _change(words, at, changed, values, rows[place])
        at = values + changed


@kernel
def put(words, family, seats, keys, rows):
    """As `redo`, into the rows of a table, which has all of them."""
    at = np.int64(0)
    while at < len(words):
        changed = np.int64(words[at] & _U((1 << COUNT_BITS) - 1))
        values = at + 2 + (changed + 3) // 4
        if words[at] >> _U(COUNT_BITS) == _U(family):
            _change(words, at, changed, values, rows[seats[_find(seats, keys, words[at + 1])]])
        at = values + changed


@kernel
def order_of(source, partition, offset, of, sources, partitions, highest):
    """Which partition each cause is of, into of int64[n]: a place in sources, partitions int64[m] that are met, and highest int64[m], which
    hold -1. Returns (how many partitions, or -1 when there are more than m; whether the offsets of each only rise)."""
    met, rising = 0, True
    for i in range(len(offset)):
        place = 0
        while place < met and (sources[place] != source[i] or partitions[place] != partition[i]):
            place += 1
        if place == met:
            if met == len(sources):
                return -1, False
            sources[met], partitions[met] = source[i], partition[i]
            met += 1
        of[i] = place
        rising &= offset[i] > highest[place]
        highest[place] = max(highest[place], offset[i])
    return met, rising


@inner
def _mixed(words, sums):
    for n in range(len(words)):
        lane = n & 3
        sums[lane] = (sums[lane] ^ words[n]) * _U(0x9FB21C651E98DF25)
        sums[lane] ^= sums[lane] >> _U(29)


@kernel
def checksum(frame, words, rest, sums):
    """uint64 of three uint64[]: four lanes multiplied and mixed, as xxHash does (Collet, 2012). sums uint64[4] are changed."""
    for lane in range(4):
        sums[lane] = _U(0x9E3779B97F4A7C15) + _U(lane)
    _mixed(frame, sums)
    _mixed(words, sums)
    _mixed(rest, sums)
    total = _U(len(words))
    for lane in range(4):
        total = (total ^ sums[lane]) * _U(0xC4CEB9FE1A85EC53)
        total ^= total >> _U(32)
    return total
