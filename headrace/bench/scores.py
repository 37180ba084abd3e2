"""What a prediction is worth, exactly and alike for all learners of a bench."""

from __future__ import annotations

import numpy as np

CLIP = 1e-7


def auc(scores: np.ndarray, label: np.ndarray) -> float:
    """Area under the ROC curve of n scores by ranks (Mann and Whitney 1947), ties counted half. Needs both labels."""
    _, at, counts = np.unique(scores, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[at.reshape(-1)]  # of equal scores the mean one
    positive = label >= 0.5
    p, n = int(positive.sum()), int((~positive).sum())
    return float((rank[positive].sum() - p * (p + 1) / 2) / (p * n))


def logloss(probability: np.ndarray, label: np.ndarray) -> float:
    """Mean log-loss in nats; probabilities are clipped to 1e-7 from 0 and 1."""
    p = np.clip(np.asarray(probability, np.float64), CLIP, 1 - CLIP)
    return float(-np.log(np.where(label >= 0.5, p, 1 - p)).mean())
