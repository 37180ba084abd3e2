"""Training to serving: changed rows of served tables, as blocks of absolute values by slot (schemas/weights.avsc)."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from headrace.ps import kernels
from headrace.ps.shard import Shard
from headrace.ps.table import SLOTS, Table, kernel_input

log = logging.getLogger(__name__)
Publish = Callable[[str, bytes, dict[str, Any]], None]
BLOCK_ROWS = 4096
PASS_ROWS = 65536


def nothing_to_flush() -> None:
    """For a `publish` that returns only once the record is safe."""


class Publisher:
    """Calls `publish(topic, key, record)` for what has changed, then `flush()`; both raise when a record is not safe.

    Rows count as published only when a whole pass went through: a pass that failed is sent again, and folding twice changes nothing. A pass
    ends after the slot in which it reaches 65,536 rows of a table, and the next goes on behind it, so that pulls do not wait long.
    `superseded` is told once replicas know that a standby has taken over.
    """

    def __init__(self, shard: Shard, publish: Publish, now_ms: Callable[[], int], flush: Callable[[], None] = nothing_to_flush,
                 superseded: Callable[[], None] = nothing_to_flush) -> None:
        self._shard = shard
        self._publish = publish
        self._flush = flush
        self._superseded = superseded
        self._now_ms = now_ms
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

    def run_pass(self) -> int:
        """Publish what has changed; rows sent. On the shard's thread. Raises what `publish` and `flush` raise."""
        if self._shard.superseding:
            self._supersede()
        done: list[tuple[Table, np.ndarray, np.ndarray, list[int]]] = []
        for (model, name), table in self._shard.tables.items():
            if table.spec.served and (len(table.changed()) or len(table.gone())):
                done.append((table, *self._send(model, name, table)))
        if done:
            self._flush()
        for table, rows, still, slots in done:
            table.clear_changed(rows)
            table.clear_gone(still)
            table.published[slots] = self._shard.sequence
        return sum(len(rows) for _, rows, _, _ in done)

    def _supersede(self) -> None:
        """Tell replicas, by blocks that begin behind their end, that what they have of this shard may be of pushes that nobody has: they
        fetch it anew."""
        shard = self._shard
        slots = range(*shard.slots)
        for (model, name), table in shard.tables.items():
            for number in slots if table.spec.served else ():
                self._publish(f"weights.{model}", str(number).encode(), {
                    "model": model, "table": name, "epoch": shard.epoch, "last_sequence": shard.sequence, "dim": table.spec.dim,
                    "ts_ms": self._now_ms(), "newest": None, "slot": number, "first_sequence": shard.sequence + 1, "keys": b"",
                    "values": b"", "deleted": b""})
        self._flush()
        shard.superseding = False
        self._superseded()

    def _send(self, model: str, name: str, table: Table) -> tuple[np.ndarray, np.ndarray, list[int]]:
        """(rows sent, keys gone that were not sent, slots)."""
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
        keys, values, newest = table.keys_at(changed), table.weights_at(changed), self._shard.newest.get(model)
        common = {"model": model, "table": table.spec.name, "epoch": self._shard.epoch, "last_sequence": self._shard.sequence,
                  "dim": table.spec.dim, "ts_ms": self._now_ms(), "newest": None if newest is None else newest._asdict()}
        for number, (start, stop) in places.items():
            deleted = gone[gone_slot == number]
            for at in range(0, max(stop - start, len(deleted)), BLOCK_ROWS):
                part = slice(min(start + at, stop), min(start + at + BLOCK_ROWS, stop))
                record = {**common, "slot": number, "first_sequence": int(table.published[number]) + 1, "keys": keys[part].tobytes(),
                          "values": values[part].tobytes(), "deleted": deleted[at : at + BLOCK_ROWS].tobytes()}
                self._publish(f"weights.{model}", str(number).encode(), record)
        if sent:
            self._from_slot[model, name] = (int(slot[sent - 1]) + 1) % SLOTS
        return changed, gone[~np.isin(gone_slot, list(places))], list(places)
