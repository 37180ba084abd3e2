"""A batch of samples in the form the models compute on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from headrace.models.kernels import distinct


class MalformedBatch(ValueError):
    """A sample does not have the width of the feature set, or a number is not finite: mend its producer; nothing was learnt."""


class Batch(NamedTuple):
    """keys uint64[n,F], values float32[n,F] (0: the slot has no value), label float32[n], weight float32[n]; stage uint8[n], where labels
    come in two stages (models/kernels.py: WHOLE, PROVISIONAL, CONFIRMED)."""

    keys: np.ndarray
    values: np.ndarray
    label: np.ndarray
    weight: np.ndarray
    stage: np.ndarray | None = None

    def take(self, index: np.ndarray) -> Batch:
        """The samples at `index` (int or bool array)."""
        stage = None if self.stage is None else self.stage[index]
        return Batch(self.keys[index], self.values[index], self.label[index], self.weight[index], stage)

    def staged(self, stage: np.ndarray) -> Batch:
        """The same samples with the stages uint8[n]."""
        return Batch(self.keys, self.values, self.label, self.weight, stage)

    def weighed(self, weight: np.ndarray) -> Batch:
        """The same samples with the weights float32[n]."""
        return Batch(self.keys, self.values, self.label, weight, self.stage)

    def __len__(self) -> int:  # samples, not the columns
        return len(self.label)


def merged(batches: Sequence[Batch]) -> Batch:
    """Successive batches as one, all of them with stages or none."""
    keys, values, label, weight = (np.concatenate([one[column] for one in batches]) for column in range(4))
    stages = [one.stage for one in batches if one.stage is not None]
    return Batch(keys, values, label, weight, np.concatenate(stages) if stages else None)


def from_bytes(keys: Sequence[bytes], values: Sequence[bytes], width: int,
               label: np.ndarray | None = None, weight: np.ndarray | None = None) -> Batch:
    """The batch of n samples from their feature_keys and feature_values as they travel (little-endian, `width` slots each).

    `label` and `weight` default to 0 and 1. Raises MalformedBatch for another width, a value or label that is no finite number, or
    columns of different lengths.
    """
    n = len(keys)
    label = np.zeros(n, np.float32) if label is None else np.asarray(label, np.float32)
    weight = np.ones(n, np.float32) if weight is None else np.asarray(weight, np.float32)
    if not n == len(values) == len(label) == len(weight):
        raise MalformedBatch(f"{n} keys, {len(values)} values, {len(label)} labels and {len(weight)} weights in one batch")
    for i in range(n):
        if len(keys[i]) != 8 * width or len(values[i]) != 4 * width:
            raise MalformedBatch(f"sample {i} has {len(keys[i])} bytes of keys and {len(values[i])} of values,"
                                 f" expected {8 * width} and {4 * width} for {width} slots")
    slots, numbers = np.frombuffer(b"".join(keys), "<u8"), np.frombuffer(b"".join(values), "<f4")
    batch = Batch(slots.reshape(n, width), numbers.reshape(n, width), label, weight)
    if not (np.isfinite(batch.values).all() and np.isfinite(label).all() and np.isfinite(weight).all()):
        raise MalformedBatch("a feature value, label or weight is not a finite number")
    return batch


def unique(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Distinct keys uint64[u] in order of appearance, and index int32[n,F] with keys[index] == batch.keys. O(n F)."""
    return unique_keys(batch.keys)


def unique_keys(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`unique` of uint64[n,F] alone."""
    flat = np.ascontiguousarray(keys).reshape(-1)
    table = np.full(1 << max(4, (2 * len(flat)).bit_length()), -1, np.int64)
    found, index = np.empty(len(flat), np.uint64), np.empty(len(flat), np.int32)
    n = distinct(flat, table, found, index)
    return found[:n].copy(), index.reshape(keys.shape)
