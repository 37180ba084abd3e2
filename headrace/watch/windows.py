"""Losses of several versions on the same samples, by interval, and windows of the newest intervals.

All versions are scored on every sample, whichever was served: so two of them are compared sample by sample, which needs far fewer samples
than two means do. Of an interval only sums are kept: of losses, of their products by pairs of versions, of probabilities, of labels.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

CLIP = 1e-7


@dataclass
class Sums:
    """Of the samples of an interval, or several: loss, products loss_a loss_b, probability by version."""

    n: int = 0
    positives: float = 0.0
    loss: dict[int, float] = field(default_factory=dict)
    product: dict[tuple[int, int], float] = field(default_factory=dict)
    probability: dict[int, float] = field(default_factory=dict)
    of: dict[int, int] = field(default_factory=dict)  # samples that a version was scored on

    def add(self, label: np.ndarray, by_version: Mapping[int, np.ndarray]) -> None:
        names = sorted(by_version)
        p = np.clip(np.stack([by_version[name] for name in names]).astype(np.float64), CLIP, 1 - CLIP)
        loss = -np.where(label > 0.5, np.log(p), np.log1p(-p))
        products = loss @ loss.T
        self.n += len(label)
        self.positives += float((label > 0.5).sum())
        for i, name in enumerate(names):
            self.loss[name] = self.loss.get(name, 0.0) + float(loss[i].sum())
            self.probability[name] = self.probability.get(name, 0.0) + float(p[i].sum())
            self.of[name] = self.of.get(name, 0) + len(label)
            for j, other in enumerate(names):
                self.product[name, other] = self.product.get((name, other), 0.0) + float(products[i, j])

    def join(self, other: Sums) -> None:
        self.n += other.n
        self.positives += other.positives
        for mine, theirs in ((self.loss, other.loss), (self.probability, other.probability)):
            for name, value in theirs.items():
                mine[name] = mine.get(name, 0.0) + value
        for name, number in other.of.items():
            self.of[name] = self.of.get(name, 0) + number
        for pair, value in other.product.items():
            self.product[pair] = self.product.get(pair, 0.0) + value


@dataclass(frozen=True)
class Window:
    """Figures of the newest `intervals`. All losses are nats a sample."""

    sums: Sums
    intervals: int = 1

    @property
    def samples(self) -> int:
        return self.sums.n

    @property
    def base_rate(self) -> float:
        """Share of positives, kept off 0 and 1 by half a sample."""
        return (self.sums.positives + 0.5) / (self.sums.n + 1)

    @property
    def log_odds(self) -> float:
        return math.log(self.base_rate / (1 - self.base_rate))

    @property
    def base_loss(self) -> float:
        """Log-loss of one who always says the window's own base rate."""
        q = self.base_rate
        return -(q * math.log(q) + (1 - q) * math.log(1 - q))

    def has(self, version: int) -> bool:
        """Whether the version was scored on every sample."""
        return self.sums.of.get(version, 0) == self.sums.n > 0

    def loss(self, version: int) -> float:
        return self.sums.loss[version] / self.sums.n

    def entropy(self, version: int) -> float:
        """Log-loss over that of the base rate: normalized entropy (He et al., "Practical Lessons from Predicting Clicks on Ads at
        Facebook", ADKDD 2014). 1 is no better than the base rate."""
        return self.loss(version) / self.base_loss

    def entropy_error(self, version: int) -> float:
        """Its standard error, of the losses alone."""
        mean = self.loss(version)
        variance = max(self.sums.product[version, version] / self.sums.n - mean * mean, 0.0)
        return math.sqrt(variance / self.sums.n) / self.base_loss

    def calibration(self, version: int) -> float:
        """Predicted over true positives."""
        return self.sums.probability[version] / (self.sums.positives + 0.5)

    def better(self, version: int, other: int) -> tuple[float, float]:
        """(by how much of the other's loss `version` has less, in how many standard errors of the paired difference)."""
        n, loss, product = self.sums.n, self.sums.loss, self.sums.product
        mean = (loss[other] - loss[version]) / n
        squares = (product[version, version] + product[other, other] - 2 * product[version, other]) / n
        error = math.sqrt(max(squares - mean * mean, 0.0) / n)
        if error < 1e-12:
            return mean * n / max(loss[other], 1e-12), 0.0
        return mean * n / loss[other], mean / error

    def figures(self) -> dict[str, float]:
        """For events: samples, base_rate, and logloss.V, entropy.V, calibration.V by version."""
        told: dict[str, float] = {"samples": self.samples, "base_rate": round(self.base_rate, 5)}
        for version in sorted(self.sums.loss):
            if self.has(version):
                name = "live" if version == 0 else str(version)
                told |= {f"logloss.{name}": round(self.loss(version), 5), f"entropy.{name}": round(self.entropy(version), 4),
                         f"calibration.{name}": round(self.calibration(version), 4)}
        return told


class Windows:
    """Intervals of `interval_s`, kept while they can be part of a window: at least `window_s` long and of `samples_min` samples, and at
    most `stretch` times `window_s` long."""

    def __init__(self, interval_s: float, window_s: float, samples_min: int, stretch: float = 12.0) -> None:
        self.least = max(1, round(window_s / interval_s))
        self._samples_min = samples_min
        self._intervals: deque[Sums] = deque(maxlen=max(1, int(self.least * stretch)))
        self._open = Sums()

    def add(self, label: np.ndarray, by_version: Mapping[int, np.ndarray]) -> None:
        if len(label):
            self._open.add(label, by_version)

    def turn(self) -> Window | None:
        """An interval is over: the window that ends with it, None while there are too few samples."""
        self._intervals.append(self._open)
        self._open = Sums()
        sums = Sums()
        for taken, interval in enumerate(reversed(self._intervals), 1):
            sums.join(interval)
            if taken >= self.least and sums.n >= self._samples_min:
                return Window(sums, taken)
        return None
