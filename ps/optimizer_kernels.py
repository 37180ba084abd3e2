"""Numba kernels of the optimizers: gradients into rows, in place, as free functions over arrays that the caller owns; see ps/kernels.py."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from headrace.ps.kernels import AHEAD, prefetch_row


@njit(cache=True, nogil=True)
def clip(grads, dim, value_max, norm_max, out):
    """out = grads [u, dim] or [u, 2 dim] with the coordinates of a gradient in +-value_max, then each row's norm at most norm_max; 0
    is no limit. Sums of squares are scaled by the square of what their gradient was."""
    squares = grads.shape[1] > dim
    for i in range(len(grads)):
        total = np.float64(0.0)
        for c in range(dim):
            g = grads[i, c]
            share = np.float32(1.0)
            if value_max > 0 and abs(g) > value_max:
                share = value_max / abs(g)
            out[i, c] = g * share
            if squares:
                out[i, dim + c] = grads[i, dim + c] * share * share
            total += np.float64(out[i, c]) * np.float64(out[i, c])
        if norm_max > 0 and total > np.float64(norm_max) * np.float64(norm_max):
            share = np.float32(norm_max / math.sqrt(total))
            for c in range(dim):
                out[i, c] *= share
                if squares:
                    out[i, dim + c] *= share * share


@njit(cache=True, nogil=True)
def bound(rows, at, dim, limit):
    """Hold the weights of rows `at` in -limit..limit."""
    for i in range(len(at)):
        for c in range(dim):
            rows[at[i], c] = min(max(rows[at[i], c], -limit), limit)


@njit(cache=True, nogil=True)
def apply_sgd(rows, at, grads, dim, values):
    """w -= rate (g + l2 w), float32; values (rate, l2)."""
    rate, l2 = values[0], values[1]
    for i in range(len(at)):
        if i + AHEAD < len(at):
            prefetch_row(rows, at[i + AHEAD], rows.shape[1])
        row = at[i]
        for c in range(dim):
            w = rows[row, c]
            rows[row, c] = w - rate * (grads[i, c] + l2 * w)


@njit(cache=True, nogil=True)
def apply_momentum(rows, at, grads, dim, values):
    """v = momentum v + g + l2 w; w -= rate v, float32: weights, then v; values (rate, momentum, l2)."""
    rate, momentum, l2 = values[0], values[1], values[2]
    for i in range(len(at)):
        if i + AHEAD < len(at):
            prefetch_row(rows, at[i + AHEAD], rows.shape[1])
        row = at[i]
        for c in range(dim):
            w = rows[row, c]
            v = momentum * rows[row, dim + c] + (grads[i, c] + l2 * w)
            rows[row, dim + c] = v
            rows[row, c] = w - rate * v


@njit(cache=True, nogil=True, error_model="numpy")
def apply_adam(rows, at, grads, dim, values):
    """Adam of the rows that have a gradient, float32: weights, then m, v, and the row's own steps; values (rate, beta1, beta2, epsilon,
    l2). A row's moments stand still while it is not touched, and its bias is corrected by its own steps."""
    rate, beta1, beta2, epsilon, l2 = values[0], values[1], values[2], values[3], values[4]
    one = np.float32(1.0)
    for i in range(len(at)):
        if i + AHEAD < len(at):
            prefetch_row(rows, at[i + AHEAD], rows.shape[1])
        row = at[i]
        steps = rows[row, 3 * dim] + one
        rows[row, 3 * dim] = steps
        first, second = one - beta1**steps, one - beta2**steps
        for c in range(dim):
            g = grads[i, c] + l2 * rows[row, c]
            m = beta1 * rows[row, dim + c] + (one - beta1) * g
            v = beta2 * rows[row, 2 * dim + c] + (one - beta2) * g * g
            rows[row, dim + c] = m
            rows[row, 2 * dim + c] = v
            rows[row, c] -= rate * (m / first) / (np.sqrt(v / second) + epsilon)


@njit(cache=True, nogil=True)
def start_adagrad(rows, at, dim, values):
    """n of the new rows `at`; values as apply_adagrad's."""
    for i in range(len(at)):
        for c in range(dim):
            rows[at[i], dim + c] = values[1]


@njit(cache=True, nogil=True)
def start_ftrl(rows, at, dim, values):
    """z of the new rows `at` such that a seeded weight is the one that z and n = 0 give: a weight is always derived from its slots."""
    alpha, beta, l1, l2 = values[0], values[1], values[2], values[3]
    for i in range(len(at)):
        for c in range(dim):
            w = rows[at[i], c]
            sign = np.float32(0.0) if w == 0 else math.copysign(np.float32(1.0), w)
            rows[at[i], dim + c] = -(w * (beta / alpha + l2) + sign * l1)


@njit(cache=True, nogil=True, error_model="numpy")
def apply_adagrad(rows, at, grads, dim, values):
    """g += l2 w; n += g g; w -= rate g / (sqrt(n) + epsilon), float32; values (rate, initial_accumulator, epsilon, l2).

    Grads of 2 dim columns: sums of g, then of the squares of the samples' own g, of which the decay is added once.
    """
    rate, epsilon, l2 = values[0], values[2], values[3]
    squares = grads.shape[1] > dim
    for i in range(len(at)):
        if i + AHEAD < len(at):
            prefetch_row(rows, at[i + AHEAD], rows.shape[1])
        row = at[i]
        for c in range(dim):
            decay = l2 * rows[row, c]
            g = grads[i, c] + decay
            if squares:
                n = rows[row, dim + c] + (grads[i, dim + c] + decay * decay)
            else:
                n = rows[row, dim + c] + g * g
            rows[row, dim + c] = n
            rows[row, c] -= rate * g / (np.sqrt(n) + epsilon)


@njit(cache=True, nogil=True, error_model="numpy")
def apply_ftrl(rows, at, grads, dim, values):
    """FTRL-Proximal a coordinate, float32: weights, then z, then n; values (alpha, beta, l1, l2). Grads may have 2 dim columns as above."""
    alpha, beta, l1, l2 = values[0], values[1], values[2], values[3]
    squares = grads.shape[1] > dim
    for i in range(len(at)):
        if i + AHEAD < len(at):
            prefetch_row(rows, at[i + AHEAD], rows.shape[1])
        row = at[i]
        for c in range(dim):
            g = grads[i, c]
            before = rows[row, 2 * dim + c]
            n = before + (grads[i, dim + c] if squares else g * g)
            z = rows[row, dim + c] + (g - (np.sqrt(n) - np.sqrt(before)) / alpha * rows[row, c])
            rows[row, 2 * dim + c] = n
            rows[row, dim + c] = z
            if abs(z) <= l1:
                rows[row, c] = 0
            else:
                rows[row, c] = (math.copysign(l1, z) - z) / ((beta + np.sqrt(n)) / alpha + l2)


@njit(cache=True, nogil=True)
def apply_sum(rows, at, grads, dim, values):
    """w += g, float32 or int64."""
    for i in range(len(at)):
        if i + AHEAD < len(at):
            prefetch_row(rows, at[i + AHEAD], rows.shape[1])
        row = at[i]
        for c in range(dim):
            rows[row, c] += grads[i, c]
