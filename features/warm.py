"""Compiles or loads the kernels before a shard says that it is ready: with the types that calls have, on rows that are thrown away."""

from __future__ import annotations

import numpy as np

from headrace.features import kernels
from headrace.features.frozen import Frozen
from headrace.features.layout import EVENT_COLUMNS, ITEM_ROW, USER_ROW


def compile_kernels() -> None:
    """Reads them from Numba's cache in 0.2 s; compiles for some seconds when this room's kernels or its layout have changed."""
    events = {name: np.ones([1 if size is None else size for size in shape], dtype) for name, (dtype, shape) in EVENT_COLUMNS.items()}
    events["served"][:] = 0
    users, items, index = np.zeros(1, USER_ROW), np.zeros(1, ITEM_ROW), np.zeros(1, np.int64)
    causes = np.zeros(1, np.int32), np.zeros(1, np.int32), np.zeros(1, np.int64)
    answer = Frozen.empty(1)
    kernels.freeze_and_fold(users, items, index, index, *causes, events["ts_ms"], events["action"], events["user"], events["item"],
                            events["event"], events["user_fields"], events["item_fields"], events["context"], events["served"], 1000.0,
                            np.zeros(2, np.int64), 0,
                            answer.keys, answer.values, answer.numbers, answer.sequence, answer.status)
    kernels.assemble(users, items, index, index, events["user"], events["item"], events["context"], events["ts_ms"], 1000.0,
                     np.zeros(2, np.int64), answer.keys, answer.values, answer.numbers)
    assert answer.values[0, 0] == 1.0, "a compiled kernel froze nothing"
