"""A table's state as a snapshot has it, and as it lies in memory."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from headrace.ps.admission import State


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


class Arrays(NamedTuple):
    """What lies by row number, views of the rows ever given: keys uint64, rows [, width], flags uint8, touched uint32 or none."""

    keys: np.ndarray
    rows: np.ndarray
    flags: np.ndarray
    touched: np.ndarray


class Saves(Protocol):
    """A cut that is being taken: it is told of rows before they change."""

    def save(self, at: np.ndarray) -> None: ...
