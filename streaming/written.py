"""What `enriched` holds of the partitions that a worker takes up: their newest event time goes on from there, and nothing is written twice.

A worker may begin before the end of what its predecessor wrote, since a checkpoint is older. Events that lie in `enriched` are passed by:
a copy would come behind newer ones, and be told as late. And what is written from then on says the newest event time of its partition,
predecessor's records among them (`newest_ms`), so that whether an event is late depends on its partition alone, restart or not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from headrace.schemas.access import Cluster
from headrace.schemas.codec import Codec
from headrace.schemas.errors import Malformed
from headrace.streaming.positions import appended, latest

CLOCKS_MS = 1000  # by which the brokers' clocks may differ
LAST = 256  # records of each partition of `enriched` that are read at the least: the newest event time is in the last of a partition


class Written:
    """Of one worker; `where` is None without a broker to ask: it begins with nothing then. `source`: of the causes that are ours."""

    def __init__(self, where: Cluster | str | None, enriched: Codec, source: int) -> None:
        self._where, self._enriched, self._source = where, enriched, source
        self._held: dict[int, set[int]] = {}
        self._newest: dict[int, int] = {}

    def take_up(self, partition: np.ndarray, append_ms: np.ndarray) -> None:
        """Before a call's work on n records, partition int[n] and append_ms int64[n]: see what is there of partitions not met before, of
        what was appended since their first record was; nearly always nothing to do. Raises Unread."""
        first = {p: int(append_ms[partition == p].min()) for p in set(partition.tolist()) - self._held.keys()}
        if not first:
            return
        held: dict[int, set[int]] = {p: set() for p in first}
        newest = dict.fromkeys(first, 0)
        if self._where is not None:
            for p, offset, newest_ms in self._read(min(first.values())):
                if p in held:
                    held[p].add(offset)
                    newest[p] = max(newest[p], newest_ms)
        self._held |= held
        self._newest |= newest

    def _read(self, since_ms: int) -> Iterator[tuple[int, int, int]]:
        assert self._where is not None, "its caller has seen to that"
        for values in (appended(self._where, "enriched", since_ms - CLOCKS_MS), latest(self._where, "enriched", LAST)):
            yield from ((p, offset, newest_ms) for p, offset, newest_ms in self.of(values))

    def of(self, values: Iterable[bytes | None]) -> Iterator[tuple[int, int, int]]:
        """(partition, offset, newest event time) of records of `enriched`; one of another source or writer is left out."""
        for value in values:
            try:
                record = self._enriched.decode(value)
            except Malformed:
                continue
            if record["source"] == self._source:
                yield record["partition"], record["offset"], max(record["newest_ms"], record["ts_ms"])

    def lacks(self, partition: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """bool[n]: which records partition int[n], offset int64[n] are not in `enriched`, by what it held when the partition was taken
        up."""
        lacking = np.ones(len(offset), bool)
        for p in set(partition.tolist()):
            held = self._held.get(p, set())
            if held:
                at = np.nonzero(partition == p)[0]
                lacking[at] = [one not in held for one in offset[at].tolist()]
                if int(offset[at].max()) > max(held):
                    held.clear()  # those of the stretch that was read twice lie behind
        return lacking

    def newest(self, partition: np.ndarray, ts_ms: np.ndarray) -> np.ndarray:
        """int64[n]: the newest event time of its partition up to and with each record, of n in order; nothing is kept of it."""
        made = np.empty(len(ts_ms), np.int64)
        for p in set(partition.tolist()):
            at = partition == p
            made[at] = np.maximum(np.maximum.accumulate(ts_ms[at]), self._newest.get(p, 0))
        return made

    def keep(self, partition: np.ndarray, newest_ms: np.ndarray) -> None:
        """What `newest` said has been written."""
        for p in set(partition.tolist()):
            self._newest[p] = max(self._newest.get(p, 0), int(newest_ms[partition == p].max()))
