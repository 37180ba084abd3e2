"""Numba kernels of the models: distinct keys of a batch, scores and gradients of the factorization machine and the linear model.

Free functions over arrays; the caller owns the memory and has checked every index (batch.py's and fm.py's doors). Unsigned, because
arrays from Flight are read-only.
"""

from __future__ import annotations

import math

import numba
import numpy as np


@numba.njit(cache=True)
def distinct(keys, table, found, index):
    """Number the distinct values of uint64[m] in order of appearance.

    `table` int64[2^b], all -1, 2^b >= 2 m, is an open-addressing hash of positions in `found` uint64[m]; `index` int32[m] gets each key's
    number. Returns how many there are.
    """
    mask = np.uint64(len(table) - 1)
    n = 0
    for i in range(len(keys)):
        key = keys[i]
        mixed = (key ^ (key >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
        at = (mixed ^ (mixed >> np.uint64(29))) & mask
        while True:
            held = table[at]
            if held < 0:
                table[at] = n
                found[n] = key
                index[i] = n
                n += 1
                break
            if found[held] == key:
                index[i] = held
                break
            at = (at + np.uint64(1)) & mask
    return n


@numba.njit(cache=True)
def fm_logits(rows, index, values, logits, sums):
    """Rendle's linear-time identity: logits float32[n] and sums float32[n,k] of v x, from rows float32[u,1+k], index int32[n,F], values."""
    n, width = index.shape
    k = rows.shape[1] - 1
    for i in range(n):
        linear = 0.0
        squares = 0.0
        for d in range(k):
            sums[i, d] = 0.0
        for f in range(width):
            x = values[i, f]
            if x == 0.0:
                continue
            row = rows[index[i, f]]
            linear += row[0] * x
            for d in range(k):
                vx = row[1 + d] * x
                sums[i, d] += vx
                squares += vx * vx
        pairs = 0.0
        for d in range(k):
            pairs += sums[i, d] * sums[i, d]
        logits[i] = linear + 0.5 * (pairs - squares)


@numba.njit(cache=True)
def fm_gradients(rows, index, values, sums, slope, decay, grads):
    """Add to grads float32[u,1+k]. slope float32[n] = weight (p - y); decay float32[n] = weight l2, on the factors of features present."""
    n, width = index.shape
    k = rows.shape[1] - 1
    for i in range(n):
        for f in range(width):
            x = values[i, f]
            if x == 0.0:
                continue
            r = index[i, f]
            c = slope[i] * x
            grads[r, 0] += c
            for d in range(k):
                v = rows[r, 1 + d]
                grads[r, 1 + d] += c * (sums[i, d] - v * x) + decay[i] * v


@numba.njit(cache=True)
def linear_gradients(rows, index, values, slope, decay, grads):
    """Add to grads float32[u,1] of a linear model; decay on the weights of features present."""
    n, width = index.shape
    for i in range(n):
        for f in range(width):
            x = values[i, f]
            if x != 0.0:
                r = index[i, f]
                grads[r, 0] += slope[i] * x + decay[i] * rows[r, 0]


@numba.njit(cache=True)
def sigmoid(logits, probabilities):
    """1 / (1 + exp(-x)) without overflow, float32[n] to float32[n]."""
    for i in range(len(logits)):
        x = logits[i]
        if x >= 0.0:
            probabilities[i] = 1.0 / (1.0 + math.exp(-x))
        else:
            e = math.exp(x)
            probabilities[i] = e / (1.0 + e)
