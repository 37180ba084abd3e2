"""One shard: the tables of its models for a range of slots, the rings of applied causes, and one sequence of pushes.

A push is the unit: all tables of a model, its causes, one log record, one number of the sequence. Its order: check everything, ask the
ring, append to the log, apply, mark the ring. So a push is applied whole or not at all, and whoever was answered finds it after a crash.

Rows go (expired, or the least recently used where a table's memory is spent) by a record of their own, which names their keys, before they
go: what is chosen is chosen once, and a replay does not choose again. Time is event time, of the newest cause that a push says it has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from headrace.ps import kernels
from headrace.ps.index import kernel_input
from headrace.ps.log import Log, Record
from headrace.ps.snapshot import Cut, TableCut
from headrace.ps.spec import ModelSpec
from headrace.ps.staleness import Staleness
from headrace.ps.table import SLOTS, Table
from headrace.rpc.causes import Causes, Rings
from headrace.rpc.errors import BadMessage, Refused, Stale, Unavailable
from headrace.rpc.freshness import Newest, newer

APPLIED, DUPLICATE, RECUT = "applied", "duplicate", "recut"
EXPIRED, CROWDED_OUT, ERASED = "ttl", "lru", "erased"
SPARE_ROWS = 4096  # that are freed beyond need, so that not every push frees some
Tables = Mapping[str, tuple[np.ndarray, np.ndarray]]


class Pushed(NamedTuple):
    """status; sequence of the shard; applied bool[n] on RECUT: the causes that the shard has, for the caller to compute without them."""

    status: str
    sequence: int
    applied: np.ndarray | None = None


def shard_of(slots: np.ndarray, shards: int) -> np.ndarray:
    """Shard numbers int64[n] of slots int64[n]."""
    return slots * shards // SLOTS


def slots_of_shard(index: int, shards: int) -> tuple[int, int]:
    """The slots of shard `index` of `shards`: the first, and the one after the last."""
    assert 0 <= index < shards <= SLOTS, "at most a shard a slot"
    mine = np.nonzero(shard_of(np.arange(SLOTS), shards) == index)[0]
    return int(mine[0]), int(mine[-1]) + 1


class Shard:
    """Shard `index` of `shards`. One thread calls it. Made by ps/recovery.py, which hands in the log once it has been replayed."""

    def __init__(self, specs: list[ModelSpec], index: int, shards: int, rows_max: int, ring_length: int) -> None:
        self.index = index
        self.slots = slots_of_shard(index, shards)
        self.specs = {spec.model: spec for spec in specs}
        self.tables = {(spec.model, table.name): Table(table, rows_max) for spec in specs for table in spec.tables}
        self.rings = Rings(ring_length)
        self.sequence = 0
        self.epoch = 0
        self.counts = {"pushes": 0, "duplicates": 0, "recuts": 0, "refused": 0, "stale": 0}
        self.staleness = Staleness()
        self.removed = {EXPIRED: 0, CROWDED_OUT: 0, ERASED: 0}  # rows, since the start
        self.clocks: dict[str, int] = {}  # event time in seconds by model
        self.log: Log | None = None
        self.superseding = False  # what was published before us may be of pushes that nobody has: replicas are to fetch all anew
        self.newest: dict[str, Newest] = {}  # by model, since the start: what freshness is told by, not state

    def table(self, model: str, name: str) -> Table:
        """Raises Refused, naming what there is."""
        table = self.tables.get((model, name))
        if table is None:
            known = ", ".join(f"{m}/{t}" for m, t in sorted(self.tables))
            raise Refused(f"no table {name!r} of model {model!r}; there are {known}")
        return table

    def pull(self, model: str, name: str, keys: np.ndarray) -> np.ndarray:
        """[n, dim] weights of uint64[n]; an unknown key gives its initial value. Raises Refused for a key of another shard."""
        return self.pullable(model, name, keys).pull(keys)

    def pullable(self, model: str, name: str, keys: np.ndarray) -> Table:
        """The table, which gives uint64[n]. Raises Refused as `pull` does."""
        table = self.table(model, name)
        self._mine(keys, name)
        return table

    def known(self, model: str, effect: str, causes: Causes) -> np.ndarray:
        """uint8[n]: rpc.causes.NEW, APPLIED or OLD. Raises Refused for an unknown model, BadMessage for a negative number."""
        return self.rings.check(self._spec(model).scope, effect, causes)

    def push(self, model: str, effect: str, causes: Causes, tables: Tables, newest: Newest | None = None,
             pulled: int | None = None) -> Pushed:
        """Apply a push once. `tables`: name -> (distinct keys uint64[u], grads [u, dim] of the table's dtype, or [u, 2 dim]: followed by
        the sums of the squares of the samples' own gradients, where the optimizer keeps such sums); none is normal.
        `newest` of the causes, for who asks how fresh the model is. `pulled`: the sequence of the rows that the gradients are of, where the
        caller says so.

        None of the causes applied: APPLIED. All: DUPLICATE. Some: RECUT, nothing applied. Raises BadMessage (no cause, a repeated cause),
        Refused (unknown table, wrong shape, a key that repeats or is another shard's, a gradient that is not finite, a full table), TooOld,
        Stale (more pushes than `staleness.most` lie between), Unavailable (the log cannot be appended): then nothing was applied.
        """
        self.counts["pushes"] += 1
        try:
            spec = self._check(model, effect, causes, tables)
        except (BadMessage, Refused):
            self.counts["refused"] += 1
            raise
        bits = self.rings.check_new(spec.scope, effect, causes)
        if bits.all():
            self.counts["duplicates"] += 1
            return Pushed(DUPLICATE, self.sequence)
        if bits.any():
            self.counts["recuts"] += 1
            return Pushed(RECUT, self.sequence, bits)
        self._fresh_enough(pulled)
        at_s = max(self.clocks.get(model, 0), newest.ts_ms // 1000 if newest is not None else 0)
        self._make_room(spec, tables)
        self._append(spec, {"effect": effect, "at_s": at_s}, causes._asdict(), tables)
        self._apply(spec, effect, causes, tables, at_s)
        seen = newer(self.newest.get(model), newest)
        if seen is not None:
            self.newest[model] = seen
        return Pushed(APPLIED, self.sequence)

    def _fresh_enough(self, pulled: int | None) -> None:
        """Note how stale a push is. Raises Stale."""
        if pulled is not None:
            stale = max(0, self.sequence - pulled)  # a shard that came back without its end is behind what was pulled
            if self.staleness.most and stale > self.staleness.most:
                self.counts["stale"] += 1
                raise Stale(f"{stale} pushes were applied since the rows were pulled, at most {self.staleness.most} may be"
                            " (ps.staleness_max): pull again")
            self.staleness.observe(stale)

    def replay(self, record: Record) -> None:
        """Apply a record of the log again. A model or version that is served no more only moves the sequence on."""
        spec = self.specs.get(record.header["model"])
        if spec is None or spec.version != record.header["version"]:
            self.sequence += 1
        elif "remove" in record.header:
            self._remove(spec, record.header["remove"], record.header["why"], record.arrays["keys"])
        else:
            names = [name[: -len(".keys")] for name in record.arrays if name.endswith(".keys")]
            tables = {name: (record.arrays[f"{name}.keys"], record.arrays[f"{name}.grads"]) for name in names}
            self._apply(spec, record.header["effect"], Causes(*(record.arrays[c] for c in Causes._fields)), tables,
                        record.header.get("at_s", 0))
        assert self.sequence == record.sequence, "the log is read in order"

    def follow(self, records: list[Record]) -> None:
        """Apply records of the shard that this one stands by for, which are in our log already. What changed is not for us to publish."""
        for record in records:
            self.replay(record)

    def forget_changes(self) -> None:
        """Of a standby: whoever takes over has replicas fetch everything, so what is unpublished need not be kept."""
        for table in self.tables.values():
            table.clear_changed(table.changed().copy())
            table.clear_gone(np.zeros(0, np.uint64))
            table.published[:] = self.sequence

    def sweep(self, rows: int = 65536) -> int:
        """Take out what has outlived its table's ttl_s, of the next `rows` rows of each table; how many went. Raises Unavailable."""
        went = 0
        for (model, name), table in self.tables.items():
            before_s = self.clocks.get(model, 0) - table.spec.ttl_s
            if table.spec.ttl_s and before_s > 0:
                went += self._log_and_remove(self.specs[model], name, EXPIRED, table.expired(before_s, rows))
        return went

    def held(self, model: str, keys: np.ndarray) -> dict[str, int]:
        """table -> how many of uint64[n] have a row. Raises Refused."""
        return {table.name: int(self.pullable(model, table.name, keys).has(keys).sum()) for table in self._spec(model).tables}

    def erase(self, model: str, keys: np.ndarray) -> dict[str, int]:
        """Take the rows of distinct keys out of every table, logged as what expires is; how many went. Raises Refused, Unavailable."""
        spec, went = self._spec(model), dict[str, int]()
        for table in spec.tables:
            there = keys[self.pullable(model, table.name, keys).has(keys)]
            went[table.name] = self._log_and_remove(spec, table.name, ERASED, there)
        return went

    def _make_room(self, spec: ModelSpec, tables: Tables) -> None:
        """Of tables whose memory is bounded: as many rows go as the push brings, and some more."""
        for name, (keys, _) in tables.items():
            table = self.tables[spec.model, name]
            if table.spec.bytes_max and not table.room_for(keys):
                self._log_and_remove(spec, name, CROWDED_OUT, table.oldest(len(table) + len(keys) + SPARE_ROWS - table.rows_max, keys))

    def _log_and_remove(self, spec: ModelSpec, name: str, why: str, keys: np.ndarray) -> int:
        if len(keys):
            self._append(spec, {"remove": name, "why": why}, {"keys": keys}, {})
            self._remove(spec, name, why, keys)
        return len(keys)

    def _remove(self, spec: ModelSpec, name: str, why: str, keys: np.ndarray) -> None:
        self.removed[why] += self.tables[spec.model, name].remove(keys)
        self.sequence += 1

    def _append(self, spec: ModelSpec, header: dict[str, Any], arrays: dict[str, np.ndarray], tables: Tables) -> None:
        assert self.log is not None, "the log comes from recovery"
        for name, (keys, grads) in tables.items():
            arrays |= {f"{name}.keys": keys, f"{name}.grads": grads}
        try:
            self.log.append(self.sequence + 1, {"model": spec.model, "version": spec.version, **header}, arrays)
        except OSError as error:
            raise Unavailable(f"the log of shard {self.index} cannot be appended, nothing was applied: {error}") from None

    def _apply(self, spec: ModelSpec, effect: str, causes: Causes, tables: Tables, at_s: int) -> None:
        for name, (keys, grads) in tables.items():
            self.tables[spec.model, name].push(keys, grads, at_s)
        self.clocks[spec.model] = max(self.clocks.get(spec.model, 0), at_s)
        self.rings.mark(spec.scope, effect, causes)
        self.sequence += 1

    def _check(self, model: str, effect: str, causes: Causes, tables: Tables) -> ModelSpec:
        spec = self._spec(model)
        if not effect or not isinstance(effect, str):
            raise BadMessage("a push names its effect")
        _distinct(causes)
        for name, (keys, grads) in tables.items():
            table, where = self.table(model, name), f"{model}/{name}"
            if keys.dtype != np.uint64 or keys.ndim != 1:
                raise Refused(f"{where}: keys are {keys.dtype}{list(keys.shape)}, expected uint64[u]")
            dim = table.spec.dim
            squared = table.squares and grads.shape == (len(keys), 2 * dim)
            if grads.dtype != table.dtype or not (grads.shape == (len(keys), dim) or squared):
                expected = f"{table.dtype}[{len(keys)}, {dim}]"
                if table.squares:
                    expected += f" or [{len(keys)}, {2 * dim}] with the sums of squares"
                raise Refused(f"{where}: grads are {grads.dtype}{list(grads.shape)}, expected {expected}")
            if grads.dtype == np.float32 and not np.isfinite(grads).all():
                row = int(np.nonzero(~np.isfinite(grads).all(axis=1))[0][0])
                raise Refused(f"{where}: the gradient of key {int(keys[row])} is not finite")
            if squared and (grads[:, dim:] < 0).any():
                row = int(np.nonzero((grads[:, dim:] < 0).any(axis=1))[0][0])
                raise Refused(f"{where}: a sum of squares of key {int(keys[row])} is negative")
            self._mine(keys, where)
            if len(keys):
                at = kernels.repeated(kernel_input(keys), np.zeros((1 << (2 * len(keys)).bit_length(), 2), np.uint64))
                if at >= 0:
                    raise Refused(f"{where}: key {int(keys[at])} comes twice: sum the gradients of a key first")
            if table.spec.bytes_max and len(keys) > table.rows_max // 2:
                raise Refused(f"{where}: {len(keys)} keys in one push, and bytes_max {table.spec.bytes_max} holds {table.rows_max} rows:"
                              " push at most half as many at once")
            if not table.spec.bytes_max and not table.room_for(keys):
                raise Refused(f"{where} is full at {table.rows_max} rows: raise ps.rows_max, or bound the table by bytes_max")
        return spec

    def _spec(self, model: str) -> ModelSpec:
        spec = self.specs.get(model)
        if spec is None:
            raise Refused(f"no model {model!r}; there are {', '.join(sorted(self.specs))}")
        return spec

    def _mine(self, keys: np.ndarray, where: str) -> None:
        at = kernels.foreign(kernel_input(keys), *self.slots)
        if at >= 0:
            raise Refused(f"{where}: key {int(keys[at])} is not of shard {self.index} (slots {self.slots[0]} to {self.slots[1] - 1}):"
                          " the caller counts another number of shards")

    def cut(self) -> Cut:
        """The whole state at this sequence, copied: the shard goes on while it is written."""
        tables = {}
        for (model, name), table in self.tables.items():
            tables[model, name] = TableCut(self.specs[model].version, list(table.spec.layout()), table.stored())
        return Cut(self.sequence, self.epoch, tables, list(self.rings.items()), list(self.rings.firsts()), dict(self.clocks))

    def digest(self) -> str:
        """sha256 of sequence, tables and rings: two shards that hold the same bytes have the same."""
        state = hashlib.sha256(str(self.sequence).encode())
        for at in sorted(self.tables):
            state.update(repr((at, self.tables[at].digest())).encode())
        for key, page, data in self.rings.items():
            state.update(repr((key, page)).encode() + data)
        state.update(repr(list(self.rings.firsts())).encode())
        return state.hexdigest()


def _distinct(causes: Causes) -> None:
    if not len(causes):
        raise BadMessage("a push without a cause cannot be known again: send at least one")
    source, partition, offset = causes
    if (offset[1:] > offset[:-1]).all() and (source == source[0]).all() and (partition == partition[0]).all():
        return  # as a partition is read
    order = np.lexsort((offset, partition, source))
    ordered = causes.take(order)
    same = np.ones(len(causes) - 1, bool)
    for column in ordered:
        same &= column[1:] == column[:-1]
    if same.any():
        first = order[int(np.nonzero(same)[0][0])]
        raise BadMessage(f"cause (source {int(causes.source[first])}, partition {int(causes.partition[first])}, offset"
                         f" {int(causes.offset[first])}) comes twice in one push: each cause once")
