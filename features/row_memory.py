"""The rows of all families that are in memory, and the log of their changes: physical redo, fuzzy checkpoints (Mohan et al., ARIES, 1992).

A block of events is written as the words that it changed, with all else that it writes, as one record of the log; the rows themselves are
written later, some at a time, those first that have been dirty longest, and the log is cut up to the oldest that is still dirty. So a row
that a hundred events change is written once, and what a kill leaves is made whole when the store is opened (redo.py): changes are what
words are, so doing them again over a newer row ends in the same row.
"""

from __future__ import annotations

import itertools
import json
from collections import deque
from collections.abc import Iterator

import numpy as np

from headrace.features import row_kernels
from headrace.features.block_log import Record, Writes
from headrace.features.row_table import PLACE_BYTES, Changes, Load, Rings, RowTable
from headrace.features.store import Batch, FeatureStore
from headrace.features.tail import Tail

BLOCK = 1024  # events, or pairs read, that have their rows in memory at once
FAMILIES_NOTE, BLOCK_KEY = b"log families", b"block"
_SOME, _MANY = 32, 1024  # rows written a block when the log is half full, and when it is full


def last_block(store: FeatureStore) -> int:
    """The number of the last block whose writes the store has, 0 for none."""
    return int.from_bytes(store.note(BLOCK_KEY) or b"", "big")


def _keys(store: FeatureStore, family: str) -> Iterator[np.ndarray]:
    """All keys of a family's rows, uint64[n] of up to BLOCK."""
    held = (key for key, _ in store.scan(family))
    while part := list(itertools.islice(held, BLOCK)):
        yield np.frombuffer(b"".join(part), ">u8").astype(np.uint64)


def put_rows(batch: Batch, family: str, keys: np.ndarray, rows: np.ndarray) -> None:
    """Rows uint64[n,w] of distinct keys uint64[n] into a batch; one whose first word is 0 is deleted."""
    there = rows[:, 0] != 0
    batch.put_rows(family, keys[there], rows[there].view(f"V{8 * rows.shape[1]}").reshape(-1))
    for key in keys[~there].tolist():
        batch.delete(family, key.to_bytes(8, "big"))


