"""Training to serving: changed rows of served tables, as blocks of absolute values by slot (schemas/weights.avsc)."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from headrace.ps import kernels
from headrace.ps.encoding import encode
from headrace.ps.index import kernel_input
from headrace.ps.shard import Shard
from headrace.ps.table import SLOTS, Table

log = logging.getLogger(__name__)
Publish = Callable[[str, bytes, dict[str, Any]], None]
BLOCK_ROWS = 4096
PASS_ROWS = 65536


def at_once(work: Callable[[], Any]) -> Any:
    """The turn of who shares the shard with nobody."""
    return work()


def nothing_to_flush() -> None:
    """For a `publish` that returns only once the record is safe."""


class _Taken(NamedTuple):
    """What a pass carries of a table, as it was when it was taken: `places` slot -> (first, one after the last) of `rows`; `gone` is sent,
    `kept` is not, of the table's first `gone_count` keys gone."""

    model: str
    table: Table
    common: dict[str, Any]
    rows: np.ndarray
    keys: np.ndarray
    weights: np.ndarray
    places: dict[int, tuple[int, int]]
    gone: np.ndarray
    gone_slot: np.ndarray
    kept: np.ndarray
    gone_count: int


class Publisher:
    """Calls `publish(topic, key, record)` for what has changed, then `flush()`; both raise when a record is not safe.

    Rows count as published only when a whole pass went through, and are still as they were sent: a pass that failed is sent again, and
    folding twice changes nothing. A pass ends after the slot in which it reaches 65,536 rows of a table, and the next goes on behind it, so
    that pulls do not wait long. One thread calls it; what it takes from the shard and tells it goes through `turn` (Owner.call), and the
    shard goes on while a pass is on its way: a broker that is away holds up no push. `superseded` is told once replicas know that a
    standby has taken over.
    """

    def __init__(self, shard: Shard, publish: Publish, now_ms: Callable[[], int], flush: Callable[[], None] = nothing_to_flush,
                 turn: Callable[[Callable[[], Any]], Any] = at_once, superseded: Callable[[], None] = nothing_to_flush) -> None:
        self._shard = shard
        self._publish = publish
        self._flush = flush
        self._now_ms = now_ms
        self._turn = turn
        self._superseded = superseded
        self._not_before_s = 0.0
        self._from_slot: dict[tuple[str, str], int] = {}

    def run_timed(self) -> None:
        """`run_pass`, for a timer: a failure is said once a second at most, and the next try comes after that second."""
        if time.monotonic() < self._not_before_s:
            return
        try:
            self.run_pass()
        except Exception as error:
            log.warning("publishing weights failed, again in a second: %s", error)
            self._not_before_s = time.monotonic() + 1.0


    def keep_publishing(self, every_s: float, stop: threading.Event, mine: Callable[[], bool] = lambda: True) -> None:
        """`run_timed` until `stop`, on a thread of its own, while the shard is `mine`."""
        while not stop.wait(every_s):
            if mine():
                self.run_timed()

    def run_pass(self) -> int:
        """Publish what has changed; rows sent. Raises what `publish`, `flush` and `turn` raise."""
        if self._shard.superseding:
            self._supersede()
        passing: list[_Taken] = self._turn(self._take)
        for taken in passing:
            self._send(taken)
        if passing:
            self._flush()
            self._turn(partial(self._sent, passing))
        return sum(len(taken.rows) for taken in passing)

    def _supersede(self) -> None:
        """Tell replicas, by blocks that begin behind their end, that what they have of this shard may be of pushes that nobody has: they
        fetch it anew."""
        shard = self._shard
        epoch, sequence = self._turn(lambda: (shard.epoch, shard.sequence))
        for (model, name), table in shard.tables.items():
            for number in range(*shard.slots) if table.spec.served else ():
                self._publish(f"weights.{model}", str(number).encode(), {
                    "model": model, "table": name, "epoch": epoch, "last_sequence": sequence, "dim": table.spec.dim,
                    "ts_ms": self._now_ms(), "newest": None, "encoding": table.spec.encoding, "slot": number,
                    "first_sequence": sequence + 1, "keys": b"", "values": b"", "scales": b"", "deleted": b""})
        self._flush()
        shard.superseding = False
        self._superseded()

    def _take(self) -> list[_Taken]:
        return [self._taken(model, name, table) for (model, name), table in self._shard.tables.items()
                if table.spec.served and (len(table.changed()) or len(table.gone()))]

    def _taken(self, model: str, name: str, table: Table) -> _Taken:
        changed = table.changed().copy()
        slot = kernels.slots_of(kernel_input(table.keys_at(changed)))
        first = self._from_slot.get((model, name), 0)
        order = np.argsort((slot - first) % SLOTS, kind="stable")
        changed, slot = changed[order], slot[order]
        starts = [0, *(np.nonzero(np.diff(slot))[0] + 1).tolist(), len(slot)] if len(slot) else [0]
        sent = next((stop for stop in starts[1:] if stop >= PASS_ROWS), len(slot))
        changed = changed[:sent]
        gone = table.gone_still()
        gone_slot = kernels.slots_of(kernel_input(gone))
        places = {int(slot[start]): (start, stop) for start, stop in itertools.pairwise(starts) if start < sent}
        if sent == len(slot):  # what only goes comes with the last of a round
            places |= {number: (0, 0) for number in np.unique(gone_slot).tolist() if number not in places}
        newest = self._shard.newest.get(model)
        common = {"model": model, "table": table.spec.name, "epoch": self._shard.epoch, "last_sequence": self._shard.sequence,
                  "dim": table.spec.dim, "ts_ms": self._now_ms(), "newest": None if newest is None else newest._asdict(),
                  "encoding": table.spec.encoding}
        if sent:
            self._from_slot[model, name] = (int(slot[sent - 1]) + 1) % SLOTS
        mine = np.isin(gone_slot, list(places))
        return _Taken(model, table, common, changed, table.keys_at(changed), table.weights_at(changed), places, gone[mine],
                      gone_slot[mine], gone[~mine], len(table.gone()))

    def _send(self, taken: _Taken) -> None:
        rows, keys = encode(taken.weights, taken.table.spec.encoding), taken.keys
        taken.table.counts["clipped"] += rows.clipped
        for number, (start, stop) in taken.places.items():
            deleted, after = taken.gone[taken.gone_slot == number], int(taken.table.published[number])
            for at in range(0, max(stop - start, len(deleted)), BLOCK_ROWS):
                part = slice(min(start + at, stop), min(start + at + BLOCK_ROWS, stop))
                record = {**taken.common, "slot": number, "first_sequence": after + 1, "keys": keys[part].tobytes(),
                          "values": rows.values[part].tobytes(), "scales": rows.scales[part].tobytes(),
                          "deleted": deleted[at : at + BLOCK_ROWS].tobytes()}
                self._publish(f"weights.{taken.model}", str(number).encode(), record)

    def _sent(self, passing: list[_Taken]) -> None:
        """The broker has it: what has not changed since is published."""
        for taken in passing:
            table, rows = taken.table, taken.rows
            same = (table.weights_at(rows).view(np.uint32) == taken.weights.view(np.uint32)).all(axis=1)
            table.clear_changed(rows[same & (table.keys_at(rows) == taken.keys)])
            table.clear_gone(np.concatenate([taken.kept, table.gone()[taken.gone_count :]]))
            table.published[list(taken.places)] = taken.common["last_sequence"]
