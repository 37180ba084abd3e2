"""What a cause was answered with, as bytes in the store: status and sequence, and the sample of a frozen impression."""

from __future__ import annotations

import json
from typing import NamedTuple

import numpy as np

from headrace.features.feature_set import FeatureSet
from headrace.features.known_sets import KnownSets, Layout
from headrace.features.layout import FEATURE_SET, NUMBERS, REPEATED, RETRY, SLOTS, F, K
from headrace.features.store import FeatureStore, split

_VERSION, _OF_BASE = 3, 2  # 2: written before there were definitions
_SHORT = np.dtype([("version", "u1"), ("status", "u1"), ("has_sample", "u1"), ("sequence", "<i8")])
_NUMBER = np.dtype("<u2")  # behind the short part: by which names the sample is laid out
_NOTE = b"frozen sets"


class Frozen(NamedTuple):
    """The answer to n events: keys uint64[n,F], values float32[n,F], numbers float32[n,K], sequence int64[n] (of the shard, before the
    event), status uint8[n]. Rows that are no frozen impression are zeros."""

    keys: np.ndarray
    values: np.ndarray
    numbers: np.ndarray
    sequence: np.ndarray
    status: np.ndarray

    @classmethod
    def empty(cls, n: int, slots: int = F, numbers: int = K) -> Frozen:
        return cls(np.zeros((n, slots), np.uint64), np.zeros((n, slots), np.float32), np.zeros((n, numbers), np.float32),
                   np.zeros(n, np.int64), np.zeros(n, np.uint8))

    def take(self, index: np.ndarray) -> Frozen:
        return Frozen(*(column[index] for column in self))


class FrozenRows:
    """Writes answers of `feature_set`, and reads those of any set that `store` ever had: a feature that one of then lacks is read as blank,
    since it was not kept at that event."""

    def __init__(self, store: FeatureStore, feature_set: FeatureSet) -> None:
        self.set = feature_set
        held = json.loads(store.note(_NOTE) or json.dumps([[FEATURE_SET, SLOTS, NUMBERS]]))
        self.layouts = [Layout(name, tuple(slots), tuple(numbers)) for name, slots, numbers in held]
        mine = Layout(feature_set.name, feature_set.layout_slots, feature_set.layout_numbers)
        if mine not in self.layouts:
            self.layouts.append(mine)
            store.put_note(_NOTE, json.dumps(self.layouts).encode())
        self._number = self.layouts.index(mine)
        self._known = KnownSets(feature_set, self.layouts)

    def to_bytes(self, frozen: Frozen) -> list[bytes]:
        """One value a row. A sample that was not frozen (its bias slot is 0) takes 11 bytes."""
        n = len(frozen.status)
        has = frozen.values[:, 0] != 0
        short = np.zeros(n, _SHORT)
        short["version"], short["status"], short["has_sample"], short["sequence"] = _VERSION, frozen.status, has, frozen.sequence
        dtype = _sample(self.set.F, self.set.K)
        samples = np.zeros(int(has.sum()), dtype)
        samples["number"], samples["keys"], samples["values"], samples["numbers"] = (self._number, frozen.keys[has], frozen.values[has],
                                                                                     frozen.numbers[has])
        heads, tails = split(short.tobytes(), _SHORT.itemsize), split(samples.tobytes(), dtype.itemsize)
        for place, tail in zip(np.nonzero(has)[0].tolist(), tails, strict=True):
            heads[place] += tail
        return heads

    def from_bytes(self, held: list[bytes]) -> Frozen:
        """The rows that `to_bytes` wrote, as an answer to a repetition: status REPEATED, or RETRY where it was one."""
        frozen = Frozen.empty(len(held), self.set.F, self.set.K)
        for i, data in enumerate(held):
            short = np.frombuffer(data, _SHORT, 1)[0]
            assert short["version"] in (_VERSION, _OF_BASE), f"a frozen row of version {short['version']}, this code reads {_VERSION}"
            frozen.sequence[i] = short["sequence"]
            frozen.status[i] = RETRY if short["status"] == RETRY else REPEATED
            if short["has_sample"]:
                old = short["version"] == _OF_BASE
                self._sample(data[_SHORT.itemsize :], old, frozen, i)
        return frozen

    def _sample(self, data: bytes, old: bool, frozen: Frozen, i: int) -> None:
        number = 0 if old else int(np.frombuffer(data, _NUMBER, 1)[0])
        name, slots, numbers = self.layouts[number]
        body = np.frombuffer(data[0 if old else _NUMBER.itemsize :], _body(len(slots), len(numbers)), 1)
        held = body["keys"], body["values"], body["numbers"]
        if number != self._number:
            held = self._known.now(name, *held)
        frozen.keys[i], frozen.values[i], frozen.numbers[i] = (column[0] for column in held)


def _body(slots: int, numbers: int) -> np.dtype:
    return np.dtype([("keys", "<u8", (slots,)), ("values", "<f4", (slots,)), ("numbers", "<f4", (numbers,))])


def _sample(slots: int, numbers: int) -> np.dtype:
    return np.dtype([("number", _NUMBER), *((name, *_body(slots, numbers)[name].subdtype) for name in ("keys", "values", "numbers"))])  # type: ignore[misc]
