"""Compiles or loads the kernels before a shard says that it is ready: by all that a shard does, in a folder that is thrown away."""

from __future__ import annotations

import tempfile

import numpy as np

from headrace.features.backfilled import Part
from headrace.features.feature_set import BASE, FeatureSet
from headrace.features.follower import Replica
from headrace.features.shard import FeatureShard
from headrace.features.store import FeatureStore
from headrace.features.tail import Tail, records_of
from headrace.rpc.causes import Causes


def compile_kernels(feature_set: FeatureSet = BASE, *, follows: bool = False) -> None:
    """Those of a shard, and (`follows`) of a replica. Reads them from Numba's cache in half a second; compiles for some seconds when this
    room's kernels or its layout have changed."""
    events = {name: np.ones([1 if size is None else size for size in shape], dtype)
              for name, (dtype, shape) in feature_set.event_columns.items()}
    events["served"][:] = 0
    one = np.ones(1, np.uint64)
    with tempfile.TemporaryDirectory(prefix="headrace-warm-") as folder:
        shard = _shard(f"{folder}/shard", feature_set, tail := Tail())
        frozen = shard.freeze_and_fold(Causes(np.ones(1, np.int32), np.zeros(1, np.int32), np.zeros(1, np.int64)), events)
        shard.store.close()
        if follows:
            replica = Replica(FeatureStore(f"{folder}/replica"), half_life_s=1.0, ring_length=1 << 16, feature_set=feature_set)
            replica.follow(list(records_of(tail.since(1, 1) or b"")))
            replica.close()
        shard = _shard(f"{folder}/shard", feature_set)  # redoes it
        shard.assemble(one, one, np.zeros((1, 4), np.uint64), np.ones(1, np.int64))
        shard.erase("user", 1)
        if feature_set.all:
            shard.merge_states(Part(feature_set.all[0].identity, "", 0, 1, -1, {"events": 1, "source": ""}, one, np.ones(1), np.ones(1),
                                    np.ones((1, int(feature_set.words[0])), np.uint64)))
        shard.sweep(1)
        shard.close()
    assert frozen.values[0, 0] == 1.0, "a compiled kernel froze nothing"


def _shard(folder: str, feature_set: FeatureSet, tail: Tail | None = None) -> FeatureShard:
    return FeatureShard(FeatureStore(folder), half_life_s=1.0, ring_length=1 << 16, log_bytes=1, rows_bytes=1, feature_set=feature_set,
                        idle_s=1.0, tail=tail)
