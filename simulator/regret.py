"""Figures against the truth: regret by window, and calibration of scores."""

from __future__ import annotations

from typing import Any

import numpy as np


def windows(day: np.ndarray, best: np.ndarray, shown: np.ndarray, width_days: float = 1.0) -> list[dict[str, Any]]:
    """By window of simulated days: requests, and mean expected clicks a request of the best list, of the shown one, and the difference.

    day, best, shown float64[R].
    """
    number = (day // width_days).astype(np.int64)
    found = []
    for window in np.unique(number).tolist():
        at = number == window
        b, s = float(best[at].mean()), float(shown[at].mean())
        found.append({"day": round(window * width_days, 4), "requests": int(at.sum()), "best": round(b, 6), "shown": round(s, 6),
                      "regret": round(b - s, 6)})
    return found


def calibration(score: np.ndarray, truth: np.ndarray, bins: int = 10) -> dict[str, Any]:
    """How scores stand to true probabilities of a click, both float64[n]: `ratio` of their means (1 is right), `error` the mean absolute
    difference within `bins` bins of equal counts (the expected calibration error, against the truth and not against labels), and the root
    mean square difference of single exposures. None where there is no score."""
    if not len(score):
        return {"exposures": 0, "ratio": None, "error": None, "rmse": None}
    order = np.argsort(score, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    error = sum(len(part) * abs(float(score[part].mean() - truth[part].mean())) for part in parts) / len(order)
    ratio = float(score.mean() / truth.mean()) if truth.mean() > 0 else None
    return {"exposures": len(score), "ratio": ratio, "error": error, "rmse": float(np.sqrt(np.mean((score - truth) ** 2)))}