class RowMemory:
    """`log_bytes`: of changes that are kept before rows are written. `rows_bytes`: of rows a family. The log of `store` is empty."""

    def __init__(self, store: FeatureStore, *, log_bytes: int, rows_bytes: int, tail: Tail | None = None) -> None:
        self._store, self._log_bytes, self._rows_bytes, self._tail = store, log_bytes, rows_bytes, tail
        store.log.segment_bytes = max(1, log_bytes // 16)
        self.number = 1 + last_block(store)  # of the block that comes next
        self._turn = 0
        self.tables: dict[str, RowTable] = {}
        self._room: dict[str, int] = {}
        self._layouts: list[tuple[str, int, int]] = []
        self._changes = Changes()
        self._log: deque[tuple[int, int]] = deque()  # (number, bytes), the oldest first
        self._held = 0

    def places(self, words: int, rows_max: int) -> int:
        """Rows of so many words that are kept in memory, of a family of which an event has `rows_max`."""
        return max(self._rows_bytes // (8 * words + PLACE_BYTES), 4 * BLOCK * rows_max)

    def add(self, family: str, memory: np.ndarray, words: int, load: Load, *, rows_max: int = 1,
            layout: int = 0, rings: Rings | None = None) -> RowTable:
        """A table of `family` in memory uint64[(places + 1) * words]; `layout` is told when a row is redone."""
        table = self.tables[family] = RowTable(len(self.tables), words, memory, load, rings)
        self._room[family] = BLOCK * rows_max
        self._layouts.append((family, words, layout))
        return table

    def opened(self) -> None:
        """All families are there, and the log is empty: from now on it is of them. Rows are read, of families that are small enough all."""
        for family, table in self.tables.items():
            table.fill(_keys(self._store, family), table.places - self._room[family])
        said = json.dumps(self._layouts).encode()
        if said != self._store.note(FAMILIES_NOTE):
            self._store.put_note(FAMILIES_NOTE, said)

    def turn(self) -> int:
        """A number for the next block or reading, of at most BLOCK events or pairs."""
        self._turn += 1
        return self._turn

    def changed(self, family: str, stamp: int = 0) -> tuple[np.ndarray, int]:
        """Take what the block changed of a family into the log; see RowTable.changes."""
        return self.tables[family].changes(self.number, stamp, self._changes)

    def clean(self, family: str, keys: np.ndarray) -> np.ndarray:
        """Those of keys uint64[n] whose rows are in the store as they are."""
        return keys[~self.tables[family].dirty_of(keys)] if family in self.tables else keys

    def deleted(self, family: str, keys: np.ndarray) -> Writes:
        """The deletion of clean rows of distinct keys uint64[n], in the log and as writes: to be committed; then they are to be dropped."""
        if family in self.tables:
            self.tables[family].deleted(keys, self._changes)
        writes = Writes()
        for key in keys.tolist():
            writes.delete(family, key.to_bytes(8, "big"))
        return writes

    def drop(self, family: str, keys: np.ndarray) -> None:
        """Hold none of these rows, which are gone from the store, in memory."""
        if family in self.tables:
            self.tables[family].drop(keys)

    def commit(self, writes: Writes) -> None:
        """Write the block: its changes and `writes` to the log, then `writes` to the store. Once the log has it, it is done: `number` is
        the next one's; when the store then does not take it, it raises, and opening the store again writes the rest."""
        writes.put("meta", BLOCK_KEY, self.number.to_bytes(8, "big"))
        self._commit(self._changes.words[: self._changes.at], writes)

    def follow(self, record: Record) -> dict[str, np.ndarray]:
        """Do and write what another store's block of the number that comes next did; places of the rows that it changed, by family."""
        assert record.number == self.number, f"block {record.number} comes after {self.number - 1}"
        turn, most = self.turn(), len(record.words) // row_kernels.CHANGE_MIN
        family, key = np.empty(most, np.int64), np.empty(most, np.uint64)
        count, places = row_kernels.keys_changed(record.words, family, key), dict[str, np.ndarray]()
        for name, table in self.tables.items():
            keys = np.unique(key[:count][family[:count] == table.number])
            if len(keys):
                places[name] = table.put(turn, self.number, keys, record.words)
        self._commit(record.words, record.writes)
        return places

    def _commit(self, words: np.ndarray, writes: Writes) -> None:
        size = self._store.log.append(self.number, words, writes)
        if self._tail is not None:
            self._tail.put(self.number, words, writes)
        self._log.append((self.number, size))
        self._held += size
        self._changes.at = 0
        self.number += 1
        for table in self.tables.values():
            table.keep()
        self._store.write(self._store.batch(writes))

    @property
    def first(self) -> int:
        """The oldest block that rows in the store are without; the next one where there is none."""
        return self._log[0][0] if self._log else self.number

    @property
    def blocks(self) -> int:
        """Blocks in the log that a start after a kill would redo."""
        return len(self._log)

    @property
    def settling(self) -> bool:
        """Whether the log is half full, so that rows are written."""
        return 2 * self._held > self._log_bytes

    def settle(self) -> None:
        """After a block: write some of the rows that have been dirty for long."""
        if self.settling:  # the more, the fuller
            self._write(int(_SOME + (_MANY - _SOME) * min(1.0, 2 * self._held / self._log_bytes - 1) ** 3))
        for family, table in self.tables.items():
            while table.places - table.dirty < self._room[family]:  # the next block may need as many rows
                self._write(_MANY, family)

    def write_some(self) -> None:
        """Write the rows that have been dirty longest."""
        if any(table.dirty for table in self.tables.values()):
            self._write(_MANY)

    def undo(self) -> None:
        """Have all rows be as they were before this turn, whose block is not written."""
        for table in self.tables.values():
            table.undo(self._turn, (record.words for record in self._store.log.records()))
        self._changes.at = 0

    def flush(self) -> None:
        """Write every row that is dirty, and empty the log."""
        while any(table.dirty for table in self.tables.values()):
            self._write(4 * _MANY)
        self._log.clear()
        self._held = 0
        self._store.log.clear()

    def _write(self, count: int, only: str | None = None) -> None:
        """Write up to `count` rows, the oldest first (`only` of one family), and cut the log."""
        batch, taken = self._store.batch(), dict[str, int]()
        while count > 0 and (family := only or self._oldest(taken)) is not None:
            table = self.tables[family]
            places = table.oldest(count)
            put_rows(batch, family, table.keys[places], table.rows[places])
            taken[family] = len(places)
            count -= max(len(places), 1)
            if only:
                break
        since = min((self.tables[family].since(taken.get(family, 0)) for family in self.tables), default=1 << 62)
        self._store.write(batch)
        for family, rows in taken.items():
            self.tables[family].written(rows)
        while self._log and self._log[0][0] < since:
            self._held -= self._log.popleft()[1]
        self._store.log.cut(self.first)

    def _oldest(self, taken: dict[str, int]) -> str | None:
        """The family of which a row is dirty longest, but for those that are taken."""
        left = [(table.since(), family) for family, table in self.tables.items() if table.dirty and family not in taken]
        return min(left)[1] if left else None
