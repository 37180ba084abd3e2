"""Compiles the features job's kernels into Numba's cache, with the types that calls have."""

from __future__ import annotations

import numpy as np

from headrace.features.frozen import Frozen
from headrace.rpc.causes import Causes
from headrace.schemas.codec import Codec
from headrace.schemas.registry_store import SchemaStore
from headrace.streaming.enrich import Enriched, write
from headrace.streaming.event_keys import EventKeys
from headrace.streaming.scanned import Reader


def compile_kernels() -> None:
    """Reads, keys and writes one event."""
    codec, enriched = Codec("interactions", SchemaStore()), Codec("enriched", SchemaStore())
    event = {"event_id": "e", "request_id": None, "user_id": "u", "item_id": "i", "action": "impression", "ts_ms": 1_700_000_000_000,
             "context": {"user.a": "1"}}
    scanned, _ = Reader(codec, 1 << 16).read([codec.encode(event)])
    rows = np.nonzero(scanned.seen)[0]
    made = Enriched.empty(rows, Causes(np.zeros(1, np.int32), np.zeros(1, np.int32), np.zeros(1, np.int64)), scanned.ts_ms[rows])
    EventKeys(lambda names: None).columns(scanned, rows, made.ts_ms)
    made.take(rows, Frozen.empty(1), np.ones(1, bool), np.ones(1, bool))
    assert len(write(scanned, made, enriched.header)) == 1, "a compiled kernel wrote nothing"
