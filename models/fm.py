"""The factorization machine: w of every feature, and pairs of features through inner products of their factors.

S. Rendle, "Factorization Machines", ICDM 2010: logit = sum of w x + sum over pairs of <v_i, v_j> x_i x_j, in O(F k) by
0.5 (|sum v x|^2 - sum |v x|^2). There is no separate bias: the feature set carries one as a slot.
"""

from __future__ import annotations

import numpy as np

from headrace.models.kernels import fm_gradients, fm_logits, sigmoid


class FM:
    """Rows are float32[u,1+k]: w, then k factors."""

    name = "fm"

    def dim(self, factors: int) -> int:
        """Floats of a row."""
        return 1 + factors

    def predict(self, rows: np.ndarray, index: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Logits float32[n] of index int32[n,F] into rows, values float32[n,F]."""
        return self._forward(rows, index, values)[0]

    def gradients(self, rows: np.ndarray, index: np.ndarray, values: np.ndarray, label: np.ndarray, weight: np.ndarray,
                  l2: float) -> tuple[np.ndarray, np.ndarray]:
        """(logits float32[n], grads float32[u,1+k]): gradient of the weighted log-loss summed over the batch, for each row.

        Each sample adds weight * l2 / 2 * |v|^2 for the factors of the features that it holds, as libFM's SGD does; w is not decayed.
        """
        logits, sums = self._forward(rows, index, values)
        slope = weight * (probability(logits) - label)
        grads = np.zeros_like(rows)
        fm_gradients(rows, index, values, sums, slope, (weight * np.float32(l2)).astype(np.float32), grads)
        return logits, grads

    def contributions(self, rows: np.ndarray, index: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(linear float32[n,F], pairs float32[n,F]): what each slot adds. A pair's product is split evenly between its two slots, so that
        both summed over the slots give the logit."""
        check(rows, index, values)
        vx = rows[index][:, :, 1:] * values[:, :, None]
        others = vx.sum(axis=1, keepdims=True) - vx
        return rows[index][:, :, 0] * values, 0.5 * (vx * others).sum(axis=2)

    def _forward(self, rows: np.ndarray, index: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        check(rows, index, values)
        logits = np.empty(len(index), np.float32)
        sums = np.empty((len(index), rows.shape[1] - 1), np.float32)
        fm_logits(rows, index, values, logits, sums)
        return logits, sums


def probability(logits: np.ndarray) -> np.ndarray:
    """Logistic function, float32[n] to float32[n]."""
    out = np.empty(len(logits), np.float32)
    sigmoid(logits, out)
    return out


def check(rows: np.ndarray, index: np.ndarray, values: np.ndarray) -> None:
    """The door of the kernels: a bad index would read or write another row silently."""
    assert rows.ndim == 2 and index.shape == values.shape and index.ndim == 2, "rows [u,dim], index and values [n,F]"
    assert not index.size or (index.min() >= 0 and index.max() < len(rows)), "an index lies outside the rows"
