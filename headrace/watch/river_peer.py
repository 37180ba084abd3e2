"""River, the one place that imports it: a learner of its own on our samples, and its detectors of drift (Montiel et al., JMLR 2021)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from river import drift, linear_model, optim

LEARNING_RATE = 0.05  # as ours; on MovieLens and KuaiRand 0.1 and FTRL are within 0.002 of AUC


class Peer:
    """Logistic regression by AdaGrad, a sample a step, over the frozen keys; the samples carry a bias, so there is no other."""

    def __init__(self) -> None:
        self._model = linear_model.LogisticRegression(optim.AdaGrad(LEARNING_RATE), intercept_lr=0.0)

    def predict(self, keys: np.ndarray, values: np.ndarray) -> float:
        """Probability of a sample, keys uint64[F], values float32[F]."""
        return float(self._model.predict_proba_one(_named(keys, values))[True])

    def learn(self, keys: np.ndarray, values: np.ndarray, label: bool) -> None:
        self._model.learn_one(_named(keys, values), label)


class Drifts:
    """ADWIN (Bifet and Gavalda, SDM 2007) and Page-Hinkley (Page, Biometrika 1954), at River's defaults, on two numbers a sample:
    its log-loss, and what calibration is made of, predicted probability less label."""

    def __init__(self) -> None:
        kinds: dict[str, Any] = {"adwin": drift.ADWIN, "page_hinkley": drift.PageHinkley}
        self._detectors = {(kind, of): make() for kind, make in kinds.items() for of in ("logloss", "calibration")}
        self.found = dict.fromkeys(self._detectors, 0)

    def update(self, logloss: float, residual: float) -> list[tuple[str, str]]:
        """(detector, of) of each that finds a drift at this sample."""
        now = []
        for (kind, of), detector in self._detectors.items():
            detector.update(logloss if of == "logloss" else residual)
            if detector.drift_detected:
                self.found[kind, of] += 1
                now.append((kind, of))
        return now


def loss_detectors() -> dict[str, Callable[[float], bool]]:
    """The same two, for one number a sample, of which Page-Hinkley looks at rises alone: each says True at a drift."""
    made: dict[str, Any] = {"adwin": drift.ADWIN(), "page_hinkley": drift.PageHinkley(mode="up")}

    def updated(detector: Any, value: float) -> bool:
        detector.update(value)
        return bool(detector.drift_detected)

    return {name: partial(updated, detector) for name, detector in made.items()}


def _named(keys: np.ndarray, values: np.ndarray) -> dict[int, float]:
    """Slots with a value; a key that stands twice is summed."""
    named: dict[int, float] = {}
    for key, value in zip(keys.tolist(), values.tolist(), strict=True):
        if value:
            named[key] = named.get(key, 0.0) + value
    return named
