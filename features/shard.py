"""One shard of features: freezes and folds events once a cause, answers repetitions from what was frozen, assembles samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from headrace.features import kernels
from headrace.features.feature_set import BASE, FeatureSet
from headrace.features.frozen import Frozen, FrozenRows
from headrace.features.groups import Groups
from headrace.features.inputs import taken_of
from headrace.features.known_sets import Layout
from headrace.features.layout import FEATURE_SET, FOLDED, IMPRESSION, ITEM_ROW, REPEATED, RETRY, RING, ROW_VERSION, USER_ROW, F, K
from headrace.features.popular import Popular
from headrace.features.store import (
    Batch,
    FeatureStore,
    cause_key,
    cause_keys,
    counts_bytes,
    ring_first_key,
    ring_first_of,
    ring_page_key,
    ring_page_of,
    rows_of,
)
from headrace.rpc.causes import PAGE_BITS, Causes, RingKey, Rings
from headrace.rpc.errors import TooOld, Unavailable
from headrace.rpc.message import Arrays

EFFECT = "fold"
BATCH_MAX = 4096
FROZEN_OFFSETS = 1 << 18  # what is replayed after a crash: the rate of a partition times the checkpoint interval
_COUNTS = ("sequence", "applied", "retries", "late", "out_of_order", "users", "items", "impressions", "clicks")


class User(NamedTuple):
    found: bool
    impressions: int
    clicks: int
    recent: np.ndarray
    recent_clicked: np.ndarray


class Sample(NamedTuple):
    """keys uint64[m,F], values float32[m,F], numbers float32[m,K]."""

    keys: np.ndarray
    values: np.ndarray
    numbers: np.ndarray


class FeatureShard:
    """Owned by one thread. `frozen_offsets`: how many offsets a partition the frozen samples are kept for, at most `ring_length`.
    `feature_set`: what is frozen beside the built-in features. Raises DefinitionError when one of its definitions was changed under its
    version.

    counts: `sequence` (events folded ever), `applied` (causes ever: folded and retries), `retries`, `late` (folded behind a newer event of
    their user), `out_of_order` (causes behind a higher offset of their partition), `users`, `items`, `impressions` and `clicks` (folded
    ever: the prior of all rates), "group ENTITY" (rows of the definitions of an entity); `duplicates` since the start.
    """

    def __init__(self, store: FeatureStore, *, half_life_s: float, ring_length: int, frozen_offsets: int = FROZEN_OFFSETS,
                 feature_set: FeatureSet = BASE) -> None:
        self.store, self.set = store, feature_set
        self._half_life_ms = half_life_s * 1000.0
        self._ring_length = ring_length
        self._frozen_offsets = min(frozen_offsets, ring_length)
        self.duplicates = 0
        self.failed = ""
        self.counts: dict[str, int] = {}
        self.popular = Popular(self._half_life_ms)
        self._restore()

    @property
    def sequence(self) -> int:
        return self.counts["sequence"]

    def freeze_and_fold(self, causes: Causes, events: Arrays) -> Frozen:
        """Freeze, fold and answer n events in their order; `events` are arrays as in FeatureSet.event_columns. All that a call changes is
        written, with its causes, in one batch a 4,096 events, before it is answered.

        A cause applied before (or earlier in this call) is answered with what it was answered then: status REPEATED, or RETRY again.
        Raises TooOld when a cause lies before the ring, or was applied and its frozen sample is no longer kept; nothing of its block of
        4,096 is applied then. Raises Unavailable when the store cannot write; calling again is safe.
        """
        if self.failed:
            self.recover()
        parts = [self._block(causes.take(at), {name: events[name][at] for name in self.set.event_columns}) for at in _blocks(len(causes))]
        if len(parts) == 1:
            return parts[0]
        return Frozen(*map(np.concatenate, zip(*parts, strict=True))) if parts else self._blank(0)

    def _blank(self, n: int) -> Frozen:
        return Frozen.empty(n, self.set.F, self.set.K)

    def assemble(self, user: np.ndarray, item: np.ndarray, context: np.ndarray, ts_ms: np.ndarray,
                 moment: np.ndarray | None = None) -> Sample:
        """Samples of m pairs as they are now, read at ts_ms int64[m]: user, item uint64[m] (0: none), context uint64[m,4], moment
        uint64[m,P] of the set's moments (0: none)."""
        user, item, context, ts_ms = (np.array(column) for column in (user, item, context, ts_ms))  # writable: one compiled kernel
        users, items = _Rows.read(self.store, "users", user, USER_ROW), _Rows.read(self.store, "items", item, ITEM_ROW)
        m = len(ts_ms)
        sample = Sample(*self._blank(m)[:3])
        if m:
            kernels.assemble(users.rows, items.rows, users.index, items.index, user, item, context, ts_ms, self._half_life_ms,
                             self._totals(), *_built_in(sample))
        if m and self.set.definitions:
            moment = np.zeros((m, len(self.set.moments)), np.uint64) if moment is None else np.array(moment)
            self.groups.put(self.groups.read(user, item, moment, ts_ms), np.ones(m, bool), *sample)
        return sample

    @property
    def layouts(self) -> list[Layout]:
        """Of every feature set that this store has had, this one among them."""
        return self._frozen.layouts

    def user(self, key: int) -> User:
        """Counts and the last items of a user, newest first, 0 where there are fewer."""
        rows, found = self.store.rows("users", np.array([key], np.uint64), USER_ROW)
        row = rows[0]
        newest = np.arange(RING)
        recent = row["recent"][(int(row["recent_next"]) - 1 - newest) % RING]
        clicked = row["clicked"][(int(row["clicked_next"]) - 1 - newest) % RING]
        return User(bool(found[0]), int(row["impressions_total"]), int(row["clicks_total"]), recent, clicked)

    def totals(self, of: str, keys: np.ndarray) -> Arrays:
        """impressions, clicks and events int64[n] ever folded of the users or items (`of`: user, item) under uint64[n]; 0 where unknown."""
        family, dtype = {"user": ("users", USER_ROW), "item": ("items", ITEM_ROW)}[of]
        rows, _ = self.store.rows(family, keys, dtype)
        return {name: rows[f"{name}_total"].astype(np.int64) for name in ("impressions", "clicks", "events")}

    def held(self, of: str, key: int) -> dict[str, int]:
        """family -> rows of a user or an item (`of`) under its row key, its name among them."""
        return {family: int(self.store.get(family, [key.to_bytes(8, "big")])[0] is not None) for family in rows_of(self.store, of)}

    def erase(self, of: str, key: int) -> dict[str, int]:
        """Delete these rows, in one batch; how many of each family there were. Causes stay applied, and what was frozen stays until it is
        old: it answers the repetitions of a job that comes back. Raises Unavailable when the store cannot write."""
        if self.failed:
            self.recover()
        found, batch = self.held(of, key), self.store.batch()
        for family in found:
            batch.delete_rows(family, np.array([key], np.uint64))
        counts = self.counts | {name: self.counts[name] - rows for name, rows in found.items() if name in self.counts}
        batch.put("meta", b"counts", counts_bytes(counts))
        self._commit(batch)
        self.counts = counts
        if of == "item":
            self.popular.forget(key)
        return found

    def _totals(self) -> np.ndarray:
        return np.array([self.counts["impressions"], self.counts["clicks"]], np.int64)

    def _block(self, causes: Causes, events: Arrays) -> Frozen:
        applied = self._rings.check_new(FEATURE_SET, EFFECT, causes)
        first = _first_rows(causes)
        new = ~applied & (first == np.arange(len(causes)))
        answer = self._blank(len(causes))
        if applied.any():
            _put(answer, np.nonzero(applied)[0], self._stored(causes.take(applied)))
        if new.any():
            at = np.nonzero(new)[0]
            _put(answer, at, self._fold(causes.take(at), {name: column[at] for name, column in events.items()}))
        again = np.nonzero(~applied & ~new)[0]
        if len(again):
            repeated = answer.take(first[again])
            repeated.status[repeated.status != RETRY] = REPEATED
            _put(answer, again, repeated)
        self.duplicates += len(causes) - int(new.sum())
        return answer

    def _stored(self, causes: Causes) -> Frozen:
        held = self.store.get("frozen", cause_keys(*causes))
        missing = next((i for i, data in enumerate(held) if data is None), None)
        if missing is not None:
            raise TooOld(f"offset {int(causes.offset[missing])} of source {int(causes.source[missing])}, partition"
                         f" {int(causes.partition[missing])} was folded, and its frozen sample is gone: only the last"
                         f" {self._frozen_offsets} offsets are kept; start the job from a newer offset, or raise frozen_offsets")
        return self._frozen.from_bytes([data for data in held if data is not None])

    def _fold(self, causes: Causes, events: Arrays) -> Frozen:
        users = _Rows.read(self.store, "users", events["user"], USER_ROW)
        items = _Rows.read(self.store, "items", events["item"], ITEM_ROW)
        answer, totals, newest_ms = self._blank(len(causes)), self._totals(), users.rows["last_ts_ms"].copy()
        keys, values, numbers = _built_in(answer)
        sequence = kernels.freeze_and_fold(
            users.rows, items.rows, users.index, items.index, *causes, events["ts_ms"], events["action"], events["user"], events["item"],
            events["event"], events["user_fields"], events["item_fields"], events["context"], events["served"], self._half_life_ms,
            totals, self.sequence, keys, values, numbers, answer.sequence, answer.status)
        folded = answer.status == FOLDED
        batch, new = self.store.batch(), dict[str, int]()
        if self.set.definitions:
            frozen = folded & (events["action"] == IMPRESSION) & (events["served"] == 0)
            extra, new = self.groups.fold(events["user"], events["item"], events["moment"], taken_of(self.set, events), events["ts_ms"],
                                     frozen.astype(np.uint8), folded.astype(np.uint8), batch)
            self.groups.put(extra, frozen, *answer[:3])
        users.keep(folded)
        items.keep(folded)
        counts = self.counts | {
            "sequence": int(sequence), "applied": self.counts["applied"] + len(causes),
            "retries": self.counts["retries"] + int((~folded).sum()),
            "late": self.counts["late"] + int(_behind(users.index[folded], events["ts_ms"][folded], newest_ms).sum()),
            "out_of_order": self.counts["out_of_order"] + self._out_of_order(causes),
            "users": self.counts["users"] + int((users.changed & ~users.found).sum()),
            "items": self.counts["items"] + int((items.changed & ~items.found).sum()),
            "impressions": int(totals[0]), "clicks": int(totals[1]),
            **{family: self.counts.get(family, 0) + count for family, count in new.items()}}
        self._write(batch, causes, answer, users, items, counts)
        self.counts = counts
        self.popular.fold(items.keys[items.changed], items.rows[items.changed])
        return answer

    def _out_of_order(self, causes: Causes) -> int:
        """How many of new causes come behind a higher offset of their partition."""
        code, group = np.unique(causes.source.astype(np.int64) << 32 | causes.partition, return_inverse=True)
        rings = [RingKey(FEATURE_SET, int(one >> 32), int(one & 0xFFFFFFFF), EFFECT) for one in code]
        highest = np.array([self._rings.highest(ring) for ring in rings], np.int64)
        return int(_behind(group.reshape(-1), causes.offset, highest).sum())

    def _write(self, batch: Batch, causes: Causes, answer: Frozen, users: _Rows, items: _Rows, counts: dict[str, int]) -> None:
        """One batch, which has the rows of groups: rows, what was answered, the rings' pages, the counts."""
        batch.put_rows("users", users.keys[users.changed], users.rows[users.changed])
        batch.put_rows("items", items.keys[items.changed], items.rows[items.changed])
        batch.put_all("frozen", cause_keys(*causes), self._frozen.to_bytes(answer))
        for key, page in self._rings.mark(FEATURE_SET, EFFECT, causes):
            bits = self._rings.page(key, page)
            if bits is not None:
                batch.put("rings", ring_page_key(*key, page), bits)
            if page > self._head_pages.get(key, -1):
                self._head_pages[key] = page
                self._prune(batch, key, page)
        batch.put("meta", b"counts", counts_bytes(counts))
        self._commit(batch)

    def _commit(self, batch: Batch) -> None:
        try:
            self.store.write(batch)
        except Exception as error:  # the ring in memory is ahead of the store now: nothing may be answered from it
            self.failed = f"the store cannot write: {error}"
            raise Unavailable(f"{self.failed}; nothing of this call's block was applied; free the disk, the store is opened again at the"
                              " next call") from error

    def recover(self) -> None:
        """Open the store again after a failed write, and start from what it holds."""
        self.store.reopen()
        self._restore()
        self.failed = ""

    def _prune(self, batch: Batch, key: RingKey, head_page: int) -> None:
        """When a ring enters a page: delete the pages that it has left, and the frozen samples older than are kept."""
        left = self._rings.first_page(key)
        if left > 0:
            batch.delete_range("rings", ring_page_key(*key, 0), ring_page_key(*key, left))
            batch.put("meta", ring_first_key(*key), left.to_bytes(8, "big"))
        floor = head_page * PAGE_BITS - self._frozen_offsets
        where = (key.source, key.partition)
        since = self._frozen_floor.get(where, 0)
        if floor > since:
            batch.delete_range("frozen", cause_key(*where, since), cause_key(*where, floor))
            self._frozen_floor[where] = floor

    def _restore(self) -> None:
        """All that lives in memory, from the store."""
        self.counts = dict.fromkeys(_COUNTS, 0) | self.store.meta()
        self.groups, self._frozen = Groups(self.store, self.set), FrozenRows(self.store, self.set)
        self._rings = Rings(self._ring_length)
        self._head_pages: dict[RingKey, int] = {}
        self._frozen_floor: dict[tuple[int, int], int] = {}
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
        self.popular.rebuild(_item_blocks(self.store))


