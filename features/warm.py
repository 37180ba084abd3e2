"""Compiles or loads the kernels before a shard says that it is ready: with the types that calls have, on rows that are thrown away."""

from __future__ import annotations

import tempfile

import numpy as np

from headrace.features import kernels
from headrace.features.feature_set import BASE, VALUES, FeatureSet
from headrace.features.frozen import Frozen
from headrace.features.groups import Groups
from headrace.features.inputs import Taken
from headrace.features.layout import EVENT_COLUMNS, ITEM_ROW, USER_ROW, F, K
from headrace.features.row_memory import RowMemory
from headrace.features.store import FeatureStore


def compile_kernels(feature_set: FeatureSet = BASE) -> None:
    """Reads them from Numba's cache in 0.2 s; compiles for some seconds when this room's kernels or its layout have changed."""
    events = {name: np.ones([1 if size is None else size for size in shape], dtype) for name, (dtype, shape) in EVENT_COLUMNS.items()}
    events["served"][:] = 0
    users, items, index = np.zeros(1, USER_ROW), np.zeros(1, ITEM_ROW), np.zeros(1, np.int64)
    causes = np.zeros(1, np.int32), np.zeros(1, np.int32), np.zeros(1, np.int64)
    answer = Frozen.empty(1, feature_set.F, feature_set.K)
    keys, values, numbers = answer.keys[:, :F], answer.values[:, :F], answer.numbers[:, :K]
    kernels.freeze_and_fold(users, items, index, index, *causes, events["ts_ms"], events["action"], events["user"], events["item"],
                            events["event"], events["user_fields"], events["item_fields"], events["context"], events["served"], 1000.0,
                            np.zeros(2, np.int64), 0,
                            keys, values, numbers, answer.sequence, answer.status)
    kernels.assemble(users, items, index, index, events["user"], events["item"], events["context"], events["ts_ms"], 1000.0,
                     np.zeros(2, np.int64), keys, values, numbers)
    if feature_set.definitions:
        _compile_set(feature_set)
    assert answer.values[0, 0] == 1.0, "a compiled kernel froze nothing"


def _compile_set(feature_set: FeatureSet) -> None:
    """One event of every group and one reading, in a store that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        store = FeatureStore(folder)
        groups = Groups(store, feature_set)
        memory = RowMemory(store, log_bytes=1, rows_bytes=1, number=1, commit=store.write)
        groups.open(memory)
        one, ts_ms, yes = np.ones(1, np.uint64), np.ones(1, np.int64), np.ones(1, np.uint8)
        moment, count = np.ones((1, len(feature_set.moments)), np.uint64), len(feature_set.all)
        taken = Taken(np.ones((1, count)), np.ones((1, count)), np.ones((1, count, VALUES), np.uint64), [])
        sample = Frozen.empty(1, feature_set.F, feature_set.K)
        groups.put(groups.fold(memory.turn(), one, one, moment, taken, ts_ms, yes, yes), np.ones(1, bool), *sample[:3])
        groups.changed()
        groups.read(memory.turn(), one, one, moment, ts_ms)
        store.close()
