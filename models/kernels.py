"""Numba kernels of the models: distinct keys of a batch, scores and gradients of the factorization machine and the linear model.

Free functions over arrays; the caller owns the memory and has checked every index (batch.py's and fm.py's doors). Unsigned, because
arrays from Flight are read-only.
"""

from __future__ import annotations

import math

import numba
import numpy as np

SQUARE_LINEAR = 0.2  # (p - y)^2 of a model that knows little more than the rate
SQUARE_FACTORS = 0.1
WHOLE, PROVISIONAL, CONFIRMED = 0, 1, 2  # stages of a sample; of the latter two a label is known twice, at first as 0


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
def _forward(rows, index, values, side, scale, sums):
    """The logit of one sample: sum of w x + <sums of the user's scaled v x, of the item's>, sums float64[2,k], from rows float32[u,1+k]."""
    k = rows.shape[1] - 1
    logit = 0.0
    sums[:] = 0.0
    for f in range(len(index)):
        x = values[f]
        if x == 0.0:
            continue
        row = rows[index[f]]
        logit += row[0] * x
        if side[f] != 0:
            for d in range(k):
                sums[side[f] - 1, d] += row[1 + d] * x * scale[f]
    for d in range(k):
        logit += sums[0, d] * sums[1, d]
    return logit


@numba.njit(cache=True)
def logits_of(rows, index, values, side, scale, logits):
    """logits float32[n] of rows float32[u,1+k], index int32[n,F], values float32[n,F], side uint8[F], scale float32[F]."""
    sums = np.empty((2, rows.shape[1] - 1))
    for i in range(len(index)):
        logits[i] = _forward(rows, index[i], values[i], side, scale, sums)


@numba.njit(cache=True)
def learn_in_turn(rows, seen, index, values, side, scale, label, weight, stage, kept, l2_linear, l2_factors, rate, logits, grads,
                  squares):
    """Sample after sample: predict it, add its gradient to grads float32[u,1+k] and its square to squares, and move `rows` as its push is
    going to.

    rows float32[u,1+k] and seen int64[u], samples of each row learnt before, are the caller's to spoil; a step of a number is rate /
    sqrt(share x samples so far) of its gradient: what AdaGrad's would be had all its gradients had the mean square SQUARE_LINEAR or
    SQUARE_FACTORS. With rate 0 the gradients are those at `rows` as given. logits float32[n] are those from before each sample's own step.

    stage uint8[n]: until its label is known an exposure is PROVISIONAL, a negative of weight (1 - p)(1 + p), and then CONFIRMED: a positive
    of weight 1 + p, or a negative that has been learnt before and is only predicted (`importance`). A sample of weight 0 is only predicted.
    `kept`: share of the negatives that are learnt. `against_odds` makes up for it; but where the model misses what tells exposures apart,
    log-odds raised and lowered again are too low for all together, so the slots of neither side, which hold the level, learn by plain
    weights: 1 of a negative, `kept` of a positive, under which predictions and labels have one sum.
    """
    k = rows.shape[1] - 1
    sums = np.empty((2, k))
    for i in range(len(index)):
        logit = _forward(rows, index[i], values[i], side, scale, sums)
        logits[i] = logit
        p = logistic(logit)
        if weight[i] == 0.0 or (stage[i] == CONFIRMED and label[i] == 0.0):
            continue
        slope = weight[i] * importance(p, label[i], stage[i]) * (p - label[i])
        level = slope
        if kept < 1.0:
            level *= 1.0 if label[i] == 0.0 else kept
            slope *= against_odds(p, label[i], kept)
        for f in range(index.shape[1]):
            r, x = index[i, f], values[i, f]
            seen[r] += 1
            if x == 0.0:
                continue
            step = rate / math.sqrt(SQUARE_LINEAR * seen[r])
            g = (slope if side[f] != 0 else level) * x + weight[i] * l2_linear * rows[r, 0]
            grads[r, 0] += g
            squares[r, 0] += g * g
            rows[r, 0] -= step * g
            if side[f] != 0:
                step = rate / math.sqrt(SQUARE_FACTORS * seen[r])
                for d in range(k):
                    g = slope * x * scale[f] * sums[2 - side[f], d] + weight[i] * l2_factors * rows[r, 1 + d]
                    grads[r, 1 + d] += g
                    squares[r, 1 + d] += g * g
                    rows[r, 1 + d] -= step * g


@numba.njit(cache=True)
def importance(p, label, stage):
    """Weight by which a sample of a stage stands for one whose label was known at once, given the probability p of a positive.

    Of exposures that are all learnt as negatives, and the clicked ones once more as positives, 1 in 1 + p is a positive; weights 1 + p and
    (1 - p)(1 + p) give the expected gradient of the true labels, up to a factor (Ktena et al., "Addressing Delayed Feedback for Continuous
    Training with Neural Networks in CTR prediction", RecSys 2019: fake negative weighted).
    """
    if stage == WHOLE:
        return 1.0
    return (1.0 - p) * (1.0 + p) if label == 0.0 else 1.0 + p


@numba.njit(cache=True)
def against_odds(p, label, kept):
    """Weight of a sample where a share `kept` of the negatives is learnt, given the probability p of a positive among all.

    Among those learnt the odds are 1 / kept of what they are: the gradient is that of log-odds raised by log(1 / kept), so that p stays a
    probability among all (prior correction: King and Zeng, "Logistic Regression in Rare Events Data", Political Analysis 2001). Written as
    weights, which differ between the labels by 1 / kept and stay below it, unlike 1 / kept for each negative.
    """
    whole = p + kept * (1.0 - p)
    return 1.0 / whole if label == 0.0 else kept / whole


@numba.njit(cache=True)
def logistic(x):
    """1 / (1 + exp(-x)) without overflow."""
    if x >= 0.0:
        return 1.0 / (1.0 + math.exp(-x))
    e = math.exp(x)
    return e / (1.0 + e)


@numba.njit(cache=True)
def sigmoid(logits, probabilities):
    """`logistic` of float32[n] into float32[n]."""
    for i in range(len(logits)):
        probabilities[i] = logistic(logits[i])
