"""A serving replica: the fold of weight blocks into tables without optimizer slots.

Blocks carry absolute values under (epoch, sequence), so folding twice changes nothing and an older block is refused. A block that does not
join on to the last one of its slot shows a gap: what changed in between is fetched from the training shard with `export`, page by page.
A replica holds the slots of one serving shard; training shards and serving shards may be any numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from headrace.ps import kernels
from headrace.ps.encoding import of_block
from headrace.ps.index import kernel_input
from headrace.ps.shard import shard_of, slots_of_shard
from headrace.ps.spec import ModelSpec, TableSpec
from headrace.ps.table import SLOTS, Table
from headrace.rpc.errors import BadMessage, Refused
from headrace.rpc.freshness import Newest, newer


class Gap(NamedTuple):
    """What must be exported again: a table of a training shard."""

    model: str
    table: str
    shard: int


def as_served(table: TableSpec) -> TableSpec:
    """What a replica keeps of a table: weights, as they come."""
    return TableSpec(table.name, table.dtype, table.dim, "sum", init_scale=table.init_scale, served=True)


class Held:
    """One served table: weights, and by slot the epoch and sequence that they are as of, and how they were encoded."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.stamp = 0  # of what is put from here on
        self.epoch = np.zeros(SLOTS, np.int64)
        self.sequence = np.zeros(SLOTS, np.int64)
        self.encoding = [""] * SLOTS  # that the rows of a slot came in; "" before the first

    def newer(self, slot: np.ndarray, epoch: int, sequence: int) -> np.ndarray:
        """bool[n]: whether what is held of the slots int64[n] is newer than (epoch, sequence)."""
        held = self.epoch[slot]
        return np.asarray((held > epoch) | ((held == epoch) & (self.sequence[slot] > sequence)))


class Waiting:
    """Rows of one table that are put together, later ones over earlier ones: a call of a kernel costs more than a small block."""

    def __init__(self) -> None:
        self.rows = 0
        self._keys: list[np.ndarray] = []
        self._values: list[np.ndarray] = []

    def add(self, keys: np.ndarray, values: np.ndarray) -> None:
        self._keys.append(keys)
        self._values.append(values)
        self.rows += len(keys)

    def put(self, held: Held) -> None:
        if self._keys:
            held.table.put(np.concatenate(self._keys), np.concatenate(self._values), held.stamp)
        self.rows, self._keys, self._values = 0, [], []


