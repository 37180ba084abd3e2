"""What a kill left in the log is put into the rows in the store, before anything reads them."""

from __future__ import annotations

import json

import numpy as np

from headrace.features import row_kernels
from headrace.features.layouts import Layouts
from headrace.features.row_memory import FAMILIES_NOTE
from headrace.features.store import FeatureStore

_ROWS = 1024  # a batch


def redo(store: FeatureStore, layouts: Layouts) -> int:
    """Returns how many blocks there were. Killed in its middle it begins again: changes say what words are."""
    held = list(store.scan("log"))
    if not held:
        return 0
    words = np.frombuffer(b"".join(data for _, data in held), np.uint64)
    family, key = np.empty(len(words) // 2, np.int64), np.empty(len(words) // 2, np.uint64)
    count = row_kernels.keys_changed(words, family, key)
    for number, (name, width, layout) in enumerate(json.loads(store.note(FAMILIES_NOTE) or b"[]")):
        keys = np.unique(key[:count][family[:count] == number])
        rows = np.zeros((len(keys), width), np.uint64)
        for place, row in enumerate(store.get(name, [one.to_bytes(8, "big") for one in keys.tolist()])):
            if row is not None:
                rows[place] = layouts.laid_out(name, row, layout).view(np.uint64)
        row_kernels.redo(words, number, keys, rows)
        for start in range(0, len(keys), _ROWS):
            part = slice(start, start + _ROWS)
            batch = store.batch()
            batch.put_rows(name, keys[part], rows[part].view(f"V{8 * width}").reshape(-1))
            store.write(batch)
    batch = store.batch()
    for number_key, _ in held:
        batch.delete("log", number_key)
    store.write(batch)
    return len(held)
