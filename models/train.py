"""Predict, score, learn: one batch of samples against the parameter server, exactly once for each cause."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from headrace.models import progressive
from headrace.models.batch import Batch, unique
from headrace.models.catalog import Model
from headrace.models.fm import probability
from headrace.models.kernels import CONFIRMED, PROVISIONAL
from headrace.rpc.causes import Causes
from headrace.rpc.errors import Stale
from headrace.rpc.freshness import Newest

Updates = dict[str, tuple[np.ndarray, np.ndarray]]
Pull = Callable[[str, str, np.ndarray], tuple[np.ndarray, int]]
PullTables = Callable[[str, Sequence[str], np.ndarray], tuple[list[np.ndarray], int]]
Push = Callable[[str, str, Causes, Callable[[np.ndarray], Updates], Newest | None], Any]
Refuse = Callable[[int, str], Any]
STALE_MAX = 8


class NotFinite(ValueError):
    """A gradient is not finite and nobody takes the sample, or the pulled rows are not: look at the sample's values, or restore a snapshot
    and lower the learning rate."""


class Gradients(NamedTuple):
    """Of some samples: rows int64[u] of what was pulled that they use, their index int32[n,F] into these, gradients float32[u,dim], when
    they learn in turn followed by the sums of the samples' squares, [u,2 dim]."""

    at: np.ndarray
    own: np.ndarray
    grads: np.ndarray


