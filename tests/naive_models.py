"""Slow, obvious twins of what the models compute (tests/naive.py has the rest)."""

from __future__ import annotations

import numpy as np


def fm_logit(rows, index, values, side, scale):
    """Rendle's definition, pair by pair, of those pairs that have a user's (1) and an item's (2) slot; in float64."""
    logits = []
    for number, sample in enumerate(index):
        x = [float(v) for v in values[number]]
        w = [rows[r].astype(float) for r in sample]
        total = sum(w[i][0] * x[i] for i in range(len(x)))
        for i in range(len(x)):
            for j in range(i + 1, len(x)):
                if {int(side[i]), int(side[j])} == {1, 2}:
                    total += float(w[i][1:] @ w[j][1:]) * x[i] * x[j] * float(scale[i]) * float(scale[j])
        logits.append(total)
    return np.array(logits)


def objective(rows, index, values, label, weight, l2, regular, side, scale):
    """Weighted log-loss summed over the batch, and l2 / 2 of the columns `regular` of every feature present (factors: of a side)."""
    rows = rows.astype(float)
    total = 0.0
    for number, logit in enumerate(fm_logit(rows, index, values, side, scale)):
        sign = 1.0 if label[number] else -1.0
        total += float(weight[number]) * float(np.logaddexp(0.0, -sign * logit))
        present = [r for r, x, of in zip(index[number], values[number], side, strict=True) if x != 0 and (of or regular.start == 0)]
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


def importance(p, label, stage):
    """Of the strategy `fast`: a negative that may be false has 1 - p^2, a positive that was one 1 + p, a negative learnt before 0."""
    return {(0, 0): 1, (0, 1): 1, (1, 0): 1 - p * p, (1, 1): 1 + p, (2, 0): 0, (2, 1): 1 + p}[int(stage), int(label)]


def learn_in_turn(rows, seen, index, values, label, weight, l2, regular, side, scale, rate, stage=None, squares=(0.2, 0.1), kept=1.0):
    """(logits, sums of gradients and of their squares) of samples one by one, each learnt by guessed AdaGrad steps before the next; slopes
    are numeric.

    Of a row that a sample names twice, both are counted before it moves: give rows that differ.
    """
    rows, seen, total, square, logits = rows.astype(float), seen.copy(), np.zeros(rows.shape), np.zeros(rows.shape), []
    for i in range(len(index)):
        one = slice(i, i + 1)
        logits += fm_logit(rows, index[one], values[one], side, scale).tolist()
        sample, of = (index[one], values[one], label[one]), (l2, regular, side, scale)
        grads = numeric_gradient(lambda at, sample=sample, weight=weight[one], of=of: objective(at, *sample, weight, *of), rows)
        if weight[i] == 0:
            continue
        if (stage is not None and stage[i]) or kept < 1:
            p = 1 / (1 + np.exp(-logits[-1]))
            decay = numeric_gradient(lambda at, sample=sample, weight=weight[one], of=of: objective(at, *sample, weight, *of)
                                     - objective(at, *sample, weight, 0.0, *of[1:]), rows)
            raised = 1 / (1 + np.exp(-(logits[-1] - np.log(kept))))  # the probability among the samples that are learnt
            plain = importance(p, label[i], 0 if stage is None else stage[i]) * (grads - decay)
            grads = plain * (raised - label[i]) / (p - label[i]) + decay
            if kept < 1:  # the level is learnt by weights
                level = [r for r, of in zip(index[i], side, strict=True) if of == 0]
                grads[level, 0] = plain[level, 0] * (kept if label[i] else 1) + decay[level, 0]
            if stage is not None and (stage[i], label[i]) == (2, 0):
                continue
        total += grads
        square += grads**2
        for r in index[i]:
            seen[r] += 1
        for r in set(index[i].tolist()):
            rows[r, 0] -= rate / np.sqrt(squares[0] * seen[r]) * grads[r, 0]
            rows[r, 1:] -= rate / np.sqrt(squares[1] * seen[r]) * grads[r, 1:]
    return np.array(logits), total, square


def auc(scores, labels):
    """Share of (positive, negative) pairs in the right order, ties half."""
    positive = [s for s, y in zip(scores, labels, strict=True) if y]
    negative = [s for s, y in zip(scores, labels, strict=True) if not y]
    right = sum((p > n) + 0.5 * (p == n) for p in positive for n in negative)
    return right / (len(positive) * len(negative))