def _built_in(made: Frozen | Sample) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """keys, values and numbers of the built-in features, which come first."""
    return made.keys[:, :F], made.values[:, :F], made.numbers[:, :K]


class _Rows:
    """Distinct rows of a call: keys uint64[u], rows[u], found bool[u], index int64[n] from events to rows, changed bool[u]."""

    def __init__(self, keys: np.ndarray, rows: np.ndarray, found: np.ndarray, index: np.ndarray) -> None:
        self.keys, self.rows, self.found, self.index = keys, rows, found, index
        self.changed = np.zeros(len(keys), bool)

    @classmethod
    def read(cls, store: FeatureStore, family: str, keys: np.ndarray, dtype: np.dtype) -> _Rows:
        distinct, index = np.unique(keys, return_inverse=True)
        rows, found = store.rows(family, distinct, dtype)
        assert (rows["version"] == found * ROW_VERSION).all(), f"{family} holds rows of another version than {ROW_VERSION}"
        return cls(distinct, rows, found, index.reshape(-1))

    def keep(self, folded: np.ndarray) -> None:
        """Rows of folded events (bool[n]) are the ones to write."""
        self.changed[self.index[folded]] = True


def _blocks(n: int) -> Iterator[slice]:
    for start in range(0, n, BATCH_MAX):
        yield slice(start, start + BATCH_MAX)


