"""Logistic regression over the same features: the baseline that a factorization machine has to beat."""

from __future__ import annotations

import numpy as np

from headrace.models.fm import check, probability
from headrace.models.kernels import fm_logits, linear_gradients


class LR:
    """Rows are float32[u,1]: w."""

    name = "lr"

    def dim(self, factors: int) -> int:
        """Floats of a row; there are no factors."""
        return 1

    def predict(self, rows: np.ndarray, index: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Logits float32[n] of index int32[n,F] into rows, values float32[n,F]."""
        check(rows, index, values)
        logits = np.empty(len(index), np.float32)
        fm_logits(rows, index, values, logits, np.empty((len(index), 0), np.float32))
        return logits

    def gradients(self, rows: np.ndarray, index: np.ndarray, values: np.ndarray, label: np.ndarray, weight: np.ndarray,
                  l2: float) -> tuple[np.ndarray, np.ndarray]:
        """(logits float32[n], grads float32[u,1]) summed over the batch for each row; `l2` on the weights of the features present."""
        logits = self.predict(rows, index, values)
        slope = weight * (probability(logits) - label)
        grads = np.zeros_like(rows)
        linear_gradients(rows, index, values, slope, (weight * np.float32(l2)).astype(np.float32), grads)
        return logits, grads

    def contributions(self, rows: np.ndarray, index: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(linear float32[n,F], pairs float32[n,F], zero): what each slot adds to the logit."""
        check(rows, index, values)
        return rows[index][:, :, 0] * values, np.zeros(values.shape, np.float32)
