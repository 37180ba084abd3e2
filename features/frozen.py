"""What a cause was answered with, as bytes in the store: status and sequence, and the sample of a frozen impression."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from headrace.features.layout import REPEATED, RETRY, F, K

_VERSION = 2
_SHORT = np.dtype([("version", "u1"), ("status", "u1"), ("has_sample", "u1"), ("sequence", "<i8")])
_SAMPLE = np.dtype([("keys", "<u8", (F,)), ("values", "<f4", (F,)), ("numbers", "<f4", (K,))])


class Frozen(NamedTuple):
    """The answer to n events: keys uint64[n,F], values float32[n,F], numbers float32[n,K], sequence int64[n] (of the shard, before the
    event), status uint8[n]. Rows that are no frozen impression are zeros."""

    keys: np.ndarray
    values: np.ndarray
    numbers: np.ndarray
    sequence: np.ndarray
    status: np.ndarray

    @classmethod
    def empty(cls, n: int) -> Frozen:
        return cls(np.zeros((n, F), np.uint64), np.zeros((n, F), np.float32), np.zeros((n, K), np.float32), np.zeros(n, np.int64),
                   np.zeros(n, np.uint8))

    def take(self, index: np.ndarray) -> Frozen:
        return Frozen(*(column[index] for column in self))


def to_bytes(frozen: Frozen) -> list[bytes]:
    """One value a row. A sample that was not frozen (its bias slot is 0) takes 11 bytes."""
    n = len(frozen.status)
    has = frozen.values[:, 0] != 0
    short = np.zeros(n, _SHORT)
    short["version"], short["status"], short["has_sample"], short["sequence"] = _VERSION, frozen.status, has, frozen.sequence
    samples = np.zeros(n, _SAMPLE)
    samples["keys"], samples["values"], samples["numbers"] = frozen.keys, frozen.values, frozen.numbers
    heads, tails, head, tail = short.tobytes(), samples.tobytes(), _SHORT.itemsize, _SAMPLE.itemsize
    return [heads[head * i : head * (i + 1)] + (tails[tail * i : tail * (i + 1)] if full else b"") for i, full in enumerate(has.tolist())]


def from_bytes(held: list[bytes]) -> Frozen:
    """The rows that `to_bytes` wrote, as an answer to a repetition: status REPEATED, or RETRY where it was one."""
    frozen = Frozen.empty(len(held))
    for i, data in enumerate(held):
        short = np.frombuffer(data, _SHORT, 1)[0]
        assert short["version"] == _VERSION, f"a frozen row of version {short['version']}, this code reads {_VERSION}"
        frozen.sequence[i] = short["sequence"]
        frozen.status[i] = RETRY if short["status"] == RETRY else REPEATED
        if short["has_sample"]:
            sample = np.frombuffer(data, _SAMPLE, 1, _SHORT.itemsize)[0]
            frozen.keys[i], frozen.values[i], frozen.numbers[i] = sample["keys"], sample["values"], sample["numbers"]
    return frozen
