"""A table's state as a snapshot has it, and as it lies in memory."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from headrace.ps.admission import State
from headrace.ps.index import Index, kernel_input


class Stored(NamedTuple):
    """A table as a snapshot has it, by position: keys uint64[n], rows [n, width], touched uint32[n], changed int64[c] positions of rows not
    published yet, gone uint64[g] keys removed and not published, published int64[64]; admission: what waits there."""

    keys: np.ndarray
    rows: np.ndarray
    touched: np.ndarray
    changed: np.ndarray
    gone: np.ndarray
    published: np.ndarray
    admission: State


class Delta(NamedTuple):
    """What became of a table since a full cut, by key: what is in `stored`, whose rows are those pushed since and live, and whose `changed`
    are keys uint64[c]; removed uint64[r] keys, perhaps come again since, when they are among the rows."""

    stored: Stored
    removed: np.ndarray

    def over(self, full: Stored) -> Stored:
        """The table at the time of the delta: `full` with what became of it."""
        index = Index()
        index.load_all(full.keys)
        live = np.ones(len(full.keys), np.bool_)
        live[_found(index, self.removed)] = False
        held = self.stored
        at = index.find(kernel_input(held.keys))
        known = at >= 0
        live[at[known]] = True
        timed = len(full.touched) > 0 or len(held.touched) > 0
        keys = np.concatenate([full.keys, held.keys[~known]])
        rows = np.concatenate([full.rows, held.rows[~known]])
        rows[at[known]] = held.rows[known]
        touched = full.touched
        if timed:
            touched = np.concatenate([full.touched, held.touched[~known]])
            touched[at[known]] = held.touched[known]
        live = np.concatenate([live, np.ones(int((~known).sum()), np.bool_)])
        if not live.all():
            keys, rows, touched = keys[live], rows[live], touched[live] if timed else touched
        index.load_all(kernel_input(keys))
        return held._replace(keys=keys, rows=rows, touched=touched, changed=_found(index, held.changed))


def _found(index: Index, keys: np.ndarray) -> np.ndarray:
    """int64[k] places of those of uint64[n] that are held."""
    at = index.find(kernel_input(keys))
    return at[at >= 0]


class Arrays(NamedTuple):
    """What lies by row number, views of the rows ever given: keys uint64, rows [, width], flags uint8, touched uint32 or none."""

    keys: np.ndarray
    rows: np.ndarray
    flags: np.ndarray
    touched: np.ndarray


class Saves(Protocol):
    """A cut that is being taken: it is told of rows before they change."""

    def save(self, at: np.ndarray) -> None: ...
