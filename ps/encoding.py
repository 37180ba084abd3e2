"""How served rows travel: as float32, as float16, or as 8-bit numbers with a scale a row. Decoded they are float32 again.

A replica answers decode(encode(trained)), whichever way a row came: blocks and exports carry the same encoded bytes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from headrace.ps.encoding_kernels import quantize
from headrace.ps.index import kernel_input
from headrace.ps.spec import ENCODINGS
from headrace.rpc.errors import BadMessage

DTYPES: dict[str, np.dtype] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2"), "int8": np.dtype("i1")}
FLOAT16_MAX = np.float32(65504)
NO_SCALES = np.zeros(0, np.float32)


class Encoded(NamedTuple):
    """Rows [n, dim] of a DTYPES entry; scales float32[n], of int8 alone; how many values lay outside of what can be said, or were no
    numbers: the nearest, and 0, stand for them."""

    values: np.ndarray
    scales: np.ndarray
    clipped: int


def encode(weights: np.ndarray, encoding: str) -> Encoded:
    """Of float32[n, dim]. int8: scale = largest of the row / 127, rounded to the nearest (half to even): off by half a scale at most."""
    if encoding == "float32":
        return Encoded(weights, NO_SCALES, 0)
    if encoding == "float16":
        beyond = ~(np.abs(weights) <= FLOAT16_MAX)
        clipped = int(beyond.sum())
        if clipped:
            weights = np.nan_to_num(weights, nan=0.0).clip(-FLOAT16_MAX, FLOAT16_MAX)
        return Encoded(weights.astype(np.float16), NO_SCALES, clipped)
    codes, scales = np.empty(weights.shape, np.int8), np.empty(len(weights), np.float32)
    return Encoded(codes, scales, int(quantize(kernel_input(weights), codes, scales)))


def decode(values: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """float32[n, dim] of what `encode` gave."""
    if values.dtype == np.int8:
        return values.astype(np.float32) * scales[:, None]
    return values.astype(np.float32, copy=False)


def served_as(weights: np.ndarray, encoding: str) -> np.ndarray:
    """What a replica answers for trained float32[n, dim]."""
    found = encode(weights, encoding)
    return decode(found.values, found.scales)


def of_block(encoding: str, values: bytes, scales: bytes, rows: int, dim: int) -> np.ndarray:
    """float32[rows, dim] of a published block. Raises BadMessage when the bytes are not so many, or for an encoding unknown here."""
    dtype = DTYPES.get(encoding)
    if dtype is None:
        raise BadMessage(f"rows encoded as {encoding!r}; known here: {', '.join(ENCODINGS)}")
    scaled = encoding == "int8"
    if len(values) != rows * dim * dtype.itemsize or len(scales) != 4 * rows * scaled:
        raise BadMessage(f"{rows} rows of dim {dim} as {encoding}: {len(values)} bytes of values and {len(scales)} of scales")
    return decode(np.frombuffer(values, dtype).reshape(rows, dim), np.frombuffer(scales, "<f4"))
