"""One message: a header (JSON) and named arrays, as one Arrow record batch.

A row of the batch is an array: name, dtype, shape, little-endian bytes. The header travels as Flight's app_metadata.
Nothing is pickled, and `unpack` trusts nothing: buffers are validated, dtypes are from a list, sizes must agree.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from headrace.rpc.errors import BadMessage

Header = dict[str, Any]
Arrays = dict[str, np.ndarray]

SCHEMA = pa.schema(
    [("name", pa.utf8()), ("dtype", pa.utf8()), ("shape", pa.list_(pa.int64())), ("data", pa.large_binary())]
)
DTYPES = {np.dtype(name).str.lstrip("<|"): np.dtype(name) for name in
          ("uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64", "float16", "float32", "float64", "bool")}
BYTES_MAX = 64 << 20
NAMES_MAX = 256


def pack(arrays: Mapping[str, np.ndarray]) -> pa.RecordBatch:
    """The record batch that carries `arrays` (any shape, dtypes of DTYPES)."""
    names, dtypes, shapes, data = [], [], [], []
    for name, array in arrays.items():
        array = np.asarray(array, order="C")
        names.append(name)
        dtypes.append(array.dtype.str.lstrip("<|"))
        shapes.append(list(array.shape))
        data.append(memoryview(array.reshape(-1).view(np.uint8)))
    return pa.record_batch(
        [pa.array(names, pa.utf8()), pa.array(dtypes, pa.utf8()), pa.array(shapes, pa.list_(pa.int64())), _binary(data)],
        schema=SCHEMA,
    )


def _binary(parts: list[memoryview]) -> pa.Array:
    """Concatenate once, without a Python bytes object for each part."""
    offsets = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([part.nbytes for part in parts], out=offsets[1:])
    whole = np.empty(int(offsets[-1]), np.uint8)
    for part, start in zip(parts, offsets[:-1], strict=True):
        whole[start : start + part.nbytes] = part
    return pa.Array.from_buffers(pa.large_binary(), len(parts), [None, pa.py_buffer(offsets), pa.py_buffer(whole)])


def unpack(batch: pa.RecordBatch) -> Arrays:
    """Named arrays of a batch made by `pack`; read-only views. Raises BadMessage for anything else."""
    if batch.schema != SCHEMA:
        raise BadMessage(f"schema is {batch.schema}, expected name, dtype, shape, data")
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid as error:
        raise BadMessage(f"Arrow buffers do not hold together: {error}") from None
    if batch.num_rows > NAMES_MAX or batch.nbytes > BYTES_MAX:
        raise BadMessage(f"{batch.num_rows} arrays of {batch.nbytes} bytes; the limits are {NAMES_MAX} and {BYTES_MAX}: send less at once")
    if any(column.null_count for column in batch.columns):
        raise BadMessage("a null in name, dtype, shape or data")
    arrays: Arrays = {}
    offsets = np.frombuffer(batch.column(3).buffers()[1], np.int64)[batch.column(3).offset :]
    whole = batch.column(3).buffers()[2]
    rows = zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), batch.column(2).to_pylist(), strict=True)
    for i, (name, code, shape) in enumerate(rows):
        dtype = DTYPES.get(code)
        if dtype is None:
            raise BadMessage(f"array {name!r} has dtype {code!r}; known: {', '.join(sorted(DTYPES))}")
        size = int(offsets[i + 1] - offsets[i])
        if any(n is None or n < 0 for n in shape) or math.prod(shape) * dtype.itemsize != size:
            raise BadMessage(f"array {name!r} says shape {shape} of {code}, and carries {size} bytes")
        count = size // dtype.itemsize
        flat = np.frombuffer(whole, dtype, count, int(offsets[i])) if count else np.empty(0, dtype)
        arrays[name] = flat.reshape(shape)
    return arrays


def header_bytes(header: Mapping[str, Any]) -> bytes:
    """JSON of a header; numpy scalars allowed."""
    return orjson.dumps(header, option=orjson.OPT_SERIALIZE_NUMPY)


def header_of(metadata: pa.Buffer | None) -> Header:
    """The header that came as app_metadata; an empty one when there is none. Raises BadMessage when it is no JSON object."""
    if metadata is None:
        return {}
    try:
        header = orjson.loads(memoryview(metadata))
    except orjson.JSONDecodeError as error:
        raise BadMessage(f"the header is no JSON: {error}") from None
    if not isinstance(header, dict):
        raise BadMessage("the header is no JSON object")
    return header


def column(arrays: Mapping[str, np.ndarray], name: str, dtype: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """`arrays[name]` after one check at the door: present, of this dtype, of this shape (None: any length). Raises BadMessage."""
    array = arrays.get(name)
    if array is None:
        raise BadMessage(f"array {name!r} is missing; got {', '.join(sorted(arrays)) or 'none'}")
    if array.dtype != np.dtype(dtype):
        raise BadMessage(f"array {name!r} is {array.dtype}, expected {dtype}")
    if array.ndim != len(shape) or any(want is not None and want != got for want, got in zip(shape, array.shape, strict=True)):
        raise BadMessage(f"array {name!r} has shape {array.shape}, expected {shape}")
    return array
