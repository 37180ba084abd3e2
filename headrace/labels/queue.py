"""What to label next: where the model is least certain and most is shown.

A unit's weight is the uncertainty of its exposures in bits, summed: the entropy of the score that travelled with each, or, where none did,
of the item's share of positives, drawn towards that of all (uncertainty sampling, Lewis and Gale, SIGIR 1994, weighed by density).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.labels.label import Label, Unit

COLUMNS = ("item_id", "user_id", "target", "label", "score")
PRIOR = 10.0  # exposures that the share of all counts as


class Next(NamedTuple):
    """`exposures` of the unit, `bits` of uncertainty over all of them, `score`: mean of the model's or, without, of the item's rate;
    `labelled`: how many others have labelled it."""

    unit: Unit
    exposures: int
    bits: float
    score: float
    labelled: int


class Exposures:
    """Sums over the exposures of one target by unit: of items, or (`by_user`) of items as shown to a user."""

    def __init__(self, target: str, by_user: bool = False) -> None:
        self._target, self._by_user = target, by_user
        self._sums: dict[tuple[str, str | None], np.ndarray] = {}  # exposures, scored ones, their score, their bits, positives
        self._items: dict[str, np.ndarray] = {}  # exposures, positives

    def add(self, samples: pa.Table) -> None:
        """Samples with COLUMNS; those of other targets are passed by."""
        chosen = samples.filter(pc.equal(samples["target"], self._target)).select(["item_id", "user_id", "label", "score"])
        score = chosen["score"].to_numpy(zero_copy_only=False).astype(np.float64)
        scored = np.isfinite(score)
        columns = {"n": np.ones(len(score)), "scored": scored.astype(np.float64), "score": np.where(scored, score, 0.0),
                   "bits": np.where(scored, bits(score), 0.0),
                   "positive": (chosen["label"].to_numpy(zero_copy_only=False) > 0).astype(np.float64)}
        keys = ["item_id", "user_id"] if self._by_user else ["item_id"]
        rows = pa.table({**{name: chosen[name] for name in keys}, **columns}).group_by(keys).aggregate([(name, "sum") for name in columns])
        sums = np.stack([rows[f"{name}_sum"].to_numpy() for name in columns], axis=1)
        users = rows["user_id"].to_pylist() if self._by_user else [None] * len(rows)
        for item, user, one in zip(rows["item_id"].to_pylist(), users, sums, strict=True):
            self._sums[item, user] = self._sums.get((item, user), 0.0) + one
            self._items[item] = self._items.get(item, 0.0) + one[[0, 4]]

    def next(self, labels: Iterable[Label], labeller: str | None = None, again: bool = False) -> Iterator[Next]:
        """Units in the order in which to label them, without those that `labeller` has labelled (None: anybody); `again`: only those that
        somebody else has, for agreement."""
        by: dict[Unit, set[str]] = {}
        for label in labels:
            by.setdefault(label.unit, set()).add(label.labeller)
        shown, positives = sum(self._items.values(), np.zeros(2))
        rate = positives / max(shown, 1.0)
        made = [self._next(key, sums, rate, by) for key, sums in self._sums.items()]
        made.sort(key=lambda one: (-one.bits, one.unit.item_id, one.unit.user_id or ""))
        for one in made:
            who = by.get(one.unit, set())
            if (labeller in who if labeller is not None else who and not again) or (again and not who):
                continue
            yield one

    def _next(self, key: tuple[str, str | None], sums: np.ndarray, rate: float, by: dict[Unit, set[str]]) -> Next:
        item, user = key
        exposures, scored, score, known, _ = sums.tolist()
        of_item, positives = self._items[item].tolist()
        guess = (positives + PRIOR * rate) / (of_item + PRIOR)
        blind = exposures - scored
        unit = Unit(item, user, self._target)
        total = known + blind * float(bits(np.array([guess]))[0])
        return Next(unit, int(exposures), total, (score + blind * guess) / exposures, len(by.get(unit, ())))


def bits(p: np.ndarray) -> np.ndarray:
    """Entropy of probabilities float64[n] in bits; 0 at 0, at 1 and outside."""
    with np.errstate(divide="ignore", invalid="ignore"):
        made = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
    return np.where((p > 0) & (p < 1), made, 0.0)
