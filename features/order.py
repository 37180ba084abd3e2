"""In which order the causes of a block come: most often each partition's offsets rise, and then nothing needs sorting."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from headrace.features import row_kernels
from headrace.rpc.causes import Causes

_PARTITIONS = 64  # that are told apart in one pass


class Order(NamedTuple):
    """Of n causes: `of` int64[n] says which of `where` (source, partition) each is of; `rising`: each partition's offsets only rise."""

    of: np.ndarray
    where: list[tuple[int, int]]
    rising: bool

    def behind(self, offset: np.ndarray, highest: np.ndarray) -> int:
        """How many of offset int64[n] come behind a higher one of their partition, or lie below highest int64[p] of it."""
        return int((offset < highest[self.of]).sum() if self.rising else _behind(self.of, offset, highest).sum())


def order_of(causes: Causes) -> Order:
    of, highest = np.empty(len(causes), np.int64), np.full(_PARTITIONS, -1, np.int64)
    sources, partitions = np.zeros(_PARTITIONS, np.int32), np.zeros(_PARTITIONS, np.int32)
    count, rising = row_kernels.order_of(*causes, of, sources, partitions, highest)
    if count >= 0:
        return Order(of, list(zip(sources[:count].tolist(), partitions[:count].tolist(), strict=True)), bool(rising))
    code, of = np.unique(causes.source.astype(np.int64) << 32 | causes.partition, return_inverse=True)
    return Order(of.reshape(-1), [(int(one >> 32), int(one & 0xFFFFFFFF)) for one in code], False)


def first_rows(causes: Causes) -> np.ndarray:
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
