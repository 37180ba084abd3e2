"""Vectors whose inner product ranks items for a user as the model does.

The model's score is what bias and context add, the same for all items, + f(U) + f(I) + <sum v of U, sum v of I>, with f the sum of w x of a
side. So (sum v of U, 1) . (sum v of I, f(I)) ranks items as the score does, in any context.
"""

from __future__ import annotations

import numpy as np

from headrace.models.fields import ITEM, USER, Fields


def user_vectors(rows: np.ndarray, index: np.ndarray, values: np.ndarray, fields: Fields) -> np.ndarray:
    """float32[n,k+1]: sum of scaled v x over the user's slots, then 1. rows float32[u,1+k], index int32[n,F], values float32[n,F].
    A linear model (k = 0) gives [1]."""
    factors, _ = _of_side(rows, index, values, fields, USER)
    return np.concatenate([factors, np.ones((len(index), 1), np.float32)], axis=1)


def item_vectors(rows: np.ndarray, index: np.ndarray, values: np.ndarray, fields: Fields) -> np.ndarray:
    """float32[n,k+1]: sum of scaled v x over the item's slots, then its sum of w x."""
    factors, linear = _of_side(rows, index, values, fields, ITEM)
    return np.concatenate([factors, linear[:, None]], axis=1)


def _of_side(rows: np.ndarray, index: np.ndarray, values: np.ndarray, fields: Fields, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    """(sum of scaled v x float32[n,k], sum of w x float32[n]) over the slots of one side."""
    at = np.nonzero(fields.side == wanted)[0]
    held, x = rows[index[:, at]], values[:, at]
    return np.einsum("nfk,nf->nk", held[:, :, 1:], x * fields.scale[at]), (held[:, :, 0] * x).sum(axis=1)
