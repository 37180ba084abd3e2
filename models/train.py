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
from headrace.rpc.freshness import Newest

Updates = dict[str, tuple[np.ndarray, np.ndarray]]
Pull = Callable[[str, str, np.ndarray], tuple[np.ndarray, int]]
Push = Callable[[str, str, Causes, Callable[[np.ndarray], Updates], Newest | None], Any]


class Trainer:
    """Trains `model` through `pull` and `push` of a ps.client.ParameterClient, under the model's name.

    `l2` as in the model's gradients; a window of the metrics is `window_offsets` offsets of a partition; `effect` is the target learnt.
    """

    def __init__(self, model: Model, pull: Pull, push: Push, l2: float, window_offsets: int = 1000, effect: str = "click") -> None:
        assert window_offsets > 0, "a window is at least one offset"
        self.model, self.effect = model, effect
        self._pull, self._push = pull, push
        self._l2, self._window_offsets = l2, window_offsets
        self.sequence = 0

    def learn(self, batch: Batch, causes: Causes, popularity: np.ndarray, scores: np.ndarray | None = None,
              newest: Newest | None = None) -> np.ndarray:
        """Pull, predict, push; probabilities float32[n] as they were before this batch was learnt.

        `popularity` float32[n] is the baseline's probability of each sample, scored beside the model. `scores` float64[n]: what each
        exposure was given when it was made, for the metrics; NaN: it was given none, is learnt and left out of them. Without `scores` all
        are scored here, on arrival. One push carries the gradients of `weights`, `counts` (+1 for each of the F keys of each sample) and
        `metrics`. When a shard answers that it has some of the causes already, the push asks again for the rest: computed on the rows that
        were pulled, scored by the probabilities given here. Raises what pull and push raise; nothing but the pulled rows' `sequence` is
        kept between calls. `newest` of the causes goes with the push.
        """
        assert len(batch) == len(causes) == len(popularity), "one cause and one baseline score a sample"
        if not len(batch):
            return np.empty(0, np.float32)
        keys, index = unique(batch)
        rows, self.sequence = self._pull(self.model.name, "weights", keys)
        predicted = probability(self.model.predict(rows, index, batch.values))
        judged = predicted if scores is None else scores
        window = causes.offset // self._window_offsets

        def compute(chosen: np.ndarray) -> Updates:
            part = batch.take(chosen)
            at, own = _narrowed(index[chosen], len(keys))
            _, grads = self.model.gradients(rows[at], own, part.values, part.label, part.weight, self._l2)
            counts = np.bincount(own.reshape(-1), minlength=len(at)).astype(np.int64)[:, None]
            known = np.isfinite(judged[chosen])
            counted = chosen[known]
            told = [progressive.increments(series, window[counted], score[counted], part.label[known])
                    for series, score in ((progressive.MODEL, judged), (progressive.POPULARITY, popularity))]
            metrics = tuple(np.concatenate(column) for column in zip(*told, strict=True))
            return {"weights": (keys[at], grads), "counts": (keys[at], counts), "metrics": (metrics[0], metrics[1][:, None])}

        self._push(self.model.name, self.effect, causes, compute, newest)
        return predicted


def _narrowed(index: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows int64[u] that index int32[n,F] names, of `rows`, and the index into these."""
    used = np.zeros(rows, bool)
    used[index] = True
    at = np.nonzero(used)[0]
    renumbered = np.zeros(rows, np.int32)
    renumbered[at] = np.arange(len(at), dtype=np.int32)
    return at, renumbered[index]
