"""The models by name: adding one here makes it trainable, servable and covered by the conformance tests."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from headrace.models.fm import FM
from headrace.models.lr import LR


class Model(Protocol):
    """Two verbs, predict then learn; a sample is F slots, a row is dim floats. See fm.py for the shapes."""

    name: str

    def dim(self, factors: int) -> int: ...

    def predict(self, rows: np.ndarray, index: np.ndarray, values: np.ndarray) -> np.ndarray: ...

    def gradients(self, rows: np.ndarray, index: np.ndarray, values: np.ndarray, label: np.ndarray, weight: np.ndarray,
                  l2: float) -> tuple[np.ndarray, np.ndarray]: ...

    def contributions(self, rows: np.ndarray, index: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...


MODELS: dict[str, Model] = {model.name: model for model in (FM(), LR())}
