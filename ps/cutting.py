"""A cut that is copied in small steps between pushes: every row as it was when the cut began.

Whatever changes a row meanwhile puts it away first, once, unless it has been copied (copy before write). So a shard stands still for the
rings and for some thousand rows at a time, never for all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.ps.snapshot import Cut, TableCut
from headrace.ps.stored import Stored
from headrace.ps.table import LIVE, SAVED, Table

if TYPE_CHECKING:
    from headrace.ps.shard import Shard

STEP_ROWS = 4096


class TableCutting:
    """Of one table. `save`, `step` and `end` in the shard's turn, `stored` afterwards, anywhere."""

    def __init__(self, table: Table) -> None:
        assert table.cutting is None, "one cut of a table at a time"
        self._table = table
        self._arrays = table.arrays()
        self._high, self._cursor = len(self._arrays.keys), 0
        self._held: list[np.ndarray] = [np.empty_like(array) for array in self._arrays]
        self._saved: list[tuple[np.ndarray, list[np.ndarray]]] = []
        self._rest = table.stored_rest()
        table.cutting = self

    def save(self, at: np.ndarray) -> None:
        """Before the rows int64[n], all distinct, are changed, removed or given to others."""
        at = at[(at >= self._cursor) & (at < self._high)]
        at = at[self._arrays.flags[at] & SAVED == 0]
        if len(at):
            self._saved.append((at, [array[at] if len(array) else array for array in self._arrays]))  # a table may keep no times
            self._arrays.flags[at] |= SAVED

    def step(self, rows: int = STEP_ROWS) -> bool:
        """Copy the next rows; whether some are left."""
        part = slice(self._cursor, min(self._cursor + rows, self._high))
        for held, array in zip(self._held, self._arrays, strict=True):
            held[part] = array[part]
        self._cursor = part.stop
        return self._cursor < self._high

    def end(self) -> None:
        """Nothing is put away any more. A second time it does nothing."""
        if self._table.cutting is self:
            for at, _ in self._saved:
                self._arrays.flags[at] &= ~np.uint8(SAVED)
            self._table.cutting = None

    def stored(self) -> Stored:
        """What Table.stored would have given when this was made."""
        assert self._cursor == self._high, "step until nothing is left"
        for at, arrays in self._saved:
            for held, array in zip(self._held, arrays, strict=True):
                if len(held):
                    held[at] = array
        self._saved = []
        keys, rows, flags, touched = self._held
        live = flags & LIVE != 0
        place = np.cumsum(live) - 1
        changed = self._rest.changed
        kept: list[Any] = [keys, rows, touched] if live.all() else [array[live] if len(array) else array for array in (keys, rows, touched)]
        return self._rest._replace(keys=kept[0], rows=kept[1], touched=kept[2], changed=place[changed[live[changed]]])


class Cutting:
    """Of a shard, begun in its turn. Step in its turn until that gives False; `cut` afterwards, anywhere."""

    def __init__(self, shard: Shard) -> None:
        self.sequence, self.epoch = shard.sequence, shard.epoch
        self._rings, self._firsts, self._clocks = list(shard.rings.items()), list(shard.rings.firsts()), dict(shard.clocks)
        self._layouts = {at: (shard.specs[at[0]].version, list(table.spec.layout())) for at, table in shard.tables.items()}
        self._tables: dict[tuple[str, str], TableCutting] = {}
        try:
            for at, table in shard.tables.items():
                self._tables[at] = TableCutting(table)
        except BaseException:
            self.end()
            raise
        self._left = list(self._tables.values())

    def step(self) -> bool:
        """Copy some rows; whether some are left. With the last the cut ends: what is changed from then on is no longer put away."""
        while self._left:
            if self._left[0].step():
                return True
            self._left.pop(0)
        self.end()
        return False

    def end(self) -> None:
        for table in self._tables.values():
            table.end()

    def cut(self) -> Cut:
        """What Shard.cut would have given when this was made."""
        tables = {at: TableCut(*self._layouts[at], table.stored()) for at, table in self._tables.items()}
        return Cut(self.sequence, self.epoch, tables, self._rings, self._firsts, self._clocks)
