"""One table of one model on one shard: keys -> rows of weights and optimizer slots."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from headrace.ps import kernels
from headrace.ps.index import CALL_ROWS, Index, reserve
from headrace.ps.optimizers import OPTIMIZERS
from headrace.ps.spec import TableSpec

SLOTS = 64


def kernel_input(array: np.ndarray) -> np.ndarray:
    """`array` contiguous, aligned and read-only: one specialisation of a kernel serves arrays of any origin."""
    view = np.require(array, None, ["C", "A"]).view()
    view.flags.writeable = False
    return view


class Table:
    """Rows in one arena, found by an Index. Address space is reserved for `rows_max` rows; memory is used as rows come.

    One thread calls it. Kernels work on at most 4,096 rows a call. `published` int64[64]: last sequence published a slot (ps/publish.py).
    """

    def __init__(self, spec: TableSpec, rows_max: int) -> None:
        self.spec = spec
        self.rows_max = rows_max
        self.dtype = np.dtype(spec.dtype)
        self.published = np.zeros(SLOTS, np.int64)
        self._index = Index()
        self._keys = reserve((rows_max,), np.uint64)
        self._rows = reserve((rows_max, spec.width), self.dtype)
        self._flags = reserve((rows_max,), np.uint8)
        self._changed = reserve((rows_max,), np.int64)
        self._changed_count = 0
        self.respec(spec)

    def respec(self, spec: TableSpec) -> None:
        """Take other parameters from here on; the layout stays."""
        assert spec.layout() == self.spec.layout(), "a layout is for ever within a model version"
        self.spec = spec
        self._optimizer = OPTIMIZERS[spec.optimizer]
        self._values = self._optimizer.values(spec.params)

    def __len__(self) -> int:
        return self._index.count

    @property
    def squares(self) -> bool:
        """Whether grads may be followed by the sums of their squares."""
        return self._optimizer.squares

    @property
    def load(self) -> float:
        return self._index.load

    @property
    def bytes(self) -> int:
        """Bytes in use: rows, keys, index."""
        return len(self) * (self._rows.itemsize * self.spec.width + 8) + self._index.bytes

    def sum(self) -> int:
        """Sum of all weights of an int64 table."""
        return int(self._rows[: len(self), : self.spec.dim].sum())

    def pull(self, keys: np.ndarray) -> np.ndarray:
        """[n, dim] weights of uint64[n]; an unknown key gives its seeded initial value and is not inserted."""
        keys = kernel_input(keys)
        out = np.empty((len(keys), self.spec.dim), self.dtype)
        for start in range(0, len(keys), CALL_ROWS):
            part = keys[start : start + CALL_ROWS]
            at = self._index.find(part)
            kernels.gather(self._rows, at, out[start : start + CALL_ROWS])
            if self.spec.init_scale > 0 and self.spec.dim > 1:
                missing = np.nonzero(at < 0)[0]
                if len(missing):
                    seeded = np.empty((len(missing), self.spec.dim), self.dtype)
                    kernels.seed(kernel_input(part[missing]), seeded, 0, self.spec.dim, self.spec.init_scale)
                    out[start + missing] = seeded
        return out

    def room_for(self, keys: np.ndarray) -> bool:
        """Whether a push of uint64[n] fits; unknown keys are counted only when it is close."""
        if len(self) + len(keys) <= self.rows_max:
            return True
        return len(self) + int((self._index.find(kernel_input(keys)) < 0).sum()) <= self.rows_max

    def push(self, keys: np.ndarray, grads: np.ndarray) -> None:
        """Apply grads [u, dim], or [u, 2 dim] with squares, to distinct keys uint64[u], noting rows as changed. The caller has checked
        shapes, room, finiteness."""
        keys, grads = kernel_input(keys), kernel_input(grads)
        for start in range(0, len(keys), CALL_ROWS):
            at = self._rows_of(keys[start : start + CALL_ROWS])
            self._optimizer.apply(self._rows, at, grads[start : start + CALL_ROWS], self.spec.dim, self._values)
            self._changed_count = kernels.mark(self._flags, self._changed, self._changed_count, at)

    def put(self, keys: np.ndarray, values: np.ndarray) -> None:
        """Set weights [u, dim] of uint64[u]: what a replica does. Not noted as changed."""
        keys, values = kernel_input(keys), kernel_input(values)
        for start in range(0, len(keys), CALL_ROWS):
            kernels.put(self._rows, self._rows_of(keys[start : start + CALL_ROWS]), values[start : start + CALL_ROWS])

    def _rows_of(self, keys: np.ndarray) -> np.ndarray:
        assert self.room_for(keys), "a row past the arena would be written over a neighbour's memory: ask room_for first"
        before = len(self)
        at = self._index.find_or_insert(keys, self._keys)
        if len(self) > before:
            fresh, dim = slice(before, len(self)), self.spec.dim
            if self.spec.init_scale > 0 and dim > 1:
                kernels.seed(kernel_input(self._keys[fresh]), self._rows, before, dim, self.spec.init_scale)
            if self.spec.width > dim:
                self._optimizer.start(self._rows[fresh], dim, self._values)
        return at

    def changed(self) -> np.ndarray:
        """int64[c] rows changed since they were last cleared, in the order of their first change (a view: copy to keep)."""
        return self._changed[: self._changed_count]

    def clear_changed(self, rows: np.ndarray) -> None:
        """Note rows int64[k] as published."""
        self._flags[rows] = 0
        left = self.changed()[self._flags[self.changed()] == 1]
        self._changed[: len(left)] = left
        self._changed_count = len(left)

    def keys_at(self, rows: np.ndarray | slice) -> np.ndarray:
        """uint64 keys of row numbers."""
        return self._keys[: len(self)][rows]

    def weights_at(self, rows: np.ndarray | slice) -> np.ndarray:
        """[k, dim] weights of row numbers, copied."""
        return self._rows[: len(self)][rows, : self.spec.dim].copy()

    def pages(self, rows_a_page: int = 16384) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(keys, weights) of all rows in the order of their numbers."""
        for start in range(0, len(self), rows_a_page):
            page = slice(start, min(start + rows_a_page, len(self)))
            yield self.keys_at(page), self.weights_at(page)

    def stored(self) -> tuple[np.ndarray, np.ndarray]:
        """(keys uint64[n], rows [n, width]) as they stand, views: what a snapshot copies."""
        return self._keys[: len(self)], self._rows[: len(self)]

    def restore(self, keys: np.ndarray, rows: np.ndarray, changed: np.ndarray, published: np.ndarray) -> None:
        """Take what `stored`, `changed` and `published` gave. Raises ValueError when it does not fit or a key repeats."""
        if len(keys) > self.rows_max:
            raise ValueError(f"{len(keys)} rows, and rows_max is {self.rows_max}: raise ps.rows_max")
        self._index.load_all(kernel_input(keys))
        self._keys[: len(keys)] = keys
        self._rows[: len(keys)] = rows
        self._changed_count = kernels.mark(self._flags, self._changed, 0, kernel_input(changed))
        self.published[:] = published

    def digest(self) -> str:
        """sha256 of keys and rows, in the order of row numbers: equal bytes, equal digest."""
        keys, rows = self.stored()
        state = hashlib.sha256(repr((self.spec.layout(), len(keys))).encode())
        state.update(np.ascontiguousarray(keys).data)
        state.update(np.ascontiguousarray(rows).data)
        return state.hexdigest()
