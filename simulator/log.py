"""A log of the world under an editor: lists by freshness and quality, blind to the user's taste, with chance so that all is tried."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headrace.simulator.actions import Outcome
from headrace.simulator.dice import generator
from headrace.simulator.sessions import NONE
from headrace.simulator.world import World

EDITOR_NOISE = 1.0  # standard deviation in log-odds, beside qualities of 0.6


@dataclass(frozen=True)
class Log:
    """n exposures in time order (all columns [n]): request, user, item, position, ts_ms int64; attraction, examination float64, the truth;
    outcome; logged bool: False within an outage; label bool, as reported and in its window. best float64[R]: expected clicks of each
    request's best list; shown float64[R]: of the list that was shown."""

    request: np.ndarray
    user: np.ndarray
    item: np.ndarray
    position: np.ndarray
    ts_ms: np.ndarray
    attraction: np.ndarray
    examination: np.ndarray
    outcome: Outcome
    logged: np.ndarray
    label: np.ndarray
    best: np.ndarray
    shown: np.ndarray

    def __len__(self) -> int:
        return len(self.item)


def write(world: World) -> Log:
    """The log of all requests. A label is what was reported within the attribution window; exposures of an outage are not logged."""
    requests, slots = world.requests, world.slots
    truth = world.candidate_probabilities()
    chosen = _lists(world)
    there = chosen != NONE
    request, position = np.nonzero(there)
    place = chosen[request, position]
    item, user, ts_ms = requests.candidates[request, place].astype(np.int64), requests.user[request], requests.ts_ms[request]
    outcome = world.answer(request, item, position, ts_ms, user)
    attraction = truth[request, place]
    window_ms = world.scenario.actions.window_s * 1000
    label = outcome.reported & (outcome.delay_ms <= window_ms)
    shown = np.zeros((len(requests), slots))
    shown[request, position] = attraction
    return Log(request, user, item, position, ts_ms, attraction, world.model.examination(position), outcome, ~world.lost(ts_ms), label,
               world.optimum(truth), world.expected(shown))


def _lists(world: World) -> np.ndarray:
    """int64[R, slots]: which of its candidates each request shows, NONE where there are too few; bots are shown the spam, in order."""
    requests, items = world.requests, world.items
    there = requests.candidates != NONE
    item = np.maximum(requests.candidates, 0)
    age_h = world.age_h(item, requests.ts_ms[:, None])
    score = items.quality[item] + np.exp(-age_h / 24) + EDITOR_NOISE * generator(world.seed, "editor").gumbel(size=item.shape)
    score = np.where(there, np.where(requests.bot[:, None], -item.astype(float), score), -np.inf)
    order = np.argsort(-score, axis=1, kind="stable")[:, : world.slots]
    return np.where(np.take_along_axis(there, order, axis=1), order, NONE)
