"""How a gradient changes a row: a name -> object table. A row is `dim` weights, then `slots` x `dim` numbers of the optimizer's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from headrace.ps import optimizer_kernels as kernels

Kernel = Callable[[np.ndarray, np.ndarray, np.ndarray, int, np.ndarray], None]
Start = Callable[[np.ndarray, np.ndarray, int, np.ndarray], None]


@dataclass(frozen=True)
class Optimizer:
    """`apply(rows [n, width], at int64[u], grads [u, dim], dim, values float32[p])` in place; `start(rows, at int64[m], dim, values)` sets
    the slots of new rows, zero but for their seeded weights. A row is its weights, `slots` times as many numbers, and `extra` of the row's
    own. `defaults` are the parameters in the order of `values`; names in `positive` must be > 0, in `below_one` < 1.
    With `squares` it also takes grads [u, 2 dim]: sums of gradients, then sums of the squares of the samples' own.
    """

    slots: int
    defaults: dict[str, float]
    apply: Kernel
    start: Start
    positive: tuple[str, ...] = ()
    aliases: dict[str, str] = field(default_factory=dict)
    squares: bool = False
    extra: int = 0
    below_one: tuple[str, ...] = ()

    def width(self, dim: int) -> int:
        """Numbers of a stored row of `dim` weights."""
        return dim * (1 + self.slots) + self.extra

    def values(self, params: Mapping[str, float]) -> np.ndarray:
        """float32[p] of `params` over the defaults. Raises ValueError for an unknown name or a number out of range."""
        merged = dict(self.defaults)
        given: set[str] = set()
        for name, value in params.items():
            known = self.aliases.get(name, name)
            if known not in merged:
                raise ValueError(f"unknown parameter {name!r}; known: {', '.join(merged) or 'none'}")
            if known in given:
                raise ValueError(f"parameter {name!r} is given twice")
            if not math.isfinite(value) or value < 0 or (value == 0 and known in self.positive):
                raise ValueError(f"parameter {name!r} is {value}; it must be finite and {'> 0' if known in self.positive else '>= 0'}")
            if known in self.below_one and value >= 1:
                raise ValueError(f"parameter {name!r} is {value}; it must be below 1")
            given.add(known)
            merged[known] = float(value)
        return np.array(list(merged.values()), np.float32)


def _start_nothing(rows: np.ndarray, at: np.ndarray, dim: int, values: np.ndarray) -> None:
    """Slots begin at 0, as a new row does."""


OPTIMIZERS: dict[str, Optimizer] = {
    # w -= learning_rate (g + l2 w)
    "sgd": Optimizer(0, {"learning_rate": 0.05, "l2": 0.0}, kernels.apply_sgd, _start_nothing, ("learning_rate",)),
    # Polyak's heavy ball (1964): v = momentum v + g + l2 w; w -= learning_rate v
    "momentum": Optimizer(1, {"learning_rate": 0.05, "momentum": 0.9, "l2": 0.0}, kernels.apply_momentum, _start_nothing,
                          ("learning_rate",), below_one=("momentum",)),
    # Kingma, Ba (ICLR 2015), of the rows that have a gradient ("lazy")
    "adam": Optimizer(2, {"learning_rate": 0.001, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "l2": 0.0}, kernels.apply_adam,
                      _start_nothing, ("learning_rate", "epsilon"), extra=1, below_one=("beta1", "beta2")),
    # Duchi, Hazan, Singer (JMLR 2011), diagonal: n += g g; w -= learning_rate g / (sqrt(n) + epsilon)
    "adagrad": Optimizer(1, {"learning_rate": 0.05, "initial_accumulator": 0.0, "epsilon": 1e-8, "l2": 0.0}, kernels.apply_adagrad,
                         kernels.start_adagrad, ("learning_rate", "epsilon"), squares=True),
    # McMahan et al., Ad Click Prediction (KDD 2013), algorithm 1; learning_rate is another name for alpha
    "ftrl": Optimizer(2, {"alpha": 0.1, "beta": 1.0, "l1": 0.0, "l2": 0.0}, kernels.apply_ftrl, kernels.start_ftrl, ("alpha", "beta"),
                      {"learning_rate": "alpha"}, squares=True),
    # w += g: counters and histograms
    "sum": Optimizer(0, {}, kernels.apply_sum, _start_nothing),
}