def _first_rows(causes: Causes) -> np.ndarray:
    """int64[n]: the row at which each row's cause comes first."""
    cause = np.empty(len(causes), [("source", "i4"), ("partition", "i4"), ("offset", "i8")])
    cause["source"], cause["partition"], cause["offset"] = causes
    _, first, inverse = np.unique(cause, return_index=True, return_inverse=True)
    return first[inverse.reshape(-1)]


def _behind(group: np.ndarray, value: np.ndarray, highest: np.ndarray) -> np.ndarray:
    """bool[n]: which values int64[n] lie below an earlier one of their group int64[n], or below highest int64[g] of it."""
    rank = np.unique(value, return_inverse=True)[1].reshape(-1)
    order = np.argsort(group, kind="stable")
    place = (rank + group * len(value))[order]  # a later group's places lie above an earlier group's
    behind = np.zeros(len(value), bool)
    behind[order[1:]] = place[1:] < np.maximum.accumulate(place)[:-1]
    return behind | (value < highest[group])


def _put(answer: Frozen, at: np.ndarray, part: Frozen) -> None:
    for whole, column in zip(answer, part, strict=True):
        whole[at] = column


def _item_blocks(store: FeatureStore) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    keys, rows = [], []
    for key, row in store.scan("items"):
        keys.append(key)
        rows.append(row)
        if len(keys) == BATCH_MAX:
            yield np.frombuffer(b"".join(keys), ">u8").astype(np.uint64), np.frombuffer(b"".join(rows), ITEM_ROW)
            keys, rows = [], []
    if keys:
        yield np.frombuffer(b"".join(keys), ">u8").astype(np.uint64), np.frombuffer(b"".join(rows), ITEM_ROW)
