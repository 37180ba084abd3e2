"""What a kill left in the log is put into the store, before anything reads it."""

from __future__ import annotations

import json

import numpy as np

from headrace.features import row_kernels
from headrace.features.layouts import Layouts
from headrace.features.row_memory import FAMILIES_NOTE, last_block, put_rows
from headrace.features.store import FeatureStore
from headrace.features.tail import Tail

_ROWS = 1024  # a batch


def redo(store: FeatureStore, layouts: Layouts, tail: Tail | None = None) -> int:
    """Returns how many blocks there were, which `tail` gets unless it has them. Killed in its middle it begins again: changes say what
    words are. Raises LogError."""
    changed, count, last = list[np.ndarray](), 0, last_block(store)
    for record in store.log.records():
        changed.append(record.words)
        count += 1
        if tail is not None and record.number > tail.last:
            tail.put(*record)
        if record.number > last:  # killed before the store had these
            store.write(store.batch(record.writes))
    if count:
        words = np.concatenate(changed)
        most = len(words) // row_kernels.CHANGE_MIN
        family, key = np.empty(most, np.int64), np.empty(most, np.uint64)
        changes = row_kernels.keys_changed(words, family, key)
        for number, (name, width, layout) in enumerate(json.loads(store.note(FAMILIES_NOTE) or b"[]")):
            _redo(store, layouts, words, number, np.unique(key[:changes][family[:changes] == number]), name, width, layout)
    store.log.clear()
    return count


def _redo(store: FeatureStore, layouts: Layouts, words: np.ndarray, number: int, keys: np.ndarray, name: str, width: int,
          layout: int) -> None:
    rows = np.zeros((len(keys), width), np.uint64)
    for place, row in enumerate(store.get(name, [one.to_bytes(8, "big") for one in keys.tolist()])):
        if row is not None:
            rows[place] = layouts.laid_out(name, row, layout).view(np.uint64)
    row_kernels.redo(words, number, keys, rows)
    for start in range(0, len(keys), _ROWS):
        part, batch = slice(start, start + _ROWS), store.batch()
        put_rows(batch, name, keys[part], rows[part])
        store.write(batch)