class Trainer:
    """Trains `model` through `pull` and `push` of a ps.client.ParameterClient, under the model's name.

    `l2` and `rate` as in the model's `learn`; a window of the metrics is `window_offsets` offsets of a partition; `effect` is the target;
    the scores of `share` of the causes are a series of their own too. `pull_tables`, where there is one, pulls from two tables in one call.
    `kept`: share of the negatives that are learnt, the others having weight 0 (models/choice.py).
    """

    def __init__(self, model: Model, pull: Pull, push: Push, l2: float, window_offsets: int = 1000, effect: str = "click",
                 rate: float = 0.0, share: float = 0.0, pull_tables: PullTables | None = None, kept: float = 1.0) -> None:
        assert window_offsets > 0, "a window is at least one offset"
        self.model, self.effect = model, effect
        self._pull, self._push, self._pull_tables = pull, push, pull_tables
        self._l2, self._window_offsets, self._rate, self._share, self._kept = l2, window_offsets, rate, share, kept
        self.sequence = self.stale = 0  # of the rows pulled; pushes that a shard found too stale

    def learn(self, batch: Batch, causes: Causes, popularity: np.ndarray, scores: np.ndarray | None = None,
              newest: Newest | None = None, *, refuse: Refuse | None = None, again: int = STALE_MAX) -> np.ndarray:
        """Pull, predict and learn in turn, push; probabilities float32[n], each from before its own sample was learnt.

        Users come in bursts, of which a push holds a part: a sample is predicted by the rows that were pulled and by the samples of this
        batch before it, so that the size of a push matters little. `popularity` float32[n] is the baseline's probability of each sample,
        scored beside the model. `scores` float64[n]: what each exposure was given when it was made, for the metrics; NaN: it was given
        none, is learnt and left out of them. Without `scores` all are scored here, on arrival. One push carries the gradients of `weights`,
        `counts` (+1 for each of the F keys of each sample) and `metrics`; of a sample of two stages the first is counted and the second is
        scored; one of weight 0 is scored, and no row is pushed for its sake. When a shard answers that it has some of the causes already,
        the push asks again for the rest: learnt in turn from the rows that were pulled, scored by the probabilities given here. `newest` of
        the causes goes with the push.

        A push whose gradient is not finite is cut in halves by cause, before any shard sees it; a sample whose own gradient is not is told
        to `refuse(row, sentence)`, and the others are learnt. Raises NotFinite when there is no `refuse`, or when no sample is left because
        the model itself is not finite; and what pull and push raise; Stale only after it has pulled and computed anew `again` times.
        Nothing but the pulled rows' `sequence` is kept between calls.
        """
        assert len(batch) == len(causes) == len(popularity), "one cause and one baseline score a sample"
        if not len(batch):
            return np.empty(0, np.float32)
        keys, index = unique(batch)
        rows, seen = self._rows(keys)
        logits, everything = self._gradients(rows, seen, index, batch)
        predicted = probability(logits)
        judged = predicted if scores is None else scores
        window = causes.offset // self._window_offsets
        stage = np.zeros(len(batch), np.uint8) if batch.stage is None else batch.stage

        def gradients(chosen: np.ndarray) -> Gradients:
            part = batch.take(chosen)
            at, own = _narrowed(index[chosen], len(keys))
            return Gradients(at, own, everything[at] if len(chosen) == len(batch) else self._gradients(rows[at], seen[at], own, part)[1])

        def updates(chosen: np.ndarray, found: Gradients) -> Updates:
            learnt = batch.weight[chosen] != 0
            counts = np.bincount(found.own[learnt & (stage[chosen] != CONFIRMED)].reshape(-1), minlength=len(found.at)).astype(np.int64)
            counted = chosen[(stage[chosen] != PROVISIONAL) & np.isfinite(judged[chosen])]
            series = [(progressive.MODEL, judged, counted), (progressive.POPULARITY, popularity, counted)]
            if self._share:
                series.append((progressive.SAMPLED, judged, counted[progressive.sampled(*causes.take(counted), self._share)]))
            told = [progressive.increments(number, window[of], score[of], batch.label[of]) for number, score, of in series]
            metrics = tuple(np.concatenate(column) for column in zip(*told, strict=True))
            used = np.arange(len(found.at)) if learnt.all() else np.unique(found.own[learnt])
            own = keys[found.at[used]]
            return {"weights": (own, found.grads[used]), "counts": (own, counts[used][:, None]),
                    "metrics": (metrics[0], metrics[1][:, None])}

        whole, broken = finite_parts(np.arange(len(batch)), gradients)
        if broken and (refuse is None or (not whole and len(batch) > 1 and not np.isfinite(rows).all())):
            bad_rows = int((~np.isfinite(rows)).any(axis=1).sum())
            raise NotFinite(f"no gradient of {len(broken)} of {len(batch)} samples is finite, the first at offset"
                            f" {int(causes.offset[broken[0]])}; of {len(rows)} rows pulled {bad_rows} are not finite either")
        for row in broken:
            assert refuse is not None, "it was raised above"
            refuse(row, f"its gradient is not finite, of feature values up to {float(np.abs(batch.values[row]).max()):.3g}")

        def computed(part: np.ndarray, found: Gradients) -> Callable[[np.ndarray], Updates]:
            """A push asks for all of its causes first: that is there already."""
            return lambda chosen: updates(part[chosen], found if len(chosen) == len(part) else gradients(part[chosen]))

        for number, (part, found) in enumerate(whole, 1):
            try:
                self._push(self.model.name, self.effect, causes.take(part), computed(part, found), newest if number == len(whole) else None)
            except Stale:
                if not again:
                    raise
                self.stale += 1  # from rows of now; the scores stay those of before
                self.learn(batch, causes, popularity, judged, newest, refuse=_nothing if broken else refuse, again=again - 1)
                break
        return predicted

    def _rows(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights float32[u,1+k] of uint64[u], and samples of each learnt before int64[u] (zeros when nothing is learnt in turn)."""
        name = self.model.name
        if self._rate and self._pull_tables is not None:
            (rows, counts), self.sequence = self._pull_tables(name, ("weights", "counts"), keys)
            return rows, counts[:, 0]
        rows, self.sequence = self._pull(name, "weights", keys)
        return rows, self._pull(name, "counts", keys)[0][:, 0] if self._rate else np.zeros(len(keys), np.int64)

    def _gradients(self, rows: np.ndarray, seen: np.ndarray, index: np.ndarray, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        logits, grads, squares = self.model.learn(rows, seen, index, batch.values, batch.label, batch.weight, self._l2, self._rate,
                                                  batch.stage, self._kept)
        return logits, np.concatenate([grads, squares], axis=1) if self._rate else grads


def _nothing(row: int, sentence: str) -> None:
    """Of a sample that was told already."""


def local_rate(optimizer: str, learning_rate: float) -> float:
    """The `rate` for a table's optimizer: the steps of AdaGrad and FTRL are guessed; with another, nothing is learnt in turn."""
    return learning_rate if optimizer in ("adagrad", "ftrl") else 0.0


def finite_parts(rows: np.ndarray, gradients: Callable[[np.ndarray], Gradients]) -> tuple[list[tuple[np.ndarray, Gradients]], list[int]]:
    """([(rows int64[k], their gradients)], rows that have none): all together when that is finite, else halves of halves. Two samples may
    each be finite and their sum not; they are then parts of their own."""
    found = gradients(rows)
    if np.isfinite(found.grads).all():
        return [(rows, found)], []
    if len(rows) == 1:
        return [], [int(rows[0])]
    half = len(rows) // 2
    first, second = finite_parts(rows[:half], gradients), finite_parts(rows[half:], gradients)
    return first[0] + second[0], first[1] + second[1]


def _narrowed(index: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows int64[u] that index int32[n,F] names, of `rows`, and the index into these."""
    used = np.zeros(rows, bool)
    used[index] = True
    at = np.nonzero(used)[0]
    renumbered = np.zeros(rows, np.int32)
    renumbered[at] = np.arange(len(at), dtype=np.int32)
    return at, renumbered[index]
