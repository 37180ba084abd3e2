"""Which unknown keys get a row: a name -> object table. A key that is not let in yet has its initial value, and its gradients are dropped.

Both counters count the pushes that name a key, one a push however many samples are behind it, and let it in at the `after`-th. Of both it
can be said by slot what they hold, so that slots can move.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from headrace.ps import kernels
from headrace.ps.index import CALL_ROWS, Index, reserve

SLOTS = 64
AFTER_MAX = 255
BLOOM_LINE_MIN = 1024
BLOOM_A_KEY = 8
State = dict[str, np.ndarray]


class Admission(Protocol):
    """`admit(distinct keys uint64[n], at most 4,096) -> bool[n]` counts each once more. `state` copies it, `restore` takes that back:
    raises ValueError for what does not fit. waiting: keys counted and not let in, -1 where nobody knows; bytes: of memory in use."""

    @property
    def waiting(self) -> int: ...

    @property
    def bytes(self) -> int: ...

    def admit(self, keys: np.ndarray) -> np.ndarray: ...

    def state(self) -> State: ...

    def restore(self, state: State) -> None: ...


class Exact:
    """A counter a key. At most `keys_max` keys wait; then all that wait are forgotten and counted anew."""

    def __init__(self, after: int, keys_max: int) -> None:
        self._after, self._keys_max = after, max(keys_max, CALL_ROWS)
        self._keys = reserve((self._keys_max,), np.uint64)
        self._counts = reserve((self._keys_max,), np.uint8)
        self._index = Index(keys_max=self._keys_max)

    @property
    def waiting(self) -> int:
        return self._index.count

    @property
    def bytes(self) -> int:
        return self._index.bytes + 9 * self._index.high

    def admit(self, keys: np.ndarray) -> np.ndarray:
        if self._index.count + len(keys) > self._keys_max < self._index.count + int((self._index.find(keys) < 0).sum()):
            self._index = Index(keys_max=self._keys_max)
        at, born = self._index.find_or_insert(keys, self._keys)
        admitted = np.empty(len(keys), np.bool_)
        kernels.count_exact(self._counts, at, born, self._after, admitted)
        if admitted.any():
            self._index.remove(keys[admitted])
        return admitted

    def state(self) -> State:
        keys = self._keys[: self._index.high]
        at = self._index.find(keys) == np.arange(len(keys))  # a row that was given back keeps the key that it had
        return {"keys": keys[at].copy(), "counts": self._counts[: len(keys)][at].copy()}

    def restore(self, state: State) -> None:
        keys, counts = state["keys"].view(np.uint64), state["counts"].view(np.uint8)
        if len(keys) > self._keys_max or len(keys) != len(counts):
            raise ValueError(f"{len(keys)} keys and {len(counts)} counts wait, at most {self._keys_max} may")
        self._index.load_all(keys)
        self._keys[: len(keys)], self._counts[: len(keys)] = keys, counts


class Bloom:
    """A counting Bloom filter a slot (ps/kernels.py: count_bloom) for `keys_max` keys at once, of 8 counters a key: some 2 of 100 keys come
    in early. A slot whose counters have been raised as often as it has counters halves them all (Einziger et al., TinyLFU, 2017)."""

    waiting = -1

    def __init__(self, after: int, keys_max: int) -> None:
        line = BLOOM_LINE_MIN
        while line * SLOTS < BLOOM_A_KEY * keys_max:
            line *= 2
        self._after = after
        self._counters = reserve((SLOTS, line), np.uint8)
        self._raised = np.zeros(SLOTS, np.int64)

    @property
    def bytes(self) -> int:
        return self._counters.nbytes

    def admit(self, keys: np.ndarray) -> np.ndarray:
        admitted = np.empty(len(keys), np.bool_)
        kernels.count_bloom(self._counters, keys, self._after, admitted)
        self._raised += np.bincount(kernels.slots_of(keys), minlength=SLOTS)
        for slot in np.nonzero(self._raised >= self._counters.shape[1])[0]:
            self._counters[slot] >>= 1
            self._raised[slot] >>= 1
        return admitted

    def state(self) -> State:
        return {"counters": self._counters.copy(), "raised": self._raised.copy()}

    def restore(self, state: State) -> None:
        counters = state["counters"].view(np.uint8).reshape(SLOTS, -1)
        if counters.shape != self._counters.shape:
            raise ValueError(f"the filter has {counters.shape[1]} counters a slot, and is to have {self._counters.shape[1]}: keep rows_max")
        self._counters[:] = counters
        self._raised[:] = state["raised"].view(np.int64)


def bytes_of(admission: str, keys: int) -> int:
    """Of memory, at most, for so many keys that wait."""
    return {"none": 0, "exact": 64 * max(keys, CALL_ROWS), "bloom": SLOTS * max(BLOOM_LINE_MIN, 2 * BLOOM_A_KEY * keys // SLOTS)}[admission]


ADMISSIONS: dict[str, Callable[[int, int], Admission] | None] = {"none": None, "exact": Exact, "bloom": Bloom}
