"""Vowpal Wabbit as a peer: the same samples, row by row, each predicted before it is learnt."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import vowpalwabbit

from headrace.models.batch import Batch, unique

BITS = 22
GRID = ("", "-l 1", "--ftrl --ftrl_alpha 0.1", "--ftrl --ftrl_alpha 0.5", "--ftrl --ftrl_alpha 1", "--coin")
NO_CONSTANT = "--noconstant"  # the samples carry a bias


def lines(batch: Batch) -> list[str]:
    """A line of its text format a sample: slots with a value, their keys numbered from 0 on so that no two meet in the index."""
    keys, index = unique(batch)
    assert len(keys) < 1 << BITS, "more keys than places: raise BITS"
    return [f"{1 if label >= 0.5 else -1} | {' '.join(_features(row, values))}"
            for row, values, label in zip(index.tolist(), batch.values.tolist(), batch.label.tolist(), strict=True)]


def _features(row: list[int], values: list[float]) -> Iterator[str]:
    """Names that are numbers are places of the index as they are; a value has nine digits, which is all of a float32."""
    for place, value in zip(row, values, strict=True):
        if value:
            yield str(place) if value == 1.0 else f"{place}:{value:.9g}"


def progressive(examples: list[str], settings: str) -> np.ndarray:
    """Probabilities float64[n], each from before its example was learnt."""
    learner = vowpalwabbit.Workspace(f"--quiet --loss_function logistic -b {BITS} {settings}")
    margins = np.empty(len(examples))
    try:
        for i, line in enumerate(examples):
            example = learner.example(line)
            learner.learn(example)
            margins[i] = example.get_simplelabel_prediction()
            learner.finish_example(example)
    finally:
        learner.finish()
    return 1 / (1 + np.exp(-margins))
