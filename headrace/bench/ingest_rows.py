"""The ingest job's Python stage without Kafka: JSON records to interactions to bytes; of parsing and encoding alone, which no mapping can
do without."""

from __future__ import annotations

import orjson

from headrace.bench.replay_encode import best_s, invented
from headrace.bench.result import Row
from headrace.replay import interactions
from headrace.rows import Rows
from headrace.schemas.codec import Codec
from headrace.schemas.mapping import parse
from headrace.schemas.registry_store import SchemaStore
from headrace.streaming.ingested import Ingested, Reader

BATCH = 4096
MAPPING = {"time_unit": "ms", "columns": {"user_id": "user_id", "item_id": "item_id", "ts": "ts", "label": "rating >= 4"},
           "user": {"fields": ["age", "gender", "occupation"]}, "item": {"fields": ["genre", "year"]}, "source": {"format": "json"}}


def measure(quick: bool) -> list[Row]:
    """One row, `ingest.rows`: records/s, best of three."""
    rows = invented(BATCH * (4 if quick else 40))
    codec, records = Codec("interactions", SchemaStore(None)), as_json(rows)
    ready = [record for _, *both in interactions(rows, slice(0, len(rows))) for record in both if record is not None]

    def alone() -> None:
        for record in records:
            orjson.loads(record)
        for one in ready:
            codec.encode(one)

    return [Row("ingest.rows", rate(records), "records/s", "orjson and fastavro alone, of the same records", len(records) / best_s(alone),
                f"{len(records)} JSON records of {len(records[0])} bytes, one process")]


def as_json(rows: Rows) -> list[bytes]:
    """Rows as records of a topic that MAPPING is of."""
    features = {name.split(".")[1]: column.to_pylist() for name, column in rows.features.items()}
    columns = (rows.user.to_pylist(), rows.item.to_pylist(), rows.ts_ms.tolist(), (3 + rows.label).tolist(), *features.values())
    names = ("user_id", "item_id", "ts", "rating", *features)
    return [orjson.dumps(dict(zip(names, values, strict=True))) for values in zip(*columns, strict=True)]


def rate(records: list[bytes]) -> float:
    """Records/s of the stage alone, best of three."""
    store = SchemaStore(None)
    reader = Reader(parse(MAPPING), 1, Codec("interactions", store), store, 1 << 16)

    def whole() -> None:
        for start in range(0, len(records), BATCH):
            part: list[bytes | None] = list(records[start : start + BATCH])
            into = Ingested.empty(len(part))
            reader.read(part, [0] * len(part), list(range(start, start + len(part))), list(range(len(part))), into)
            assert not into.refused, "every record is one that the mapping takes"

    return len(records) / best_s(whole)
