"""The newest blocks of a shard in memory, for those who follow it: what they changed, and none of what only the shard itself needs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np

from headrace.features.block_log import Record, Writes, packed, record_at

BYTES_MAX = 64 << 20
_FOLLOWED = {b"counts", b"block"}  # of meta


class Tail:
    """At most `bytes_max` of records, the oldest go first."""

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        self._bytes_max, self._bytes = bytes_max, 0
        self._records: deque[tuple[int, bytes]] = deque()

    def put(self, number: int, words: np.ndarray, writes: Writes) -> None:
        """The next block; numbers rise by one."""
        record = b"".join(packed(number, words, followed(writes)))
        self._records.append((number, record))
        self._bytes += len(record)
        while self._bytes > self._bytes_max and len(self._records) > 1:
            self._bytes -= len(self._records.popleft()[1])

    @property
    def last(self) -> int:
        """The number of the newest one, 0 for none."""
        return self._records[-1][0] if self._records else 0

    def since(self, number: int, bytes_max: int) -> bytes | None:
        """Records from `number` on, at least one if there is one and at most `bytes_max`; None when that one is gone."""
        if not self._records or number > self._records[-1][0]:
            return b""
        first = self._records[0][0]
        if number < first:
            return None
        parts, size = list[bytes](), 0
        for at in range(number - first, len(self._records)):
            record = self._records[at][1]
            if parts and size + len(record) > bytes_max:
                break
            parts.append(record)
            size += len(record)
        return b"".join(parts)


def followed(writes: Writes) -> Writes:
    """What a follower needs: counts, and rows that are deleted. Answers and rings are the shard's own."""
    made = Writes()
    made.all = [one for one in writes.all if (one[1] == "meta" and one[2] in _FOLLOWED) or one[1] in ("users", "items")
                or one[1].startswith("group ")]
    return made


def records_of(data: bytes) -> Iterator[Record]:
    """Those that `since` gave. Raises ValueError for what is no record."""
    words, at = np.frombuffer(data, np.uint64), 0
    while at < len(words):
        record, at = record_at(words, at)
        if record is None:
            raise ValueError(f"no record of a block at byte {8 * at} of {len(data)}")
        yield record
