"""Predict, score, learn: one batch of samples against the parameter server, exactly once for each cause."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from headrace.models import progressive
from headrace.models.batch import Batch, unique
from headrace.models.catalog import Model
from headrace.models.fm import probability
from headrace.rpc.causes import Causes

Updates = dict[str, tuple[np.ndarray, np.ndarray]]
Pull = Callable[[str, str, np.ndarray], tuple[np.ndarray, int]]
Push = Callable[[str, str, Causes, Callable[[np.ndarray], Updates]], Any]


class Trainer:
    """Trains `model` through `pull` and `push` of a ps.client.ParameterClient, under the model's name.

    `l2` and `rate` as in the model's `learn`; a window of the metrics is `window_offsets` offsets of a partition; `effect` is the target;
    the scores of `share` of the causes are a series of their own too.
    """

    def __init__(self, model: Model, pull: Pull, push: Push, l2: float, window_offsets: int = 1000, effect: str = "click",
                 rate: float = 0.0, share: float = 0.0) -> None:
        assert window_offsets > 0, "a window is at least one offset"
        self.model, self.effect = model, effect
        self._pull, self._push = pull, push
        self._l2, self._window_offsets, self._rate, self._share = l2, window_offsets, rate, share
        self.sequence = 0

    def learn(self, batch: Batch, causes: Causes, popularity: np.ndarray) -> np.ndarray:
        """Pull, predict and learn in turn, push; probabilities float32[n], each from before its own sample was learnt.

        Users come in bursts, of which a push holds a part: a sample is predicted by the rows that were pulled and by the samples of this
        batch before it, so that the size of a push matters little. `popularity` float32[n] is the baseline's probability of each sample,
        scored beside the model. One push carries the gradients of `weights`, `counts` (+1 for each of the F keys of each sample) and
        `metrics`. When a shard answers that it has some of the causes already, the push asks again for the rest: learnt in turn from the
        rows that were pulled, scored by the probabilities given here. Raises what pull and push raise; nothing but the pulled rows'
        `sequence` is kept between calls.
        """
        assert len(batch) == len(causes) == len(popularity), "one cause and one baseline score a sample"
        if not len(batch):
            return np.empty(0, np.float32)
        keys, index = unique(batch)
        rows, self.sequence = self._pull(self.model.name, "weights", keys)
        seen = self._pull(self.model.name, "counts", keys)[0][:, 0] if self._rate else np.zeros(len(keys), np.int64)
        logits, everything = self._gradients(rows, seen, index, batch)
        predicted = probability(logits)
        window = causes.offset // self._window_offsets

        def compute(chosen: np.ndarray) -> Updates:
            part = batch.take(chosen)
            at, own = _narrowed(index[chosen], len(keys))
            whole = len(chosen) == len(batch)
            grads = everything[at] if whole else self._gradients(rows[at], seen[at], own, part)[1]
            counts = np.bincount(own.reshape(-1), minlength=len(at)).astype(np.int64)[:, None]
            series = [(progressive.MODEL, predicted, chosen), (progressive.POPULARITY, popularity, chosen)]
            if self._share:
                series.append((progressive.SAMPLED, predicted, chosen[progressive.sampled(*causes.take(chosen), self._share)]))
            scores = [progressive.increments(number, window[of], score[of], batch.label[of]) for number, score, of in series]
            metrics = tuple(np.concatenate(column) for column in zip(*scores, strict=True))
            return {"weights": (keys[at], grads), "counts": (keys[at], counts), "metrics": (metrics[0], metrics[1][:, None])}

        self._push(self.model.name, self.effect, causes, compute)
        return predicted

    def _gradients(self, rows: np.ndarray, seen: np.ndarray, index: np.ndarray, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        return self.model.learn(rows, seen, index, batch.values, batch.label, batch.weight, self._l2, self._rate)


def local_rate(optimizer: str, learning_rate: float) -> float:
    """The `rate` for a table's optimizer: the steps of AdaGrad and FTRL are guessed; with another, nothing is learnt in turn."""
    return learning_rate if optimizer in ("adagrad", "ftrl") else 0.0


def _narrowed(index: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows int64[u] that index int32[n,F] names, of `rows`, and the index into these."""
    used = np.zeros(rows, bool)
    used[index] = True
    at = np.nonzero(used)[0]
    renumbered = np.zeros(rows, np.int32)
    renumbered[at] = np.arange(len(at), dtype=np.int32)
    return at, renumbered[index]
