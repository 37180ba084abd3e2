"""A lake's columns: those of the record, by schemas/samples.avsc, with packed features as lists of numbers, and where the record lay.

at_partition, at_offset, at_ms: partition, offset and append time of the record in the topic `samples`. source, partition, offset are the
sample's cause, the exposure in `interactions`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.schemas.codec import SCHEMAS

PACKED: dict[str, pa.DataType] = {"feature_keys": pa.uint64(), "feature_values": pa.float32(), "numbers": pa.float32()}
"""bytes -> list of: a list, and not one of fixed length, since feature sets differ in width."""
PLAIN = {"int": pa.int32(), "long": pa.int64(), "double": pa.float64(), "float": pa.float32(), "string": pa.string(),
         "boolean": pa.bool_(), "bytes": pa.binary()}
AT: dict[str, pa.DataType] = {"at_partition": pa.int32(), "at_offset": pa.int64(), "at_ms": pa.int64()}
KEY = ("source", "partition", "offset", "target")


def _type_of(name: str, avro: Any) -> pa.DataType:
    if isinstance(avro, list):
        avro = next(one for one in avro if one != "null")
    if isinstance(avro, dict):
        return pa.list_(PLAIN[avro["items"]])
    return pa.list_(PACKED[name]) if name in PACKED else PLAIN[avro]


FIELDS: dict[str, pa.DataType] = {field["name"]: _type_of(field["name"], field["type"]) for field in SCHEMAS["samples"]["fields"]}
SCHEMA = pa.schema(list((FIELDS | AT).items()))


def fault_of(sample: dict[str, Any]) -> str:
    """"" or why a record cannot be a row: no cause, or a packed column that is no whole number of numbers."""
    if sample["partition"] < 0 or sample["offset"] < 0:
        return f"its cause is partition {sample['partition']}, offset {sample['offset']}"
    for name, kind in PACKED.items():
        if len(sample[name]) % (kind.bit_width // 8):
            return f"{name} has {len(sample[name])} bytes, no whole number of {kind}"
    return ""


def table_of(samples: Sequence[dict[str, Any]], at: Sequence[tuple[int, int, int]]) -> pa.Table:
    """n rows under SCHEMA. `at`: at_partition, at_offset, at_ms of each."""
    columns = {name: _unpacked([sample[name] for sample in samples], PACKED[name]) if name in PACKED
               else pa.array([sample[name] for sample in samples], kind) for name, kind in FIELDS.items()}
    columns |= {name: pa.array([place[number] for place in at], kind) for number, (name, kind) in enumerate(AT.items())}
    return pa.table(columns, SCHEMA)


def _unpacked(rows: Sequence[bytes], kind: pa.DataType) -> pa.ListArray:
    """Little-endian bytes of each row as a list of numbers, bit by bit what they were."""
    ends = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row) for row in rows], out=ends[1:])
    ends //= kind.bit_width // 8
    values = pa.Array.from_buffers(kind, int(ends[-1]), [None, pa.py_buffer(b"".join(rows))])
    return pa.ListArray.from_arrays(pa.array(ends.astype(np.int32)), values)
