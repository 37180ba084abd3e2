"""One table of one model on one shard: keys -> rows of weights and optimizer slots."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from headrace.ps import kernels, optimizer_kernels
from headrace.ps.admission import ADMISSIONS, SLOTS, Admission
from headrace.ps.index import CALL_ROWS, Index, kernel_input, reserve
from headrace.ps.optimizers import OPTIMIZERS
from headrace.ps.spec import TableSpec
from headrace.ps.stored import Arrays, Saves, Stored

CHANGED, LIVE, SAVED, DIRTY = 1, 2, 4, 8  # bits of a row's flags; SAVED: put away for a cut, DIRTY: pushed since the last full one
AHEAD_ROWS = 16384  # whose pages are touched before their keys come
OLD_SHARE = 16  # of the rows, one in so many is old enough to go when room is needed
SAMPLE = 4096
NO_KEYS = np.zeros(0, np.uint64)


class Table:
    """Rows in one arena, found by an Index. Address space is reserved for `rows_max` rows; memory is used as rows come, a little ahead.

    One thread calls it. Kernels work on at most 4,096 rows a call. `published` int64[64]: last sequence published a slot (ps/publish.py).
    `counts`: rows admitted, keys kept out, rows removed, values that their encoding could not say when they were published. `timed`, or a
    spec that needs it: a row keeps the event time in seconds of its last push, or the stamp of its last put. `changes`, by default of a
    served table: rows are noted as changed.
    """

    def __init__(self, spec: TableSpec, rows_max: int, timed: bool = False, changes: bool | None = None) -> None:
        self.spec = spec
        self._changes = spec.served if changes is None else changes
        self._timed = spec.timed or timed
        self.rows_max = min(rows_max, spec.rows_within()) if spec.bytes_max else rows_max
        self.dtype = np.dtype(spec.dtype)
        self.published = np.zeros(SLOTS, np.int64)
        self.counts = {"admitted": 0, "kept_out": 0, "removed": 0, "clipped": 0}
        self._index = Index(keys_max=self.rows_max)
        self._keys = reserve((self.rows_max,), np.uint64)
        self._rows = reserve((self.rows_max, spec.width), self.dtype)
        self._flags = reserve((self.rows_max,), np.uint8)
        self._changed = reserve((self.rows_max,), np.int64)
        self._touched = reserve((self.rows_max if self._timed else 0,), np.uint32)
        self._changed_count = self._changed_high = 0
        self.cutting: Saves | None = None
        self.dropped: list[np.ndarray] | None = None  # keys removed since the last full cut; None: nobody cuts less than all
        self._warm = 0
        self._gone: list[np.ndarray] = []
        self._cursor = 0
        self._optimizer = OPTIMIZERS[spec.optimizer]
        self._values = self._optimizer.values(spec.params)
        make = ADMISSIONS[spec.admission]
        self._admission: Admission | None = None if make is None else make(spec.admit_after, spec.waiting_max(self.rows_max))

    def respecced(self, spec: TableSpec, rows_max: int, now_s: int) -> Table:
        """A table of other parameters with what this one holds; the layout stays. Rows that kept no time count as pushed `now_s`, and what
        waits to be let in waits anew under another admission. Raises ValueError when there is no room for it."""
        assert spec.layout() == self.spec.layout(), "a layout is for ever within a model version"
        made, held = Table(spec, rows_max), self.stored()
        if spec.admits() != self.spec.admits() or spec.waiting_max(rows_max) != self.spec.waiting_max(self.rows_max):
            held = held._replace(admission={})
        if spec.served and spec.encoding != self.spec.encoding and len(held.keys):
            one_a_slot = np.unique(kernels.slots_of(kernel_input(held.keys)), return_index=True)[1]
            held = held._replace(changed=np.union1d(held.changed, one_a_slot))  # by whose blocks replicas see that all are served otherwise
        made.restore(held, now_s)
        return made

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
        """Bytes of memory in use: rows and what is kept of them, index, admission."""
        a_row = self._rows.itemsize * self.spec.width + 8 + 1 + (4 if self._timed else 0)
        held = self._warm * a_row + 8 * self._changed_high + self._index.bytes + 8 * sum(map(len, self._gone))
        return held + (self._admission.bytes if self._admission is not None else 0)

    @property
    def waiting(self) -> int:
        """Keys counted and not let in; -1 where nobody knows."""
        return 0 if self._admission is None else self._admission.waiting

    def sum(self) -> int:
        """Sum of all weights of an int64 table."""
        rows = slice(self._index.high) if len(self) == self._index.high else self._live()
        return int(self._rows[rows, : self.spec.dim].sum())

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
                    kernels.seed(kernel_input(part[missing]), out, start + missing, self.spec.dim, self.spec.init_scale)
        return out

    def room_for(self, keys: np.ndarray) -> bool:
        """Whether a push of uint64[n] fits; unknown keys are counted only when it is close."""
        if len(self) + len(keys) <= self.rows_max:
            return True
        return len(self) + self._unknown(keys) <= self.rows_max

    def _unknown(self, keys: np.ndarray) -> int:
        return int((self._index.find(kernel_input(keys)) < 0).sum())

    def push(self, keys: np.ndarray, grads: np.ndarray, at_s: int = 0) -> None:
        """Apply grads [u, dim], or [u, 2 dim] with squares, to distinct keys uint64[u], noting rows as changed; `at_s`: event time. The
        caller has checked shapes, room, finiteness."""
        keys, grads = kernel_input(keys), kernel_input(grads)
        for start in range(0, len(keys), CALL_ROWS):
            part, change = keys[start : start + CALL_ROWS], grads[start : start + CALL_ROWS]
            if self._admission is not None:
                part, change = self._admitted(part, change)
            if self.spec.clips:
                clipped = np.empty_like(change)
                optimizer_kernels.clip(change, self.spec.dim, np.float32(self.spec.clip_value), np.float32(self.spec.clip_norm), clipped)
                change = kernel_input(clipped)
            at = self._rows_of(part)
            self._optimizer.apply(self._rows, at, change, self.spec.dim, self._values)
            if self.spec.weight_bound > 0:
                optimizer_kernels.bound(self._rows, at, self.spec.dim, np.float32(self.spec.weight_bound))
            if self._timed:
                kernels.stamp(self._touched, at, np.uint32(at_s))
            if self.dropped is not None:
                kernels.flag(self._flags, at, np.uint8(DIRTY))
            self._note(at)

    def _admitted(self, keys: np.ndarray, grads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What is known or let in now."""
        assert self._admission is not None
        unknown = np.nonzero(self._index.find(keys) < 0)[0]
        if not len(unknown):
            return keys, grads
        admitted = self._admission.admit(kernel_input(keys[unknown]))
        self.counts["admitted"] += int(admitted.sum())
        self.counts["kept_out"] += int((~admitted).sum())
        taken = np.ones(len(keys), np.bool_)
        taken[unknown] = admitted
        return kernel_input(keys[taken]), kernel_input(grads[taken])

    def put(self, keys: np.ndarray, values: np.ndarray, stamp: int = 0) -> None:
        """Set weights [u, dim] of uint64[u]: what a replica does. Not noted as changed. `stamp` takes the place of event time."""
        keys, values = kernel_input(keys), kernel_input(values)
        for start in range(0, len(keys), CALL_ROWS):
            at = self._rows_of(keys[start : start + CALL_ROWS])
            kernels.put(self._rows, at, values[start : start + CALL_ROWS])
            if self._timed:
                kernels.stamp(self._touched, at, np.uint32(stamp))

    def _rows_of(self, keys: np.ndarray) -> np.ndarray:
        at, born = self._index.find_or_insert(keys, self._keys)
        if self.cutting is not None:
            self.cutting.save(at)  # of the born too, who had none then: their flags say so, and their keys do not count
        if len(born):
            self._begin(born)
        return at

    def _begin(self, born: np.ndarray) -> None:
        """Rows as new, whoever had them before."""
        dim = self.spec.dim
        kernels.clear(self._rows, born)
        if self.spec.init_scale > 0 and dim > 1:
            kernels.seed(kernel_input(self._keys[born]), self._rows, born, dim, self.spec.init_scale)
        if self.spec.width > dim:
            self._optimizer.start(self._rows, born, dim, self._values)
        self._flags[born] |= LIVE
        if self._index.high + AHEAD_ROWS // 2 > self._warm:
            self._warm_up()

    def _warm_up(self) -> None:
        """Touch the pages of rows to come, so that no push waits for many of them at once."""
        stop = min(max(self._warm, self._index.high) + AHEAD_ROWS, self.rows_max)
        ahead = slice(max(self._warm, self._index.high), stop)
        for array in (self._keys, self._rows, self._flags, *([self._touched] if self._timed else [])):
            array[ahead] = 0
        self._warm = stop

    def remove(self, keys: np.ndarray, publish: bool = True) -> int:
        """Take out those of the distinct keys uint64[u] that are held; how many. With `publish` they are noted as gone, where the table is
        served."""
        removed = 0
        for start in range(0, len(keys), CALL_ROWS):
            part = kernel_input(keys[start : start + CALL_ROWS])
            rows = self._index.remove(part)
            if self.cutting is not None:
                self.cutting.save(rows)
            self._flags[rows] &= ~np.uint8(LIVE)  # not CHANGED: it stands among the changed, and whoever gets the row stands for it
            removed += len(rows)
            if self.dropped is not None and len(rows):
                self.dropped.append(self._keys[rows].copy())
            if publish and self.spec.served and len(rows):
                self._gone.append(self._keys[rows].copy())
        self.counts["removed"] += removed
        return removed

    def has(self, keys: np.ndarray) -> np.ndarray:
        """bool[n]: which of uint64[n] have a row."""
        return np.concatenate([np.zeros(0, bool), *(self._index.find(kernel_input(keys[start : start + CALL_ROWS])) >= 0
                                                    for start in range(0, len(keys), CALL_ROWS))])

    def expired(self, before_s: int, rows: int) -> np.ndarray:
        """uint64[k] keys last pushed before event time `before_s`, of the next `rows` row numbers: the look goes round."""
        return self._keys[self._older(before_s, rows)].copy()

    def oldest(self, needed: int, besides: np.ndarray) -> np.ndarray:
        """uint64[k] about the least recently pushed keys, at least `needed` of them where there are so many, none of uint64[u] `besides`.

        Of a sample of 4,096 rows the age is found that one in 16 has; the look goes on from where the last one ended until enough are older
        (CLOCK, Corbato 1968, with ages), and takes any when one round did not find enough.
        """
        mine = self._index.find(kernel_input(besides))
        mine = np.sort(mine[mine >= 0])
        high, step = self._index.high, 16 * CALL_ROWS
        spread = np.arange(0, high, max(1, high // SAMPLE))
        sample = self._touched[spread[self._flags[spread] & LIVE != 0]]
        ages = [int(np.partition(sample, len(sample) // OLD_SHARE)[len(sample) // OLD_SHARE]) + 1 if len(sample) else 0, 1 << 32]
        count = 0
        taken: list[np.ndarray] = []
        for age in ages:
            for _ in range(-(-high // step) + 1):
                if count >= needed:
                    break
                rows = self._older(age, step)
                rows = rows[~np.isin(rows, mine)] if len(mine) else rows
                rows = np.setdiff1d(rows, np.concatenate(taken)) if taken else rows
                rows = rows[: needed - count]
                taken.append(rows)
                count += len(rows)
        return self._keys[np.concatenate(taken)].copy() if taken else NO_KEYS

    def _older(self, before_s: int, rows: int) -> np.ndarray:
        """int64[k] rows in use last pushed before `before_s`, of `rows` from the cursor on, round the end, each looked at once."""
        high = self._index.high
        start, left = min(self._cursor, high), min(rows, high)
        first = min(left, high - start)
        parts = [(start, start + first), (0, left - first)]
        found, count = np.empty(left + 1, np.int64), 0
        for begin, stop in parts:
            if stop > begin:
                count += int(kernels.older(self._touched, self._flags, begin, stop, before_s, found[count:]))
        self._cursor = left - first if left > first else start + first
        return found[:count]

    def _live(self) -> np.ndarray:
        """int64[n] rows in use."""
        return np.flatnonzero(self._flags[: self._index.high] & LIVE)

    # What is to be published

    def _note(self, at: np.ndarray) -> None:
        if not self._changes:
            return
        self._changed_count = kernels.mark(self._flags, self._changed, self._changed_count, at)
        self._changed_high = max(self._changed_high, self._changed_count)

    def changed(self) -> np.ndarray:
        """int64[c] rows changed since they were last cleared, in the order of their first change; of a removed one, whoever has it."""
        rows = self._changed[: self._changed_count]
        live = self._flags[rows] & LIVE != 0
        return rows if live.all() else rows[live]

    def clear_changed(self, rows: np.ndarray) -> None:
        """Note rows int64[k] as published."""
        self._flags[rows] &= ~np.uint8(CHANGED)
        listed = self._changed[: self._changed_count]
        flags = self._flags[listed] & (CHANGED | LIVE)
        left = listed[flags == CHANGED | LIVE]
        self._flags[listed[flags == CHANGED]] &= ~np.uint8(CHANGED)
        self._changed[: len(left)] = left
        self._changed_count = len(left)

    def gone(self) -> np.ndarray:
        """uint64[g] keys removed and not published, perhaps come again since."""
        if len(self._gone) > 1:
            self._gone = [np.concatenate(self._gone)]
        return self._gone[0] if self._gone else NO_KEYS

    def gone_still(self) -> np.ndarray:
        """Of `gone`, what has not come again: the values of what has are among the changed."""
        keys = self.gone()
        return keys[self._index.find(keys) < 0] if len(keys) else keys

    def clear_gone(self, kept: np.ndarray) -> None:
        """Keep of `gone` only uint64[k]: the others are published."""
        self._gone = [kept] if len(kept) else []

    # Rows by number

    def keys_at(self, rows: np.ndarray) -> np.ndarray:
        """uint64 keys of row numbers."""
        return self._keys[: self._index.high][rows]

    def weights_at(self, rows: np.ndarray) -> np.ndarray:
        """[k, dim] weights of row numbers, copied."""
        return self._rows[: self._index.high][rows, : self.spec.dim].copy()

    def page(self, start: int, rows: int) -> tuple[np.ndarray, np.ndarray, int]:
        """(keys, weights [k, dim], start of the next page or -1) of the row numbers from `start` on, `rows` of them, that are in use."""
        stop = min(start + rows, self._index.high)
        at = start + np.flatnonzero(self._flags[start:stop] & LIVE) if start < stop else np.zeros(0, np.int64)
        return self.keys_at(at), self.weights_at(at), stop if stop < self._index.high else -1

    def pages(self, rows_a_page: int = 16384) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(keys, weights) of all rows in the order of their numbers."""
        start = 0
        while start >= 0:
            keys, weights, start = self.page(start, rows_a_page)
            yield keys, weights

    def stale(self, stamp: int, slots: np.ndarray, start: int, rows: int) -> tuple[np.ndarray, int]:
        """(keys of the slots int64[s] whose rows were put before `stamp`, start of the next page or -1), of a page of row numbers."""
        stop = min(start + rows, self._index.high)
        found = np.empty(max(stop - start, 1), np.int64)
        count = kernels.older(self._touched, self._flags, start, stop, stamp, found) if start < stop else 0
        keys = self._keys[found[:count]]
        return keys[np.isin(kernels.slots_of(kernel_input(keys)), slots)].copy(), stop if stop < self._index.high else -1

    # The whole

    def arrays(self) -> Arrays:
        """Every row that was ever given, as it lies in memory."""
        high = self._index.high
        return Arrays(self._keys[:high], self._rows[:high], self._flags[:high], self._touched[:high])

    def stored(self) -> Stored:
        """A copy of what a snapshot keeps; rows that are not in use are left out."""
        live = self._live()
        place = np.zeros(self._index.high, np.int64)
        place[live] = np.arange(len(live))
        rest, touched = self.stored_rest(), self._touched[live] if self._timed else self._touched
        return rest._replace(keys=self._keys[live], rows=self._rows[live], touched=touched, changed=place[rest.changed])

    def stored_rest(self) -> Stored:
        """Of `stored` what does not lie by row number, copied; `changed` are row numbers."""
        state = self._admission.state() if self._admission is not None else {}
        return Stored(NO_KEYS, self._rows[:0], self._touched[:0], self.changed().copy(), self.gone().copy(), self.published.copy(), state)

    def restore(self, stored: Stored, now_s: int = 0) -> None:
        """Take what `stored` gave; rows that kept no time count as pushed at `now_s`. Raises ValueError when it does not fit or a key
        repeats."""
        n = len(stored.keys)
        if n > self.rows_max:
            raise ValueError(f"{n} rows, and there is room for {self.rows_max}: raise ps.rows_max, or the table's bytes_max")
        self._index.load_all(kernel_input(stored.keys))
        self._keys[:n], self._rows[:n], self._flags[:n] = stored.keys, stored.rows, LIVE
        if self._timed:
            self._touched[:n] = stored.touched if len(stored.touched) == n else now_s
        self._changed_count = 0
        self._note(kernel_input(stored.changed))
        self._gone = [stored.gone] if len(stored.gone) else []
        self.published[:] = stored.published
        if self._admission is not None and stored.admission:
            self._admission.restore(stored.admission)
        self._warm_up()

    def digest(self) -> str:
        """sha256 of keys, rows and what else decides what becomes of them, by key: equal state, equal digest."""
        held = self.stored()
        order = np.argsort(held.keys)
        state = hashlib.sha256(repr((self.spec.layout(), len(held.keys))).encode())
        for array in (held.keys, held.rows, *([held.touched] if self._timed else [])):
            state.update(np.ascontiguousarray(array[order]).data)
        for name, array in sorted(held.admission.items()):
            ordered = array[np.argsort(held.admission["keys"])] if "keys" in held.admission else array
            state.update(name.encode() + np.ascontiguousarray(ordered).data)
        return state.hexdigest()
