"""One message: a header (JSON) and named arrays, as the bytes of Flight's app_metadata.

<I> bytes of the JSON, the JSON {"header": {...}, "arrays": [[name, dtype, shape], ...]}, then the arrays' little-endian bytes, each from
a multiple of 8 on, counted from the beginning. Not a record batch: building and checking Arrow arrays of names and shapes costs ten times
what all the rest of a small call does. Nothing is pickled, and `decode` trusts nothing: dtypes are from a list, sizes must agree.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from headrace.rpc.errors import BadMessage

Header = dict[str, Any]
Arrays = dict[str, np.ndarray]

SCHEMA = pa.schema([])  # of the streams: Flight begins one with a schema, and no batch follows
DTYPES = {np.dtype(name).str.lstrip("<|"): np.dtype(name) for name in
          ("uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64", "float16", "float32", "float64", "bool")}
BYTES_MAX = 64 << 20
NAMES_MAX = 256
_LENGTH = struct.Struct("<I")
_ALIGN = 8
_PADS = tuple(bytes(n) for n in range(_ALIGN))


def encode(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """The message of `header` (JSON; numpy scalars allowed) and `arrays` (any shape, dtypes of DTYPES)."""
    listed: list[tuple[str, str, tuple[int, ...]]] = []
    parts: list[memoryview | bytes] = []
    for name, array in arrays.items():
        array = np.asarray(array, order="C")
        listed.append((name, array.dtype.str.lstrip("<|"), array.shape))
        parts.append(array.reshape(-1).view(np.uint8).data)
        parts.append(_PADS[-array.nbytes % _ALIGN])
    text = orjson.dumps({"header": header, "arrays": listed}, option=orjson.OPT_SERIALIZE_NUMPY)
    return b"".join((_LENGTH.pack(len(text)), text, _PADS[-(_LENGTH.size + len(text)) % _ALIGN], *parts))


def decode(message: pa.Buffer | None) -> tuple[Header, Arrays]:
    """Header and arrays of what `encode` gave; the arrays are aligned, read-only views. Raises BadMessage for anything else."""
    if message is None or message.size < _LENGTH.size:
        raise BadMessage("no message of this protocol: client and server are of different versions")
    if message.size > BYTES_MAX:
        raise BadMessage(f"a message of {message.size} bytes; the limit is {BYTES_MAX}: send less at once")
    if message.address % _ALIGN:  # gRPC puts it anywhere; Numba would compile its kernels anew for arrays that are not aligned
        message = _aligned(message)
    data = memoryview(message)
    start = _LENGTH.size + _LENGTH.unpack_from(data)[0]
    header, listed = _parts(data[_LENGTH.size : start])
    if len(listed) > NAMES_MAX:
        raise BadMessage(f"{len(listed)} arrays; the limit is {NAMES_MAX}: send less at once")
    arrays: Arrays = {}
    at = start + -start % _ALIGN
    for one in listed:
        name, dtype, shape, count = _array(one)
        stop = at + count * dtype.itemsize
        if stop > len(data):
            raise BadMessage(f"array {name!r} says shape {shape} of {dtype}, and {max(0, len(data) - at)} bytes are left")
        arrays[name] = np.frombuffer(message, dtype, count, at).reshape(shape) if count else np.empty(shape, dtype)
        at = stop + -stop % _ALIGN
    if at != len(data) or len(arrays) != len(listed):
        raise BadMessage(f"{len(data)} bytes, of which the arrays take {at}; names that come twice: {len(listed) - len(arrays)}")
    return header, arrays


def _aligned(message: pa.Buffer) -> pa.Buffer:
    held = np.empty(message.size, np.uint8)
    held[:] = np.frombuffer(message, np.uint8)
    held.setflags(write=False)
    return pa.py_buffer(held)


def _parts(text: memoryview) -> tuple[Header, list[Any]]:
    try:
        parts = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadMessage(f"the message begins with no JSON: {error}") from None
    if not isinstance(parts, dict) or not isinstance(parts.get("header"), dict) or not isinstance(parts.get("arrays"), list):
        raise BadMessage("the message's JSON holds no object `header` and no list `arrays`")
    return parts["header"], parts["arrays"]


def _array(one: Any) -> tuple[str, np.dtype, list[int], int]:
    """Name, dtype, shape and number of elements of one listed array."""
    if not isinstance(one, list) or len(one) != 3 or not isinstance(one[0], str) or not isinstance(one[2], list):
        raise BadMessage(f"an array is listed as {str(one)[:100]}, expected [name, dtype, shape]")
    name, code, shape = one
    dtype = DTYPES.get(code) if isinstance(code, str) else None
    if dtype is None:
        raise BadMessage(f"array {name!r} has dtype {code!r}; known: {', '.join(sorted(DTYPES))}")
    if len(shape) > 32 or any(type(n) is not int or n < 0 for n in shape) or math.prod(max(n, 1) for n in shape) > BYTES_MAX:
        raise BadMessage(f"array {name!r} says shape {str(shape)[:100]}")
    return name, dtype, shape, math.prod(shape)


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