class Replica:
    """One thread calls it. `shards`: training shards, whose slots a gap concerns; `serving`: (i, n), this is serving shard i of n. `gaps`
    begins with everything: a topic keeps only its tail, and a slot that no longer changes sends no block that could show it. `closing`:
    gaps that are being exported (ps/resync.py). `newest` by model: the newest cause that a folded block has seen; `seen` is told of each.
    """

    def __init__(self, specs: Iterable[ModelSpec], shards: int, rows_max: int, now_ms: Callable[[], int],
                 seen: Callable[[Newest], Any] = lambda newest: None, serving: tuple[int, int] = (0, 1)) -> None:
        self._now_ms, self._seen = now_ms, seen
        self._shards = shards
        self.slots = slots_of_shard(*serving)
        self.held = {(spec.model, table.name): Held(Table(as_served(table), rows_max, timed=True))
                     for spec in specs for table in spec.tables if table.served}
        owners = sorted(set(self._owner(np.arange(*self.slots)).tolist()))
        self.gaps = {Gap(model, table, shard) for model, table in self.held for shard in owners}
        self.closing: dict[Gap, int] = {}  # -> the stamp of what is put since the export began
        self.changes = 0  # of what is held: while it stands still nothing changes
        self.counts = {"folded": 0, "older": 0, "foreign": 0, "gaps": 0, "deleted": 0}
        self._newest_ms: dict[str, int] = {}
        self.newest: dict[str, Newest] = {}
        self._told: dict[str, Newest] = {}

    def table(self, model: str, name: str) -> Table:
        """Raises Refused, naming what there is."""
        return self._held(model, name).table

    def pull(self, model: str, name: str, keys: np.ndarray) -> np.ndarray:
        """float32[n, dim] of uint64[n]; an unknown key gives its initial value, as the training shard would. Raises Refused, for a key of
        another serving shard too."""
        at = kernels.foreign(kernel_input(keys), *self.slots)
        if at >= 0:
            raise Refused(f"{name}: key {int(keys[at])} is not of slots {self.slots[0]} to {self.slots[1] - 1}, which this replica serves:"
                          " the caller counts another number of replica.shards")
        return self._held(model, name).table.pull(keys)

    @property
    def whole(self) -> bool:
        """Whether nothing has to be fetched: before that an answer may lack rows."""
        return not (self.gaps or self.closing)

    def sequence(self, model: str) -> int:
        """The newest sequence folded of `model`."""
        return max((int(held.sequence.max()) for (m, _), held in self.held.items() if m == model), default=0)

    def age_ms(self, model: str) -> int:
        """Milliseconds since the newest block folded of `model` was published; -1 before the first."""
        newest = self._newest_ms.get(model)
        return -1 if newest is None else max(0, self._now_ms() - newest)

    def fold_many(self, records: Iterable[dict[str, Any]]) -> int:
        """Fold decoded weight records; how many were taken. A block of a model, table or slot that is not served here is passed over.

        Raises BadMessage for a block whose bytes do not fit its dim: it names the block, and the blocks before it are folded.
        """
        taken, waiting = 0, dict[tuple[str, str], Waiting]()
        try:
            for record in records:
                taken += self._fold(record, waiting)
        finally:
            for at, blocks in waiting.items():
                blocks.put(self.held[at])
        return taken

    def _fold(self, record: dict[str, Any], waiting: dict[tuple[str, str], Waiting]) -> bool:
        """Whether it is taken: its rows are then `waiting` to be put, with those of other blocks, in order."""
        held = self.held.get((record["model"], record["table"]))
        if held is None:
            self.counts["foreign"] += 1
            return False
        slot, epoch, last = record["slot"], record["epoch"], record["last_sequence"]
        dim = held.table.spec.dim
        encoding = record.get("encoding", "float32")
        where = f"block {record['model']}/{record['table']} slot {slot} at {last}"
        if record["dim"] != dim or not 0 <= slot < SLOTS or len(record["deleted"]) % 8 or len(record["keys"]) % 8:
            raise BadMessage(f"{where}: {len(record['keys'])} bytes of keys, dim {record['dim']} (here {dim}), {len(record['deleted'])}"
                             " bytes of deleted keys")
        keys = np.frombuffer(record["keys"], np.uint64)
        try:
            values = of_block(encoding, record["values"], record.get("scales", b""), len(keys), dim)
        except BadMessage as error:
            raise BadMessage(f"{where}: {error}") from None
        if not self.slots[0] <= slot < self.slots[1]:
            self.counts["foreign"] += 1
            return False
        had_epoch, had = int(held.epoch[slot]), int(held.sequence[slot])
        if had_epoch > epoch or (had_epoch == epoch and had > last):
            self.counts["older"] += 1
            return False
        went_back = last < had  # a higher epoch, and less than was published before: the shard lost its end
        if record["first_sequence"] > min(had + 1, last) or went_back or held.encoding[slot] not in ("", encoding):
            self.counts["gaps"] += 1
            self.gaps.add(Gap(record["model"], record["table"], int(self._owner(np.array([slot]))[0])))
        blocks = waiting.setdefault((record["model"], record["table"]), Waiting())
        if record["deleted"]:
            blocks.put(held)
            self.counts["deleted"] += held.table.remove(np.unique(np.frombuffer(record["deleted"], np.uint64)), publish=False)
        if len(held.table) + blocks.rows + len(keys) > held.table.rows_max:
            blocks.put(held)  # what waits is counted exactly before it is said to be full
            self._room(held.table, keys)
        blocks.add(keys, values)
        held.epoch[slot], held.sequence[slot], held.encoding[slot] = epoch, last, encoding
        self.changes += 1
        self._newest_ms[record["model"]] = max(record["ts_ms"], self._newest_ms.get(record["model"], 0))
        self.counts["folded"] += 1
        self._tell(record["model"], record.get("newest"))
        return True

    def _tell(self, model: str, cause: dict[str, Any] | None) -> None:
        """Note the newest cause that a block has seen; the blocks of a pass say the same one, which counts once."""
        newest = None if cause is None else Newest(**cause)
        if newest is not None and newest != self._told.get(model):
            self._told[model] = newest
            self.newest[model] = newer(self.newest.get(model), newest) or newest
            self._seen(newest)

    def begin_closing(self, gap: Gap, epoch: int, sequence: int, encoding: str = "float32") -> None:
        """An export of `gap` has begun at (epoch, sequence): every page will be as of then or later, so older blocks of the shard's slots
        are refused from here on, and only what the export reads after them may be put over newer ones.
        """
        held = self._held(gap.model, gap.table)
        slots = self._slots_of(gap)
        slots = slots[~held.newer(slots, epoch, sequence)]
        held.epoch[slots], held.sequence[slots] = epoch, sequence
        for slot in slots.tolist():
            held.encoding[slot] = encoding
        self.gaps.discard(gap)  # one that is seen during the export is a new one
        held.stamp += 1
        self.closing[gap] = held.stamp

    def take_page(self, gap: Gap, epoch: int, sequence: int, keys: np.ndarray, values: np.ndarray) -> bool:
        """Put an exported page; False, and nothing is put, when a block newer than the page came meanwhile: export that page again."""
        held = self._held(gap.model, gap.table)
        if held.newer(np.unique(kernels.slots_of(kernel_input(keys))), epoch, sequence).any():
            return False
        self._room(held.table, keys)
        held.table.put(keys, values, held.stamp)
        self.changes += 1
        return True

    def drop_stale(self, gap: Gap, start: int = 0, rows: int = 65536) -> int:
        """After the last page: of the rows from number `start` on, take out those of the shard's slots that neither the export nor a block
        has put since it began: the shard holds them no more. Where the next page of rows begins, -1 after the last."""
        held = self._held(gap.model, gap.table)
        keys, following = held.table.stale(self.closing[gap], self._slots_of(gap), start, rows)
        self.counts["deleted"] += held.table.remove(keys, publish=False)
        self.changes += 1
        return following

    def end_closing(self, gap: Gap, whole: bool) -> None:
        """The export has ended; not `whole`: the gap is open again."""
        self.closing.pop(gap, None)
        if not whole:
            self.gaps.add(gap)

    def _owner(self, slots: np.ndarray) -> np.ndarray:
        """The training shards int64[n] of slots int64[n]."""
        return shard_of(slots, self._shards)

    def _slots_of(self, gap: Gap) -> np.ndarray:
        """What is served here of a training shard's slots."""
        slots = np.arange(*self.slots)
        return slots[self._owner(slots) == gap.shard]

    def _room(self, table: Table, keys: np.ndarray) -> None:
        if not table.room_for(keys):
            raise Refused(f"table {table.spec.name} of the replica is full at {table.rows_max} rows: raise ps.rows_max")

    def _held(self, model: str, name: str) -> Held:
        held = self.held.get((model, name))
        if held is None:
            known = ", ".join(f"{m}/{t}" for m, t in sorted(self.held))
            raise Refused(f"no table {name!r} of model {model!r} is served here; there are {known}")
        return held
