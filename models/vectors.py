"""Vectors whose inner product ranks items for a user as the model does.

With the features of a request split into user (U), item (I) and the rest, the FM's score is f(U) + f(I) + <sum v of U, sum v of I> plus
terms with the rest. f(U) is the same for all items, so (sum v of U, 1) . (sum v of I, f(I)) ranks items as the score does, as long as
the rest is absent; with it, recall is an approximation that ranking mends.
"""

from __future__ import annotations

import numpy as np

USER_SIDE, ITEM_SIDE = 1, 2


def user_vectors(rows: np.ndarray, index: np.ndarray, values: np.ndarray, side: np.ndarray) -> np.ndarray:
    """float32[n,k+1]: sum of v x over the user's slots, then 1. rows float32[u,1+k], index int32[n,F], values float32[n,F], side uint8[F]
    (0 bias and context, 1 user, 2 item). A linear model (k = 0) gives [1]."""
    vx, _ = _of_side(rows, index, values, side, USER_SIDE)
    return np.concatenate([vx.sum(axis=1), np.ones((len(index), 1), np.float32)], axis=1)


def item_vectors(rows: np.ndarray, index: np.ndarray, values: np.ndarray, side: np.ndarray) -> np.ndarray:
    """float32[n,k+1]: sum of v x over the item's slots, then the item's own part: sum of w x plus the pairs within the item."""
    vx, linear = _of_side(rows, index, values, side, ITEM_SIDE)
    total = vx.sum(axis=1)
    pairs = 0.5 * ((total * total).sum(axis=1) - (vx * vx).sum(axis=(1, 2)))
    return np.concatenate([total, (linear + pairs)[:, None]], axis=1).astype(np.float32)


def _of_side(rows: np.ndarray, index: np.ndarray, values: np.ndarray, side: np.ndarray, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    """(v x float32[n,s,k], sum of w x float32[n]) of the s slots of one side."""
    at = np.nonzero(np.asarray(side) == wanted)[0]
    held, x = rows[index[:, at]], values[:, at]
    return held[:, :, 1:] * x[:, :, None], (held[:, :, 0] * x).sum(axis=1)
