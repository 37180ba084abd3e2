"""Page-Hinkley, for where River is not installed: the same test at the same defaults, of rises alone."""

from __future__ import annotations

import math


class PageHinkley:
    """Page's test ("Continuous Inspection Schemes", Biometrika 1954) on a mean that is learnt as it goes: `update` says True when what lies
    above the mean and `delta`, summed with forgetting `alpha`, has risen by `threshold` from its least; then it begins anew."""

    def __init__(self, samples_min: int = 30, delta: float = 0.005, threshold: float = 50.0, alpha: float = 0.9999) -> None:
        self._n, self._mean, self._sum, self._least = 0, 0.0, 0.0, math.inf
        self._samples_min, self._delta, self._threshold, self._alpha = samples_min, delta, threshold, alpha

    def update(self, value: float) -> bool:
        self._n += 1
        self._mean += (value - self._mean) / self._n
        self._sum = self._alpha * self._sum + value - self._mean - self._delta
        self._least = min(self._least, self._sum)
        found = self._n >= self._samples_min and self._sum - self._least > self._threshold
        if found:
            self._begin()
        return found

    def _begin(self) -> None:
        self._n, self._mean, self._sum, self._least = 0, 0.0, 0.0, math.inf
