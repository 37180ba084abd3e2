"""The simulation's store in memory does what RocksDB's does."""

import random

import numpy as np

from headrace.features.layout import ITEM_ROW
from headrace.features.store import FeatureStore, counts_bytes
from tests.protocol.memory import MemoryStore


def test_the_same_writes_give_the_same_reads(tmp_path):
    chance, stores = random.Random(1), (MemoryStore(), FeatureStore(tmp_path))
    keys = [bytes([one]) for one in range(40)]
    for turn in range(60):
        rows = np.zeros(3, ITEM_ROW)
        rows["events_total"] = turn
        ids = np.array([chance.randint(1, 9) for _ in range(3)], np.uint64)
        writes = [(chance.choice("pdr"), *sorted(chance.sample(keys, 2))) for _ in range(4)]
        for store in stores:
            batch = store.batch()
            batch.put_rows("items", ids, rows)
            for kind, one, other in writes:
                if kind == "p":
                    batch.put("answers", one, other)
                elif kind == "d":
                    batch.delete("answers", one)
                else:
                    batch.delete_range("answers", one, other)
            batch.put("meta", b"counts", counts_bytes({"turn": turn}))
            store.write(batch)
        asked = np.arange(12, dtype=np.uint64)
        held, real = (store.rows("items", asked, ITEM_ROW) for store in stores)
        assert held[0].tobytes() == real[0].tobytes() and held[1].tolist() == real[1].tolist()
        assert stores[0].get("answers", keys) == stores[1].get("answers", keys)
        assert list(stores[0].scan("answers")) == list(stores[1].scan("answers"))
        assert stores[0].meta() == stores[1].meta() == {"turn": turn}
    stores[1].close()
