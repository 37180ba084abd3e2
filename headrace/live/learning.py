"""Is it learning: progressive AUC and log-loss by window, now and a day ago, and over the last minute.

A window is a stretch of offsets of `interactions` (models/progressive.py), so the clock times of its ends are asked of Kafka: where the
furthest partition was at some times, and in between by straight lines.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence

import numpy as np

from headrace.engine.console.figures import Learning, Point, Window
from headrace.models.progressive import MODEL, POPULARITY, keys_of, summary
from headrace.taps import Offsets

DAY_MS = 86_400_000
WINDOWS_MAX, BLOCK, KEPT = 40, 4, 400
TRAIL_MS, SCORED_MIN = 60_000, 30
YESTERDAY_EVERY_MS, YESTERDAY_TIMES = 60_000, 25
AGES_MS = tuple(int(age) for age in np.geomspace(1000, 8 * DAY_MS, 48))
YOUNG = "Kafka's log of interactions does not reach back 24 hours: the curve of yesterday comes tomorrow at this time."
Figures = tuple[int, float | None, float | None, float | None, float | None]


class LearningLook:
    """`marks()` -> (first offset kept, next offset) by partition of interactions, `since_each(times)` -> at each of these times the next
    offset by partition, `counts(keys uint64[n])` -> int64[n] of the model's metrics. What a window that ended `settle_ms` ago says does not
    change any more: it is asked once. `note`: what is to be known of the figures."""

    def __init__(self, model: str, window_offsets: int, settle_ms: int, marks: Callable[[], dict[int, tuple[int, int]]],
                 since_each: Callable[[Sequence[int]], list[Offsets]], counts: Callable[[np.ndarray], np.ndarray],
                 now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000, note: str = "") -> None:
        self._note = note
        self._model, self._window_offsets, self._settle_ms = model, window_offsets, settle_ms
        self._marks, self._since_each, self._counts, self._now_ms = marks, since_each, counts, now_ms
        self._ends: dict[int, int] = {}
        self._settled: OrderedDict[int, Figures] = OrderedDict()
        self._trail: deque[tuple[int, np.ndarray, np.ndarray]] = deque()
        self._yesterday: tuple[int, list[Window], str] = (0, [], YOUNG)

    def __call__(self) -> tuple[Learning, Point]:
        now_ms, marks = self._now_ms(), self._marks()
        model, popularity = (self._counts(keys_of(series)) for series in (MODEL, POPULARITY))
        total = summary(model)
        recent = self._recent(now_ms, model, popularity)
        windows = self._windows(now_ms, marks)
        if windows and now_ms - self._yesterday[0] > YESTERDAY_EVERY_MS:
            self._yesterday = (now_ms, *self._before(now_ms, windows[0].t_ms, marks))
        learnt = int(total["samples"] or 0)
        said = Learning(self._model, windows, self._yesterday[1], self._yesterday[2], recent, learnt, int(total["positives"] or 0),
                        self._note)
        scored = recent if recent is not None and recent.samples >= SCORED_MIN else None
        names = ("auc", "logloss", "popularity_auc", "popularity_logloss")
        return said, {"learnt": learnt, **{name: getattr(scored, name) if scored else None for name in names}}

    def _recent(self, now_ms: int, model: np.ndarray, popularity: np.ndarray) -> Window | None:
        """What was learnt since the look of a minute ago; counts that fell are of another parameter server."""
        if self._trail and int(self._trail[-1][1].sum()) > int(model.sum()):
            self._trail.clear()
        while self._trail and now_ms - self._trail[0][0] > TRAIL_MS:
            self._trail.popleft()
        first = self._trail[0] if self._trail else None
        self._trail.append((now_ms, model, popularity))
        if first is None:
            return None
        figures = _figures(model - first[1], popularity - first[2])
        return Window(now_ms, *figures) if figures[0] else None

    def _windows(self, now_ms: int, marks: dict[int, tuple[int, int]]) -> list[Window]:
        high = max((high for _, high in marks.values()), default=0)
        newest = (high - 1) // self._window_offsets
        wanted = list(range(max(0, newest - WINDOWS_MAX + 1), newest + 1))
        ends = self._ended([window for window in wanted if window < newest], now_ms, high) | {newest: now_ms}
        everywhere = min((high for _, high in marks.values()), default=0) // self._window_offsets  # the first that a partition is in
        settled = {window for window in wanted if window < everywhere and now_ms - ends[window] > self._settle_ms}
        return [Window(ends[window], *figures) for window, figures in self._scored(wanted, settled).items() if figures[0]]

    def _ended(self, windows: list[int], now_ms: int, high: int) -> dict[int, int]:
        """When the furthest partition left each of the windows."""
        if any(window not in self._ends for window in windows):
            times = [now_ms - age for age in reversed(AGES_MS)]
            found = _crossed([*times, now_ms], [*map(_furthest, self._since_each(times)), high],
                             [(window + 1) * self._window_offsets for window in windows])
            self._ends = dict(zip(windows, found, strict=True)) | {window: self._ends[window] for window in windows if window in self._ends}
        return {window: self._ends[window] for window in windows}

    def _before(self, now_ms: int, start_ms: int, marks: dict[int, tuple[int, int]]) -> tuple[list[Window], str]:
        """Windows between `start_ms` and now, of the day before, their ends a day later; and why there are none."""
        times = np.linspace(start_ms - DAY_MS, now_ms - DAY_MS, YESTERDAY_TIMES).astype(np.int64).tolist()
        offsets = self._since_each(times)
        if all(offset <= marks[partition][0] for partition, offset in offsets[-1].items() if partition in marks):
            return [], YOUNG
        places = [_furthest(one) for one in offsets]
        reached = np.arange(places[0] // self._window_offsets, places[-1] // self._window_offsets + 1)
        if len(reached) > WINDOWS_MAX:  # yesterday was busier: every so manieth tells the same
            reached = reached[np.linspace(0, len(reached) - 1, WINDOWS_MAX).astype(np.int64)]
        windows = reached.tolist()
        ends = _crossed(times, places, [(window + 1) * self._window_offsets for window in windows])
        scored = self._scored(windows, set(windows))
        ended = [min(at_ms + DAY_MS, now_ms) for at_ms in ends]
        found = [Window(at_ms, *scored[window]) for window, at_ms in zip(windows, ended, strict=True) if scored[window][0]]
        return found, "" if found else "24 hours ago nothing was learnt."

    def _scored(self, windows: list[int], settled: set[int]) -> dict[int, Figures]:
        """The figures of each window; those of `settled` are kept."""
        open_ones = [window for window in windows if window not in self._settled]
        found = {}
        for start in range(0, len(open_ones), BLOCK):
            part = open_ones[start : start + BLOCK]
            keys = [keys_of(series, window) for window in part for series in (MODEL, POPULARITY)]
            counts = np.split(self._counts(np.concatenate(keys)), 2 * len(part))
            found.update({window: _figures(counts[2 * i], counts[2 * i + 1]) for i, window in enumerate(part)})
        self._settled.update({window: figures for window, figures in found.items() if window in settled})
        while len(self._settled) > KEPT:
            self._settled.popitem(last=False)
        return {window: found.get(window) or self._settled[window] for window in windows}


def _figures(model: np.ndarray, popularity: np.ndarray) -> Figures:
    ours, theirs = summary(model), summary(popularity)
    return int(ours["samples"] or 0), ours["auc"], ours["logloss"], theirs["auc"], theirs["logloss"]


def _furthest(offsets: Offsets) -> int:
    return max(offsets.values(), default=0)


def _crossed(times_ms: Sequence[int], places: Sequence[int], wanted: Sequence[int]) -> list[int]:
    """When each of `wanted` offsets was reached, places[i] being reached at times_ms[i]; both ascend."""
    return [int(at) for at in np.interp(wanted, np.maximum.accumulate(places), times_ms)]
