"""Numba kernels of the benches: what the machine's memory gives, for figures to be measured against."""

from __future__ import annotations

import numpy as np
from numba import njit

from headrace.ps.kernels import mix, prefetch

AHEAD = 64  # more than a core has under way at once
_S32 = np.uint64(32)


@njit(cache=True, nogil=True)
def read_lines(lines, count, seed):
    """Read one word of each of `count` random cache lines, uint64[n,8], n < 2^32, each asked for some time before; the sum of the words.

    That is faster than plain reads, of which a core starts only as many as its reorder buffer holds instructions for.
    """
    size = np.uint64(len(lines))
    start = np.uint64(seed) << _S32
    total = np.uint64(0)
    for i in range(count):
        prefetch(lines, np.int64((mix(start + np.uint64(i + AHEAD)) >> _S32) * size >> _S32), 0)
        total += lines[np.int64((mix(start + np.uint64(i)) >> _S32) * size >> _S32), 0]
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def hashed_update(table, rows, grads, rate):
    """AdaGrad of gradients [n, dim] on rows int64[n] of [m, 2 dim], weights and sums of squares, each asked for some time before: the
    hashing trick's update."""
    dim = grads.shape[1]
    for i in range(len(rows)):
        if i + AHEAD < len(rows):
            prefetch(table, rows[i + AHEAD], 0)
        row = rows[i]
        for c in range(dim):
            g = grads[i, c]
            table[row, dim + c] += g * g
            table[row, c] -= rate * g / np.sqrt(table[row, dim + c] + np.float32(1e-8))
