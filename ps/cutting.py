"""A cut that is copied in small steps between pushes: every row as it was when the cut began.

Whatever changes a row meanwhile puts it away first, once, unless it has been copied (copy before write). So a shard stands still for the
rings and for some thousand rows at a time, never for all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.ps.snapshot import Cut, TableCut
from headrace.ps.stored import Stored
from headrace.ps.table import DIRTY, LIVE, NO_KEYS, SAVED, Table

if TYPE_CHECKING:
    from headrace.ps.shard import Shard

STEP_ROWS = 4096
LOOKED_AT = 8  # rows that a step of a cut of less than all looks at, for each that it may copy


class TableCutting:
    """Of one table. `save`, `step` and `end` in the shard's turn, `stored` afterwards, anywhere. `since`: from now on the table notes what
    becomes of it, for cuts of that alone."""

    def __init__(self, table: Table, since: bool = False) -> None:
        assert table.cutting is None, "one cut of a table at a time"
        self._table, self._since = table, since
        self._arrays = table.arrays()
        self._high, self._cursor = len(self._arrays.keys), 0
        self._held: list[np.ndarray] = self._room()
        self._put_away: list[np.ndarray] = []
        self._saved: list[tuple[np.ndarray, list[np.ndarray]]] = []
        self._rest = table.stored_rest()
        table.cutting = self
        if since:
            table.dropped = []

    def _room(self) -> list[np.ndarray]:
        return [np.empty_like(array) for array in self._arrays]

    def save(self, at: np.ndarray) -> None:
        """Before the rows int64[n], all distinct, are changed, removed or given to others."""
        at = at[(at >= self._cursor) & (at < self._high)]
        at = at[self._arrays.flags[at] & SAVED == 0]
        if len(at):
            self._keep(at)
            self._arrays.flags[at] |= SAVED
            self._put_away.append(at)

    def _keep(self, at: np.ndarray) -> None:
        self._saved.append((at, self._taken(at)))

    def _taken(self, at: np.ndarray) -> list[np.ndarray]:
        return [array[at] if len(array) else array for array in self._arrays]  # a table may keep no times

    def step(self, rows: int = STEP_ROWS) -> bool:
        """Copy the next rows; whether some are left."""
        part = slice(self._cursor, min(self._cursor + rows, self._high))
        for held, array in zip(self._held, self._arrays, strict=True):
            held[part] = array[part]
        if self._since:  # what is put away was pushed after the cut began
            flags = self._arrays.flags[part]
            flags[flags & SAVED == 0] &= ~np.uint8(DIRTY)
        self._cursor = part.stop
        return self._cursor < self._high

    def end(self) -> None:
        """Nothing is put away any more. A second time it does nothing."""
        if self._table.cutting is self:
            for at in self._put_away:
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


class DeltaCutting(TableCutting):
    """Of one table, what became of it since its last cut of all (made with `since`): the rows pushed since, and the keys that went."""

    def __init__(self, table: Table) -> None:
        assert table.dropped is not None, "there is a cut of all that noted what came after"
        super().__init__(table)
        self.removed = np.concatenate([NO_KEYS, *table.dropped])
        self._changed = table.keys_at(self._rest.changed)

    def _room(self) -> list[np.ndarray]:
        return []

    def _keep(self, at: np.ndarray) -> None:
        self._take(at[self._arrays.flags[at] & (DIRTY | LIVE) == DIRTY | LIVE])

    def _take(self, at: np.ndarray) -> None:
        if len(at):
            self._saved.append((at, self._taken(at)))

    def step(self, rows: int = STEP_ROWS) -> bool:
        """Copy some of the next rows that were pushed since; whether some are left."""
        stop = min(self._cursor + LOOKED_AT * rows, self._high)
        at = self._cursor + np.flatnonzero(self._arrays.flags[self._cursor : stop] & (DIRTY | LIVE | SAVED) == DIRTY | LIVE)
        if len(at) > rows:
            at, stop = at[:rows], int(at[rows])
        self._take(at)
        self._cursor = stop
        return self._cursor < self._high

    def stored(self) -> Stored:
        """The rows pushed since and in use when this was made; `changed` are keys."""
        assert self._cursor == self._high, "step until nothing is left"
        parts = [arrays for _, arrays in self._saved]
        keys, rows, _, touched = ([array[:0] for array in self._arrays] if not parts else
                                  [np.concatenate(arrays) for arrays in zip(*parts, strict=True)])
        return self._rest._replace(keys=keys, rows=rows, touched=touched, changed=self._changed)


class Cutting:
    """Of a shard, begun in its turn. Step in its turn until that gives False; `cut` afterwards, anywhere. `base`: sequence of the cut of
    all since which this one says what came, 0: it is of all; `since`: of all, and such cuts may follow."""

    def __init__(self, shard: Shard, base: int = 0, since: bool = False) -> None:
        self.sequence, self.epoch, self.base = shard.sequence, shard.epoch, base
        self._rings, self._firsts, self._clocks = list(shard.rings.items()), list(shard.rings.firsts()), dict(shard.clocks)
        self._layouts = {at: (shard.specs[at[0]].version, list(table.spec.layout())) for at, table in shard.tables.items()}
        self._tables: dict[tuple[str, str], TableCutting] = {}
        try:
            for at, table in shard.tables.items():
                self._tables[at] = DeltaCutting(table) if base else TableCutting(table, since)
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
        """What Shard.cut would have given when this was made, or what came since `base`."""
        tables = {}
        for at, table in self._tables.items():
            removed = table.removed if isinstance(table, DeltaCutting) else None
            tables[at] = TableCut(*self._layouts[at], table.stored(), removed)
        return Cut(self.sequence, self.epoch, tables, self._rings, self._firsts, self._clocks, self.base)
