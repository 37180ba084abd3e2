"""The click model: what is true of a user, an item and a moment.

An exposure is clicked when it is examined and attracts. The two are independent: the position-based model (Craswell, Zoeter, Taylor and
Ramsey, "An Experimental Comparison of Click Position-Bias Models", WSDM 2008). Place k from 0 is examined with probability
(1 + k) ** -power, the form that Joachims, Swaminathan and Schnabel fitted to feeds ("Unbiased Learning-to-Rank with Biased Feedback",
WSDM 2017). Attraction is logistic:

    logit = base + (taste of the user at the time + trend of all) . topics of the item + quality of the item
          + bonus for an author whom the user likes + bonus exp(-age / fresh) + daypart . topics + penalty for a language not the user's

Topic vectors with a user's affinity, drifting with time, and quality that is not observed are RecSim's design (Ie et al., "RecSim", 2019).
The probability does not depend on what was shown before or beside: then the best list is the one sorted by it, and regret is plain.
"""

from __future__ import annotations

import numpy as np

from headrace.simulator.dice import generator
from headrace.simulator.items import HOUR_MS, Items
from headrace.simulator.scenario import Scenario
from headrace.simulator.tastes import Drift
from headrace.simulator.users import Users

DAYPARTS = ("night", "morning", "afternoon", "evening")


class ClickModel:
    """Probabilities of users, items and times; all arguments are int64[n] or broadcast to it."""

    def __init__(self, scenario: Scenario, seed: int, users: Users, items: Items, drift: Drift) -> None:
        self._settings, self._users, self._items, self._drift = scenario.clicks, users, items, drift
        self._daypart = generator(seed, "daypart").normal(0.0, self._settings.daypart_scale, (len(DAYPARTS), scenario.size.topics))

    def attraction(self, user: np.ndarray, item: np.ndarray, ts_ms: np.ndarray) -> np.ndarray:
        """float64[n]: probability of a click given that the item is examined; 0 for an item that is not alive."""
        user, item, ts_ms = np.broadcast_arrays(user, item, ts_ms)
        settings, items, step = self._settings, self._items, self._drift.step(ts_ms)
        taste = self._drift.users[step, user] + self._drift.trend[step] + self._daypart[daypart(ts_ms)]
        age_h = np.maximum(0, ts_ms - items.born_ms[item]) / HOUR_MS
        liked = (self._users.favourites[user] == items.author[item][..., None]).any(axis=-1)
        logit = (settings.base + (taste * items.topics[item]).sum(axis=-1) + items.quality[item] + settings.author_bonus * liked
                 + settings.fresh_bonus * np.exp(-age_h / settings.fresh_h)
                 + settings.foreign_language * (self._users.language[user] != items.language[item]))
        alive = (items.born_ms[item] <= ts_ms) & (ts_ms < items.dies_ms[item])
        return alive / (1 + np.exp(-logit))

    def examination(self, position: np.ndarray) -> np.ndarray:
        """float64[n]: probability that places from 0 are looked at."""
        return (1.0 + np.asarray(position)) ** -self._settings.position_power


def daypart(ts_ms: np.ndarray) -> np.ndarray:
    """int64[n] into DAYPARTS: quarters of the day, UTC."""
    return np.asarray(ts_ms) // (6 * HOUR_MS) % len(DAYPARTS)
