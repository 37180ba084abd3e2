"""What a user does with what was shown: clicks, and what follows them, some of it late, some of it wrong."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from headrace.simulator.dice import uniforms
from headrace.simulator.scenario import Actions

FOLLOWING = ("like", "comment", "repost", "follow")
PURPOSES = ("examine", "attract", "poison", "delay.a", "delay.b", "dwell.a", "dwell.b", *FOLLOWING, "hide")


class Outcome(NamedTuple):
    """n exposures: examined bool[n], clicked bool[n] as it happened, reported bool[n] as the log is told (poisoned labels turn it),
    delay_ms int64[n] from the exposure to the click, dwell_s float64[n], and bool[n] of the rarer actions (0 where not clicked)."""

    examined: np.ndarray
    clicked: np.ndarray
    reported: np.ndarray
    delay_ms: np.ndarray
    dwell_s: np.ndarray
    like: np.ndarray
    comment: np.ndarray
    repost: np.ndarray
    follow: np.ndarray
    hide: np.ndarray

    def of(self, n: int) -> list[tuple[str, float, int]]:
        """(action, value, milliseconds after the exposure) that is reported of exposure n, in the order of time."""
        after = int(self.delay_ms[n])
        if not self.reported[n]:
            return [("hide", 1.0, after)] if self.hide[n] else []
        dwell_s = float(self.dwell_s[n])
        done = [("click", 1.0, after)]
        done += [(name, 1.0, after + int(500 * dwell_s)) for name in FOLLOWING if getattr(self, name)[n]]
        return [*done, ("dwell", round(dwell_s, 1), after + int(1000 * dwell_s))]


def outcomes(settings: Actions, seed: int, request: np.ndarray, item: np.ndarray, attraction: np.ndarray, examination: np.ndarray,
             poisoned: np.ndarray) -> Outcome:
    """What becomes of n exposures: request, item int64[n], attraction and examination float64[n], poisoned float64[n] the share of labels
    that are turned at their time. The same exposure has the same outcome, whoever chose it."""
    chance = dict(zip(PURPOSES, uniforms(seed, PURPOSES, request, item), strict=True))
    examined = chance["examine"] < examination
    clicked = examined & (chance["attract"] < attraction)
    reported = clicked ^ (chance["poison"] < poisoned)
    delay_s = settings.delay_s * np.exp(settings.delay_sigma * _normal(chance["delay.a"], chance["delay.b"]))
    dwell_s = settings.dwell_s * np.exp(0.8 * _normal(chance["dwell.a"], chance["dwell.b"]))
    rarer = {name: reported & (chance[name] < getattr(settings, name)) for name in FOLLOWING}
    hide = examined & ~clicked & ~reported & (chance["hide"] < settings.hide)
    return Outcome(examined, clicked, reported, np.rint(delay_s * 1000).astype(np.int64), dwell_s, **rarer, hide=hide)


def _normal(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Normal numbers of two uniform ones (Box and Muller 1958)."""
    return np.sqrt(-2 * np.log1p(-a)) * np.cos(2 * np.pi * b)
