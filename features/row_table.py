"""The rows of a family that are in memory: those that were read or written last, as they lie in the store or as events changed them since.

While nothing was evicted since all of the store's rows were read, what is not in memory is nowhere, and the store is not asked.
A fold changes rows in place; `changes` says which words, for the log, and the rows are dirty from then on: written whole to the store
later, by `oldest` first. A dirty row stays in memory. Rows that are clean make room for others. Key 0 is nobody's: its row is blank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from headrace.features import row_kernels
from headrace.features.layout import RING, USER_ROW

PLACE_BYTES = 64  # beside a row: its key, its seats, when it was used, its places in lists
_NO_RINGS = np.zeros((0, 2), np.int64)
Load = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""(rows, which were found) of distinct keys, from the store."""


class Rings:
    """The end of a row that is rings of `length` positions; see row_kernels.changes."""

    def __init__(self, rings: np.ndarray, length: int, total: int, before: int) -> None:
        self.rings, self.length, self.total = rings, length, total
        self.before = before  # words of a row ahead of them


def user_rings() -> Rings:
    """Those of USER_ROW."""
    at = {name: place for name, (_, place) in (USER_ROW.fields or {}).items()}  # type: ignore[misc]
    rings = [(at[f"{name}_next"], at[name] // 8) for name in ("recent", "clicked", "event")]
    return Rings(np.array(rings, np.int64), RING, at["events_total"] // 8, at["recent"] // 8)


class Changes:
    """Words of a block's changes, of all families: `words` up to `at`."""

    def __init__(self) -> None:
        self.words, self.at = np.zeros(1 << 16, np.uint64), 0

    def room(self, words: int) -> None:
        if self.at + words > len(self.words):
            self.words = np.concatenate([self.words[: self.at], np.empty(self.at + 2 * words, np.uint64)])


class RowTable:
    """Up to `places` rows of `words` words, in memory uint64[(places + 1) * words] that holds zeros. `number` is the family's in the log,
    `load` reads rows from the store."""

    def __init__(self, number: int, words: int, memory: np.ndarray, load: Load, rings: Rings | None = None) -> None:
        assert words <= row_kernels.WORDS_MAX, f"a row of {words} words; a change names them by 16 bits"
        self.number, self.words, self.rows = number, words, memory.reshape(-1, words)
        self._load, self._rings = load, rings or Rings(_NO_RINGS, 1, 0, words)
        places = len(self.rows)
        self.keys = np.zeros(places, np.uint64)
        self._seats = np.zeros(1 << (2 * places - 1).bit_length(), np.int32)
        self._used, self._met = np.zeros(places, np.int64), np.zeros(places, np.int64)
        self._free, self._left, self._hand = np.arange(places - 1, 0, -1), places - 1, 0
        self._whole = False  # whether every row of the family is here
        self._dirty = np.zeros(places, np.int64)  # the log's number at which a row's first change that is not in the store stands
        self._queue, self._head, self._waiting = np.zeros(places, np.int64), 0, 0  # dirty places, the oldest first
        self._touched, self._count = np.zeros(places, np.int64), 0
        self._before, self._holding, self._fresh = np.zeros((0, 0), np.uint64), 0, 0  # what `undo` needs
        self._values = np.zeros(words, np.uint64)

    @property
    def places(self) -> int:
        """Rows that there is room for."""
        return len(self.rows) - 1

    @property
    def dirty(self) -> int:
        return self._waiting

    def fill(self, keys: Iterator[np.ndarray], most: int) -> None:
        """Read the family's rows, as long as there are at most so many; before any turn. `keys`: all of them, distinct, in parts."""
        for part in keys:
            if self.places - self._left + len(part) > most:
                return
            self._insert(part, self._load(part)[0])
        self._whole = True

    def look(self, turn: int, keys: np.ndarray) -> np.ndarray:
        """Places int64[n] of keys uint64[n], 0 (the blank row) for one that there is not. At most `places` distinct ones a turn."""
        found, missing = self._look(turn, keys)
        return self._bring(turn, keys, found, blank=False) if missing else found

    def hold(self, turn: int, keys: np.ndarray) -> np.ndarray:
        """As `look`, to be changed: one that there is not gets a blank row of its own, which is kept if it changes. Once a turn."""
        found, missing = self._look(turn, keys)
        if missing:
            found = self._bring(turn, keys, found, blank=True)
        self._before = self.rows[self._touched[: self._count], : self._rings.before]
        self._holding, self._fresh = turn, 0
        return found

    def _look(self, turn: int, keys: np.ndarray) -> tuple[np.ndarray, int]:
        found = np.empty(len(keys), np.int64)
        self._count, missing = row_kernels.look(self._seats, self.keys, self._used, turn, keys, found, self._touched, 0)
        return found, missing

    def _bring(self, turn: int, keys: np.ndarray, found: np.ndarray, *, blank: bool) -> np.ndarray:
        """Take what is not held from the store; places int64[n] of all."""
        if self._whole and not blank:
            return found
        absent = np.unique(keys[(found == 0) & (keys != 0)])
        if self._whole:
            rows, there = np.zeros((len(absent), self.words), np.uint64), np.zeros(len(absent), bool)
        else:
            rows, there = self._load(absent)
        if not blank:
            absent, rows = absent[there], rows[there]
        self._make_room(turn, len(absent))
        self._insert(absent, rows)
        self._count, _ = row_kernels.look(self._seats, self.keys, self._used, turn, keys, found, self._touched, self._count)
        return found

    def _insert(self, keys: np.ndarray, rows: np.ndarray) -> None:
        places = np.empty(len(keys), np.int64)
        self._left = row_kernels.insert(self._seats, self.keys, self._free, self._left, keys, places)
        self.rows[places] = rows

    def _make_room(self, turn: int, wanted: int) -> None:
        if self._left >= wanted:
            return
        self._whole = False
        self._left, self._hand = row_kernels.evict(self._seats, self.keys, self._used, self._met, self._dirty, self._free, self._left, turn,
                                                   self._hand, wanted)
        assert self._left >= wanted, f"{wanted} rows beside {self._count} others and {self.dirty} dirty ones; room for {self.places}"

    def changes(self, log: int, stamp: int, out: Changes) -> tuple[np.ndarray, int]:
        """What was changed of the rows held last, into `out`; they are dirty since the log's number `log`. Places int64[m] of rows that
        changed, and how many of them are new. `stamp`: the first word of a row that changed, 0 for what it is."""
        touched, rings = self._touched[: self._count], self._rings
        out.room(self._count * (2 + (self.words + 3) // 4 + self.words))
        changed = np.empty(self._count, np.int64)
        out.at, count, new = row_kernels.changes(self.rows, self.keys, touched, self._before, np.uint64(stamp), rings.rings, rings.length,
                                                 rings.total, self.number, self._values, out.words, out.at, changed)
        changed = changed[:count]
        self._soil(log, changed)
        return changed, int(new)

    def put(self, turn: int, log: int, keys: np.ndarray, words: np.ndarray) -> np.ndarray:
        """Have the rows of distinct keys uint64[n] be as the changes in `words`, which are of these keys, say; dirty since the log's number
        `log`. Their places int64[n]."""
        places = self.hold(turn, keys)
        row_kernels.put(words, self.number, self._seats, self.keys, self.rows)
        self._soil(log, places)
        return places

    def _soil(self, log: int, places: np.ndarray) -> None:
        first = places[self._dirty[places] == 0]
        self._dirty[first] = log
        self._queue[(self._head + self._waiting + np.arange(len(first))) % len(self._queue)] = first
        self._waiting += len(first)
        self._fresh = len(first)

    def deleted(self, keys: np.ndarray, out: Changes) -> None:
        """Say into `out` that the rows of distinct keys uint64[n] are deleted."""
        out.room(2 * len(keys))
        heads = np.full_like(keys, self.number << row_kernels.COUNT_BITS)
        out.words[out.at : out.at + 2 * len(keys)] = np.stack([heads, keys], 1).reshape(-1)
        out.at += 2 * len(keys)

    def keep(self) -> None:
        """What was changed is in the log: it is not undone any more."""
        self._holding = 0

    def undo(self, turn: int, log: Iterator[np.ndarray]) -> None:
        """Have the rows held in this turn, the last one, be as before it: what the store has, changed by the words in `log`."""
        if self._holding != turn:
            return
        self._waiting -= self._fresh
        self._dirty[self._queue[(self._head + self._waiting + np.arange(self._fresh)) % len(self._queue)]] = 0
        places = self._touched[: self._count]
        places = places[np.argsort(self.keys[places])]
        rows, _ = self._load(self.keys[places])
        for words in log:
            row_kernels.redo(words, self.number, self.keys[places], rows)
        self.rows[places], self._fresh = rows, 0

    def since(self, after: int = 0) -> int:
        """The log's number from which on a dirty row, but for the first `after`, needs it; very large when there is none."""
        return int(self._dirty[self._queue[(self._head + after) % len(self._queue)]]) if self._waiting > after else 1 << 62

    def oldest(self, count: int) -> np.ndarray:
        """Places int64[m] of the rows that have been dirty longest, up to `count`."""
        return self._queue[(self._head + np.arange(min(count, self._waiting))) % len(self._queue)]

    def written(self, count: int) -> None:
        """The first `count` of `oldest` are in the store."""
        self._dirty[self.oldest(count)] = 0
        self._head, self._waiting = (self._head + count) % len(self._queue), self._waiting - count

    def drop(self, keys: np.ndarray) -> None:
        """Hold none of these distinct keys uint64[n] any more. Only of clean rows."""
        found = self.look_held(keys)
        self._left = row_kernels.drop(self._seats, self.keys, self._free, self._left, found)
        assert not self._dirty[found].any(), "a dirty row is written before it is dropped"

    def look_held(self, keys: np.ndarray) -> np.ndarray:
        """Places int64[m] of those of distinct keys that are in memory."""
        found = self._held(keys)
        return found[found != 0]

    def dirty_of(self, keys: np.ndarray) -> np.ndarray:
        """bool[n] of keys uint64[n]: the row is in memory, and not in the store as it is."""
        return self._dirty[self._held(keys)] != 0

    def _held(self, keys: np.ndarray) -> np.ndarray:
        found = np.empty(len(keys), np.int64)
        row_kernels.find(self._seats, self.keys, keys, found)
        return found
