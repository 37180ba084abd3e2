"""Numba kernels of what is published and compared: rows as 8-bit numbers with a scale each, and sums of hashes of rows."""

from __future__ import annotations

import numpy as np
from numba import njit

from headrace.ps.kernels import mix

LIMIT = np.float32(3.4e38)  # 127 times the scale of a row must stay finite
TINY = np.float32(1.17549435e-38)  # below it a scale loses its digits: such a row is nothing
_TOP = np.float32(127)
_ZERO = np.float32(0)
_SLOT_SHIFT = np.uint64(58)


@njit(cache=True, nogil=True)
def quantize(weights, codes, scales):
    """codes int8[n, dim] and scales float32[n] of weights float32[n, dim]; how many values were held at LIMIT, or no numbers and made 0."""
    clipped = 0
    for i in range(len(weights)):
        top = _ZERO
        for c in range(weights.shape[1]):
            size = abs(weights[i, c])
            if not size <= LIMIT:
                clipped += 1
                size = LIMIT if size > LIMIT else _ZERO
            top = max(top, size)
        scale = np.float32(top / _TOP)
        if scale < TINY:
            scale = _ZERO
        scales[i] = scale
        for c in range(weights.shape[1]):
            value = weights[i, c]
            if scale == _ZERO or np.isnan(value):
                codes[i, c] = 0
            else:
                value = np.float32(min(max(value, -LIMIT), LIMIT) / scale)
                codes[i, c] = np.int8(min(max(np.rint(value), -_TOP), _TOP))
    return clipped


@njit(cache=True, nogil=True)
def digest(keys, bits, sums, rows):
    """Add a hash of each row, its key and uint32[n, dim] bits, to sums uint64[64] of its slot, and 1 to rows int64[64]: in any order the
    same."""
    for i in range(len(keys)):
        mixed = mix(keys[i])
        slot = np.int64(mixed >> _SLOT_SHIFT)
        for c in range(bits.shape[1]):
            mixed = mix(mixed ^ (np.uint64(bits[i, c]) + np.uint64(c + 1)))
        sums[slot] += mixed
        rows[slot] += 1
