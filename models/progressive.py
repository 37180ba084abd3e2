"""Progressive validation as integer histograms: exact under retries, mergeable over shards and windows.

Every sample is scored on what was predicted before it was learnt (Blum, Kalai and Langford, "Beating the Hold-Out", COLT 1999). Its
increments travel in the same push as its gradients, under the same cause, into the int64 table `metrics`. A key stands for series
(8 bits), window (24 bits; TOTAL: since the beginning), label (1 bit) and bin (16 bits). Bins 0 to 2047 count samples by predicted
probability, in equal steps of log-odds from -10 to 10, so that rare targets keep their resolution; bin 2048 sums the log-loss in
micro-nats, bin 2049 the predicted probability in millionths.

A retry is computed on newer parameters and may fall into another bin. Were a window's bins spread over the shards, a sample whose push
reached one shard before a crash and the other after it could be counted in both or in neither. So the keys are made such that all bins of
a series and window live in one slot: the packed number is run backwards through the mix whose high 6 bits are the slot.
"""

from __future__ import annotations

import numpy as np

MODEL, POPULARITY, SAMPLED = 0, 1, 2
BINS = 2048
LOSS_BIN, SUM_BIN = BINS, BINS + 1
TOTAL = 0xFFFFFF
WINDOW_MAX = TOTAL - 1
LOG_ODDS_MAX = 10.0
MICRO = 1_000_000


def increments(series: int, window: np.ndarray, probability: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(keys uint64[u] distinct, counts int64[u]) of n samples, for their windows and for the total.

    window int64[n] (beyond WINDOW_MAX they share the last), probability float32[n], label float32[n] (positive from 0.5 on).
    """
    p = np.clip(probability.astype(np.float64), 1e-7, 1 - 1e-7)
    positive = label >= 0.5
    loss = np.rint(-np.log(np.where(positive, p, 1 - p)) * MICRO).astype(np.int64)
    total = np.rint(p * MICRO).astype(np.int64)
    keys, counts = [], []
    for at in (np.minimum(window, WINDOW_MAX), np.full(len(p), TOTAL)):
        for part, count in ((bins_of(p), np.ones(len(p), np.int64)), (LOSS_BIN, loss), (SUM_BIN, total)):
            keys.append(_pack(series, at, positive, part))
            counts.append(count)
    return summed(np.concatenate(keys), np.concatenate(counts))


def summed(keys: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct keys uint64[u] and the sums int64[u] of their counts: a push names each key once."""
    found, at = np.unique(keys, return_inverse=True)
    total = np.zeros(len(found), np.int64)
    np.add.at(total, at.reshape(-1), counts)
    return found, total


def sampled(source: np.ndarray, partition: np.ndarray, offset: np.ndarray, share: float, salt: int = 0) -> np.ndarray:
    """bool[n]: whether causes (int32[n], int32[n], int64[n]) are of the share whose model scores are series SAMPLED too: by their hash, so
    that every process and every retry chooses alike, and a peer can be scored on the very same samples. Another `salt` chooses
    independently."""
    packed = source.astype(np.uint64) << np.uint64(40) ^ partition.astype(np.uint64) << np.uint64(32) ^ offset.astype(np.uint64)
    packed ^= np.uint64(salt)
    return _unmixed(packed * _ODD) < np.uint64(min(share, 1.0) * ((1 << 64) - 2048))


def keys_of(series: int, window: int = TOTAL) -> np.ndarray:
    """uint64[2 * 2050]: every key of a series and window, negatives first; their counts are what `summary` reads."""
    part = np.arange(BINS + 2)
    return np.concatenate([_pack(series, np.full(len(part), window), np.full(len(part), label), part) for label in (False, True)])


def summary(counts: np.ndarray) -> dict[str, float | None]:
    """Figures from counts int64[2 * 2050] in the order of `keys_of`: samples, positives, auc, logloss (nats a sample), logloss_base_rate
    (of always predicting the mean label), calibration (mean predicted / mean label). None where there is nothing to divide by."""
    negative, positive = np.asarray(counts, np.int64).reshape(2, BINS + 2)
    n, p = negative[:BINS], positive[:BINS]
    negatives, positives = int(n.sum()), int(p.sum())
    samples = negatives + positives
    rate = positives / samples if samples else 0.0
    base = -sum(q * float(np.log(q)) for q in (rate, 1 - rate) if q > 0)
    return {
        "samples": samples,
        "positives": positives,
        "auc": auc_of(n, p),
        "logloss": int(negative[LOSS_BIN] + positive[LOSS_BIN]) / MICRO / samples if samples else None,
        "logloss_base_rate": base if samples else None,
        "calibration": int(negative[SUM_BIN] + positive[SUM_BIN]) / MICRO / positives if positives else None,
    }


def auc_of(negative: np.ndarray, positive: np.ndarray) -> float | None:
    """Area under the ROC curve from two histograms over the same bins, ties within a bin counted half; None without both labels."""
    pairs = float(negative.sum()) * float(positive.sum())
    below = np.cumsum(negative) - negative
    return float((positive * (below + 0.5 * negative)).sum()) / pairs if pairs else None


def bins_of(probability: np.ndarray) -> np.ndarray:
    """int64[n]: the bin of each probability."""
    odds = np.log(probability / (1 - probability))
    return np.clip((odds + LOG_ODDS_MAX) * (BINS / (2 * LOG_ODDS_MAX)), 0, BINS - 1).astype(np.int64)


def edges() -> np.ndarray:
    """float64[2049]: the probabilities between which the bins lie, for plots."""
    return 1 / (1 + np.exp(-np.linspace(-LOG_ODDS_MAX, LOG_ODDS_MAX, BINS + 1)))


def _pack(series: int, window: np.ndarray, positive: np.ndarray, part: np.ndarray | int) -> np.ndarray:
    assert 0 <= series < 256, "a series has 8 bits"
    of = np.uint64(series) << np.uint64(24) | window.astype(np.uint64)
    packed = of << np.uint64(17) | positive.astype(np.uint64) << np.uint64(16) | np.asarray(part, np.uint64)
    with np.errstate(over="ignore"):
        slot = of * _ODD >> np.uint64(58)
        return _unmixed(slot << np.uint64(58) | (packed * _ODD & _LOW58))  # an odd factor permutes 58 bits: no two keys meet


_ODD = np.uint64(0x9E3779B97F4A7C15)
_LOW58 = np.uint64((1 << 58) - 1)
_S33 = np.uint64(33)
_INVERSE_1 = np.uint64(pow(0xFF51AFD7ED558CCD, -1, 1 << 64))
_INVERSE_2 = np.uint64(pow(0xC4CEB9FE1A85EC53, -1, 1 << 64))


def _unmixed(mixed: np.ndarray) -> np.ndarray:
    """The keys that MurmurHash3's 64-bit finalizer, by which the parameter server places keys, takes to uint64[n]."""
    mixed = (mixed ^ (mixed >> _S33)) * _INVERSE_2
    mixed = (mixed ^ (mixed >> _S33)) * _INVERSE_1
    return mixed ^ (mixed >> _S33)
