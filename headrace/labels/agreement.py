"""How far labellers agree: Krippendorff's alpha of all ("Computing Krippendorff's Alpha-Reliability", 2011), Cohen's kappa of two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import combinations
from typing import NamedTuple

from headrace.labels.label import Label, Unit


class Pair(NamedTuple):
    """Two labellers: units that both have labelled, the share on which they say the same, kappa (None: by chance too they could not
    differ)."""

    first: str
    second: str
    units: int
    same: float
    kappa: float | None


class Agreement(NamedTuple):
    """Of one target: units labelled, and twice or more; alpha, 1 when all say the same, 0 as by chance (None: all labels are one value,
    or nothing is labelled twice); pairs with a unit in common."""

    target: str
    units: int
    twice: int
    alpha: float | None
    pairs: list[Pair]


def agreement(labels: Iterable[Label]) -> list[Agreement]:
    """By target, of newest labels."""
    said: dict[str, dict[Unit, dict[str, float]]] = {}
    for one in labels:
        said.setdefault(one.unit.target, {}).setdefault(one.unit, {})[one.labeller] = one.label
    values = {target: [list(one.values()) for one in units.values()] for target, units in said.items()}
    return [Agreement(target, len(units), sum(len(one) > 1 for one in values[target]), alpha(values[target]), _pairs(units))
            for target, units in sorted(said.items())]


def alpha(units: Iterable[list[float]]) -> float | None:
    """Of the labels of each unit, with squared differences: for labels of 0 and 1 the nominal alpha, for numbers the interval one."""
    paired = [one for one in units if len(one) > 1]
    values = [value for one in paired for value in one]
    expected = _squares(values) / (len(values) - 1) if paired else 0.0
    if expected == 0.0:
        return None
    return 1.0 - sum(_squares(one) / (len(one) - 1) for one in paired) / expected


def _squares(values: list[float]) -> float:
    """Sum of the squared differences of all ordered pairs."""
    mean = sum(values) / len(values)
    return 2.0 * len(values) * sum((value - mean) ** 2 for value in values)


def _pairs(units: dict[Unit, dict[str, float]]) -> list[Pair]:
    common: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for said in units.values():
        for first, second in combinations(sorted(said), 2):
            common.setdefault((first, second), []).append((said[first], said[second]))
    return [Pair(*names, len(both), sum(a == b for a, b in both) / len(both), kappa(both)) for names, both in sorted(common.items())]


def kappa(both: list[tuple[float, float]]) -> float | None:
    """Cohen's, of the labels that two have given to the same units."""
    n = len(both)
    first, second = Counter(a for a, _ in both), Counter(b for _, b in both)
    chance = sum(first[value] * second[value] for value in first) / (n * n)
    return None if chance == 1.0 else (sum(a == b for a, b in both) / n - chance) / (1.0 - chance)
