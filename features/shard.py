"""One shard of features: freezes and folds events once a cause, answers repetitions from what was frozen, assembles samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from headrace.features import kernels
from headrace.features.answered import Answered
from headrace.features.backfilled import Answer, Backfills, Part
from headrace.features.block_log import Writes
from headrace.features.feature_set import BASE, FeatureSet
from headrace.features.frozen import Frozen, FrozenRows
from headrace.features.groups import Groups
from headrace.features.inputs import taken_of
from headrace.features.known_sets import Layout
from headrace.features.layout import FEATURE_SET, FOLDED, IMPRESSION, ITEM_ROW, NEVER_MS, REPEATED, RETRY, RING, USER_ROW, now
from headrace.features.order import Order, first_rows, order_of
from headrace.features.popular import Popular, item_blocks
from headrace.features.redo import redo
from headrace.features.row_memory import BLOCK, RowMemory
from headrace.features.row_table import RowTable, user_rings
from headrace.features.seen import Sample, User
from headrace.features.store import (
    FeatureStore,
    counts_bytes,
    ring_first_key,
    ring_first_of,
    ring_page_key,
    ring_page_of,
    rows_of,
)
from headrace.features.sweep import Sweep
from headrace.features.tail import Tail
from headrace.rpc.causes import PAGE_BITS, Causes, RingKey, Rings
from headrace.rpc.errors import Unavailable
from headrace.rpc.message import Arrays

EFFECT = "fold"
FROZEN_OFFSETS = 1 << 18  # what is replayed after a crash: the rate of a partition times the checkpoint interval
LOG_BYTES, ROWS_BYTES = 256 << 20, 64 << 20
_COUNTS = ("sequence", "applied", "retries", "late", "out_of_order", "users", "items", "impressions", "clicks")
_FOLDED = ("ts_ms", "action", "user", "item", "event", "user_fields", "item_fields", "context", "served")


class FeatureShard:
    """Owned by one thread. `frozen_offsets`: how many offsets a partition the frozen samples are kept for, at most `ring_length`.
    `log_bytes`: of changes that are kept before rows are written; `rows_bytes`: of rows in memory a family. `idle_s`: who was without an
    event for longer begins anew (sweep.py), 0: never. `tail` gets every block, for followers. `feature_set`: what is frozen
    beside the built-in features. Raises DefinitionError when one of its definitions was changed under its version.

    counts: `sequence` (events folded ever), `applied` (causes ever: folded and retries), `retries`, `late` (folded behind a newer event of
    their user), `out_of_order` (causes behind a higher offset of their partition), `users`, `items`, `impressions` and `clicks` (folded
    ever: the prior of all rates), "group ENTITY" (rows of the definitions of an entity); `duplicates` since the start.
    """

    def __init__(self, store: FeatureStore, *, half_life_s: float, ring_length: int, frozen_offsets: int = FROZEN_OFFSETS,
                 log_bytes: int = LOG_BYTES, rows_bytes: int = ROWS_BYTES, feature_set: FeatureSet = BASE, idle_s: float = 0.0,
                 tail: Tail | None = None) -> None:
        self.store, self.set = store, feature_set
        self._half_life_ms = half_life_s * 1000.0
        self._idle_ms = int(idle_s * 1000) or NEVER_MS
        self._ring_length = ring_length
        self._frozen_offsets = min(frozen_offsets, ring_length)
        self._log_bytes, self._rows_bytes, self.tail = log_bytes, rows_bytes, tail
        self.duplicates = 0
        self.failed = ""
        self.counts: dict[str, int] = {}
        self.popular = Popular(self._half_life_ms)
        self._restore()

    @property
    def sequence(self) -> int:
        return self.counts["sequence"]

    @property
    def memory(self) -> RowMemory:
        return self._memory

    def freeze_and_fold(self, causes: Causes, events: Arrays, between: Callable[[], None] = lambda: None, block: int = 0) -> Frozen:
        """Freeze, fold and answer n events in their order; `events` are arrays as in FeatureSet.event_columns. All that a `block` (at most
        1,024, which 0 stands for) changes is written, with its causes, as one record, before it is answered; `between` two blocks this is
        called.

        A cause applied before (or earlier in this call) is answered with what it was answered then: status REPEATED, or RETRY again.
        Raises TooOld when a cause lies before the ring, or was applied and its frozen sample is no longer kept; nothing of its block is
        applied then. Raises Unavailable when the store cannot write; calling again is safe.
        """
        if self.failed:
            self.recover()
        parts = list[Frozen]()
        for at in _blocks(len(causes), block):
            if parts:
                between()
            parts.append(self._block(Causes(*(_own(column[at]) for column in causes)),
                                     {name: _own(events[name][at]) for name in self.set.event_columns}))
        if len(parts) == 1:
            return parts[0]
        return Frozen(*map(np.concatenate, zip(*parts, strict=True))) if parts else self._blank(0)

    def _blank(self, n: int) -> Frozen:
        return Frozen.empty(n, self.set.F, self.set.K)

    def merge_states(self, part: Part) -> Answer:
        """A part of a backfill into the live rows, once (backfilled.py). Raises BackfillRefused, Unavailable."""
        if self.failed:
            self.recover()
        told = self.backfills.check(part)
        try:
            return told or self.backfills.merge(part, self._groups.layouts, self._memory, self.counts, self._written)
        except BaseException as error:
            self._memory.undo()
            self.failed = self.failed or f"a part was left in its middle: {error}"
            raise

    def assemble(self, user: np.ndarray, item: np.ndarray, context: np.ndarray, ts_ms: np.ndarray,
                 moment: np.ndarray | None = None) -> Sample:
        """Samples of m pairs as they are now, read at ts_ms int64[m]: user, item uint64[m] (0: none), context uint64[m,4], moment
        uint64[m,P] of the set's moments (0: none)."""
        if moment is None:
            moment = np.zeros((len(ts_ms), len(self.set.moments)), np.uint64)
        user, item, context, ts_ms, moment = (np.array(column) for column in (user, item, context, ts_ms, moment))  # one compiled kernel
        sample = Sample(*self._blank(len(ts_ms))[:3])
        for at in _blocks(len(ts_ms)):
            part, turn = Sample(*(column[at] for column in sample)), self._memory.turn()
            places = [table.look(turn, column[at]) for table, column in ((self._users, user), (self._items, item))]
            kernels.assemble(*self._rows, *places, user[at], item[at], context[at], ts_ms[at], self._half_life_ms, self._idle_ms,
                             self._totals(), *part)
            if self.set.definitions:
                extra = self._groups.read(turn, user[at], item[at], moment[at], ts_ms[at])
                self._groups.put(extra, np.ones(len(part.keys), bool), *part)
        return sample

    def user(self, key: int) -> User:
        """Counts and the last items of a user, newest first, 0 where there are fewer."""
        row = self._rows[0][self._looked("user", np.array([key], np.uint64))[0]]
        newest = np.arange(RING)
        recent = row["recent"][(int(row["recent_next"]) - 1 - newest) % RING]
        clicked = row["clicked"][(int(row["clicked_next"]) - 1 - newest) % RING]
        return User(bool(row["version"]), int(row["impressions_total"]), int(row["clicks_total"]), recent, clicked)

    def totals(self, of: str, keys: np.ndarray) -> Arrays:
        """impressions, clicks and events int64[n] ever folded of the users or items (`of`: user, item) under uint64[n]; 0 where unknown."""
        rows, names = self._rows[of == "item"], ("impressions", "clicks", "events")
        found = {name: np.zeros(len(keys), np.int64) for name in names}
        for at in _blocks(len(keys)):
            held = rows[self._looked(of, keys[at])]
            for name in names:
                found[name][at] = held[f"{name}_total"]
        return found

    def _looked(self, of: str, keys: np.ndarray) -> np.ndarray:
        """Places of users or items; of those that were idle for too long by the newest event, of nobody."""
        table, rows = (self._users, self._rows[0]) if of == "user" else (self._items, self._rows[1])
        places = table.look(self._memory.turn(), keys)
        return np.where(self.popular.latest_ms - rows["last_ts_ms"][places] > self._idle_ms, 0, places)

    @property
    def swept(self) -> list[str]:
        """Families whose rows are deleted when they are idle for too long."""
        return [] if self._idle_ms == NEVER_MS else self._sweep.families

    def sweep(self, count: int) -> int:
        """Look at up to `count` rows on the disk, and delete those that were idle for more than twice `idle_s`; how many went. `expired
        FAMILY` counts them. Raises Unavailable when the store cannot write."""
        if self.failed or self._idle_ms == NEVER_MS:
            return 0
        family, keys = self._sweep.next(self.popular.latest_ms, count)
        if not len(keys := self._memory.clean(family, keys)):
            return 0
        writes = self._memory.deleted(family, keys)
        counts = self.counts | {f"expired {family}": self.counts.get(f"expired {family}", 0) + len(keys),
                                family: self.counts.get(family, 0) - len(keys)}
        writes.put("meta", b"counts", counts_bytes(counts))
        self._commit(writes, counts)
        self._memory.drop(family, keys)
        if family == "items":
            self.popular.forget(*keys.tolist())
        return len(keys)

    def families(self) -> dict[str, dict[str, int]]:
        """family -> rows and bytes on disk, approximately; of users, items and entities all rows, those in memory alone too; `log`: blocks
        whose rows are not all written."""
        held = self.store.held()
        for family in self._memory.tables:
            held[family]["rows"] = self.counts.get(family, 0)
        return held | {"log": {"rows": self._memory.blocks, "bytes": self.store.log.bytes()}}

    def flush(self) -> None:
        """Write all rows that are in memory only: the store's families then hold what is known. Raises Unavailable."""
        self._written(self._memory.flush)

    def write_some(self) -> None:
        """Write the rows that are in memory only for longest. Raises Unavailable."""
        self._written(self._memory.write_some)

    def close(self) -> None:
        """Write all rows, and close the store; what cannot be written is in the log, and redone at the next start."""
        try:
            if not self.failed:
                self.flush()
        except Unavailable:
            pass
        finally:
            self.store.close()

    def held(self, of: str, key: int) -> dict[str, int]:
        """family -> rows of a user or an item (`of`) under its row key, its name among them."""
        self.flush()
        return {family: int(self.store.get(family, [key.to_bytes(8, "big")])[0] is not None) for family in rows_of(self.store, of)}

    def erase(self, of: str, key: int) -> dict[str, int]:
        """Delete these rows, in one block; how many of each family there were. Causes stay applied, and what was frozen stays until it is
        old: it answers the repetitions of a job that comes back. Raises Unavailable when the store cannot write."""
        if self.failed:
            self.recover()
        found, writes, keys = self.held(of, key), Writes(), np.array([key], np.uint64)
        for family in found:
            writes.all += self._memory.deleted(family, keys).all
        counts = self.counts | {name: self.counts[name] - rows for name, rows in found.items() if name in self.counts}
        writes.put("meta", b"counts", counts_bytes(counts))
        self._commit(writes, counts)
        for family in found:
            self._memory.drop(family, keys)
        if of == "item":
            self.popular.forget(key)
        return found

    def _totals(self) -> np.ndarray:
        return np.array([self.counts["impressions"], self.counts["clicks"]], np.int64)

    def _block(self, causes: Causes, events: Arrays) -> Frozen:
        applied = self._rings.check_new(FEATURE_SET, EFFECT, causes)
        order = order_of(causes)
        if order.rising and not applied.any():  # as long as nothing comes again
            return self._fold(causes, events, order)
        first = first_rows(causes)
        new = ~applied & (first == np.arange(len(causes)))
        answer = self._blank(len(causes))
        if applied.any():
            _put(answer, np.nonzero(applied)[0], self._stored(causes.take(applied)))
        if new.any():
            at = np.nonzero(new)[0]
            fresh = causes.take(at)
            _put(answer, at, self._fold(fresh, {name: column[at] for name, column in events.items()}, order_of(fresh)))
        again = np.nonzero(~applied & ~new)[0]
        if len(again):
            repeated = answer.take(first[again])
            repeated.status[repeated.status != RETRY] = REPEATED
            _put(answer, again, repeated)
        self.duplicates += len(causes) - int(new.sum())
        return answer

    def _stored(self, causes: Causes) -> Frozen:
        return self._answered.find(causes)

    def _fold(self, causes: Causes, events: Arrays, order: Order) -> Frozen:
        try:
            return self._fold_new(causes, events, order)
        except BaseException as error:  # rings and answers in memory are ahead of the store now, rows are not: reads go on
            self._memory.undo()
            self.failed = self.failed or f"a block was left in its middle: {error}"
            raise

    def _fold_new(self, causes: Causes, events: Arrays, order: Order) -> Frozen:
        answer, turn, totals = self._blank(len(causes)), self._memory.turn(), self._totals()
        places = [table.hold(turn, events[name]) for table, name in ((self._users, "user"), (self._items, "item"))]
        sequence, late = kernels.freeze_and_fold(
            *self._rows, self._users.rows, self._items.rows, *places, *(events[name] for name in _FOLDED), self._half_life_ms,
            self._idle_ms, totals, self.sequence, *answer)
        folded = answer.status == FOLDED
        new = dict[str, int]()
        if self.set.definitions:
            frozen = folded & (events["action"] == IMPRESSION) & (events["served"] == 0)
            extra = self._groups.fold(turn, events["user"], events["item"], events["moment"], taken_of(self.set, events), events["ts_ms"],
                                      frozen.astype(np.uint8), folded.astype(np.uint8))
            self._groups.put(extra, frozen, *answer[:3])
            new = self._groups.changed()
        _, new["users"] = self._memory.changed("users")
        items, new["items"] = self._memory.changed("items")
        moved = {"sequence": int(sequence) - self.sequence, "applied": len(causes), "retries": int((~folded).sum()), "late": int(late),
                 "out_of_order": self._behind(causes, order), **new}
        counts = self.counts | {name: self.counts.get(name, 0) + count for name, count in moved.items()}
        counts |= {"impressions": int(totals[0]), "clicks": int(totals[1])}
        self._write(causes, answer, order, counts)
        self.popular.fold(self._items.keys[items], self._rows[1][items])
        self._written(self._memory.settle)
        return answer

    def _behind(self, causes: Causes, order: Order) -> int:
        """How many of new causes come behind a higher offset of their partition."""
        highest = [self._rings.highest(RingKey(FEATURE_SET, *where, EFFECT)) for where in order.where]
        return order.behind(causes.offset, np.array(highest, np.int64))

    def _write(self, causes: Causes, answer: Frozen, order: Order, counts: dict[str, int]) -> None:
        """One record: what rows changed, what was answered, the rings' pages, the counts."""
        writes = Writes()
        self._answered.put(writes, self._memory.number, causes, answer, order.of)
        for key, page in self._rings.mark(FEATURE_SET, EFFECT, causes):
            bits = self._rings.page(key, page)
            if bits is not None:
                writes.put("rings", ring_page_key(*key, page), bits)
            if page > self._head_pages.get(key, -1):
                self._head_pages[key] = page
                self._prune(writes, key, page)
        writes.put("meta", b"counts", counts_bytes(counts))
        self._commit(writes, counts)

    def _commit(self, writes: Writes, counts: dict[str, int]) -> None:
        number = self._memory.number
        try:
            self._written(lambda: self._memory.commit(writes))
        finally:
            if self._memory.number > number:  # the log has it, whatever the store says
                self.counts = counts

    def _written(self, write: Callable[[], None]) -> None:
        try:
            write()
        except Exception as error:
            self.failed = f"the store cannot write: {error}"
            raise Unavailable(f"{self.failed}; free the disk: the store is opened again at the next call, which answers what was"
                              " applied and applies the rest") from error

    def recover(self) -> None:
        """Open the store again after a failed write, and start from what it holds. Raises Unavailable while it cannot be written; what was
        read before can be read then."""
        self._written(self.store.try_write)
        self._written(self.store.reopen)
        self._written(self._restore)
        self.failed = ""

    def _prune(self, writes: Writes, key: RingKey, head_page: int) -> None:
        """When a ring enters a page: delete the pages that it has left, and the frozen samples older than are kept."""
        left = self._rings.first_page(key)
        if left > 0:
            writes.delete_range("rings", ring_page_key(*key, 0), ring_page_key(*key, left))
            writes.put("meta", ring_first_key(*key), left.to_bytes(8, "big"))
        self._answered.prune(writes, (key.source, key.partition), head_page * PAGE_BITS - self._frozen_offsets)

    def _restore(self) -> None:
        """All that lives in memory, from the store."""
        self.backfills = Backfills(self.store, self.set, self._idle_ms)
        self._groups, frozen = Groups(self.store, self.set, self._idle_ms), FrozenRows(self.store, self.set)
        redo(self.store, self._groups.layouts, self.tail)
        self.counts = dict.fromkeys(_COUNTS, 0) | self.store.meta()
        self.backfills.opened(self.sequence)
        self._answered = Answered(self.store, frozen, self._frozen_offsets)
        self.layouts: list[Layout] = frozen.layouts  # of every feature set that this store has had
        self._memory = RowMemory(self.store, log_bytes=self._log_bytes, rows_bytes=self._rows_bytes, tail=self.tail)
        self._users, users = self._table("users", USER_ROW)
        self._items, items = self._table("items", ITEM_ROW)
        self._rows = users, items
        self._groups.open(self._memory)
        self._memory.opened()
        self._rings = Rings(self._ring_length)
        self._head_pages: dict[RingKey, int] = {}
        self.popular = Popular(self._half_life_ms)
        for data_key, data in self.store.scan("rings"):
            scope, source, partition, effect, page = ring_page_of(data_key)
            key = RingKey(scope, source, partition, effect)
            self._rings.restore(key, page, data)
            self._head_pages[key] = max(page, self._head_pages.get(key, -1))
        for data_key, data in self.store.scan("meta"):
            ring = ring_first_of(data_key)
            if ring is not None:
                self._rings.restore_first(RingKey(*ring), int.from_bytes(data, "big"))
        self.popular.rebuild(item_blocks(self.store))
        self._sweep = Sweep(self.store, self._idle_ms)

    def _table(self, family: str, dtype: np.dtype) -> tuple[RowTable, np.ndarray]:
        """Users or items in memory, and the same rows as the kernels see them."""
        words = dtype.itemsize // 8
        memory = np.zeros((1 + self._memory.places(words, 1)) * words, np.uint64)
        return self._memory.add(family, memory, words, partial(self._load, family, dtype),
                                rings=user_rings() if family == "users" else None), memory.view(dtype)

    def _load(self, family: str, dtype: np.dtype, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows, found = self.store.rows(family, keys, dtype, lambda held: np.frombuffer(b"".join(now(row, dtype) for row in held), dtype))
        return rows.view(np.uint64).reshape(len(keys), -1), found


def _blocks(n: int, size: int = 0) -> Iterator[slice]:
    size = min(size or BLOCK, BLOCK)
    for start in range(0, n, size):
        yield slice(start, start + size)


def _own(column: np.ndarray) -> np.ndarray:
    """As kernels take it, which are compiled for one kind of array: writable and in one piece."""
    return column if column.flags.behaved and column.flags.c_contiguous else column.copy()


def _put(answer: Frozen, at: np.ndarray, part: Frozen) -> None:
    for whole, column in zip(answer, part, strict=True):
        whole[at] = column
