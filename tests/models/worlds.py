"""Data to learn from and an in-memory parameter server, for the tests of the models."""

import numpy as np

from headrace.models.batch import Batch
from headrace.models.fields import fields_of
from headrace.ps.kernels import slots_of
from headrace.rpc.causes import Causes

FIELDS = fields_of(["bias", "user_id", "item_id"], np.array([0, 1, 2]))
"""Of `films`."""


def films(samples=12_000, users=60, items=80, seed=0):
    """MovieLens-like: users and items of one of two tastes; a click is likelier when the tastes agree. Main effects alone tell nothing.

    Batch of 3 slots: bias, user, item.
    """
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, users, samples), rng.integers(0, items, samples)
    agree = (user % 2) == (item % 2)
    label = rng.random(samples) < np.where(agree, 0.8, 0.2)
    keys = np.stack([np.full(samples, 7), 1000 + user, 5000 + item], 1).astype(np.uint64)
    return Batch(keys, np.ones(keys.shape, np.float32), label.astype(np.float32), np.ones(samples, np.float32))


def causes_of(offsets):
    offsets = np.asarray(offsets, np.int64)
    return Causes(np.full(len(offsets), 5, np.int32), np.zeros(len(offsets), np.int32), offsets)


class Shards:
    """AdaGrad and sums in dictionaries, split into shards by key, each with its own set of applied offsets; RECUT as the contract says."""

    def __init__(self, shards=2, learning_rate=0.1, init_scale=0.01, seed=0):
        self.tables = [{} for _ in range(shards)]  # (table, key) -> [value, accumulator]
        self.applied = [set() for _ in range(shards)]
        self.pushes = 0
        self._learning_rate, self._init_scale = learning_rate, init_scale
        self._rng = np.random.default_rng(seed)
        self.dim = 9
        self.down = None  # number of a shard that a push does not reach

    def pull(self, model, table, keys):
        return np.stack([self._row(table, int(key))[0] for key in keys]).astype(np.float32), self.pushes

    def push(self, model, effect, causes, compute, newest=None):
        first = compute(np.arange(len(causes)))
        for number, applied in enumerate(self.applied):
            new = np.array([offset not in applied for offset in causes.offset.tolist()])
            if new.any() and number != self.down:
                updates = first if new.all() else compute(np.nonzero(new)[0])
                applied.update(causes.offset[new].tolist())
                self._apply(number, updates)
        self.pushes += 1

    def sums(self, table):
        """{key: int} of an int64 table over all shards."""
        return {key: int(row[0][0]) for shard in self.tables for (name, key), row in shard.items() if name == table}

    def _shard(self, key):
        return int(slots_of(np.array([key], np.uint64))[0]) * len(self.tables) // 64

    def _row(self, table, key):
        shard = self.tables[self._shard(key)]
        if (table, key) not in shard:
            if table == "weights":
                value = self._rng.normal(size=self.dim) * self._init_scale
                value[0] = 0.0
            else:
                value = np.zeros(1, np.int64)
            shard[table, key] = [value, np.zeros(len(value))]
        return shard[table, key]

    def _apply(self, number, updates):
        for table, (keys, grads) in updates.items():
            assert len(np.unique(keys)) == len(keys), f"{table}: a push names each key once"
            for key, grad in zip(keys.tolist(), grads, strict=True):
                if self._shard(key) != number:
                    continue
                row = self._row(table, key)
                if table == "weights":
                    total, square = grad[: self.dim], grad[self.dim :] if len(grad) > self.dim else grad.astype(float) ** 2
                    row[1] = row[1] + square
                    row[0] = row[0] - self._learning_rate * total / (np.sqrt(row[1]) + 1e-8)
                else:
                    row[0] = row[0] + grad
