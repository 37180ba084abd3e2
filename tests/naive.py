"""Slow, obvious twins of the kernels and structures: what the tests compare with."""

from __future__ import annotations

import numpy as np

# models/


def fm_logit(rows, index, values):
    """Rendle's definition, pair by pair, in float64."""
    logits = []
    for number, sample in enumerate(index):
        x = [float(v) for v in values[number]]
        w = [rows[r].astype(float) for r in sample]
        total = sum(w[i][0] * x[i] for i in range(len(x)))
        for i in range(len(x)):
            for j in range(i + 1, len(x)):
                total += float(w[i][1:] @ w[j][1:]) * x[i] * x[j]
        logits.append(total)
    return np.array(logits)


def objective(rows, index, values, label, weight, l2, regular):
    """Weighted log-loss summed over the batch, and l2 / 2 of the columns `regular` of every feature present, in float64."""
    rows = rows.astype(float)
    total = 0.0
    for number, logit in enumerate(fm_logit(rows, index, values)):
        sign = 1.0 if label[number] else -1.0
        total += float(weight[number]) * float(np.logaddexp(0.0, -sign * logit))
        present = [r for r, x in zip(index[number], values[number], strict=True) if x != 0]
        total += float(weight[number]) * l2 / 2 * sum(float((rows[r][regular] ** 2).sum()) for r in present)
    return total


def numeric_gradient(function, rows, step=1e-5):
    """Central differences of `function` at `rows`, in float64."""
    rows = rows.astype(float)
    gradient = np.zeros(rows.shape)
    for at in np.ndindex(*rows.shape):
        up, down = rows.copy(), rows.copy()
        up[at] += step
        down[at] -= step
        gradient[at] = (function(up) - function(down)) / (2 * step)
    return gradient


def auc(scores, labels):
    """Share of (positive, negative) pairs in the right order, ties half."""
    positive = [s for s, y in zip(scores, labels, strict=True) if y]
    negative = [s for s, y in zip(scores, labels, strict=True) if not y]
    right = sum((p > n) + 0.5 * (p == n) for p in positive for n in negative)
    return right / (len(positive) * len(negative))


# ann/


class NearestByScan:
    """Vectors by inner product in a dictionary."""

    def __init__(self):
        self.vectors, self.sequences = {}, {}

    def upsert(self, name, vector, sequence):
        if sequence < self.sequences.get(name, -1):
            return False
        self.sequences[name] = sequence
        self.vectors[name] = vector
        return True

    def delete(self, name, sequence):
        if sequence < self.sequences.get(name, -1):
            return False
        self.sequences[name] = sequence
        self.vectors.pop(name, None)
        return True

    def search(self, query, k, exclude=()):
        """[(score, id)], best first."""
        scores = [(float(np.dot(vector, query)), name) for name, vector in self.vectors.items() if name not in exclude]
        return sorted(scores, key=lambda pair: -pair[0])[:k]
