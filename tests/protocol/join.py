"""The samples job in miniature: one partition's exposures and actions, a clock of event time, samples out. Repetitions change nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tests.protocol.plan import CLICK, IMPRESSION, OUT_OF_ORDER_MS, WINDOW_MS

if TYPE_CHECKING:
    from tests.protocol.jobs import Enriched


class Sample(NamedTuple):
    cause: tuple[int, int]
    label: int
    keys: bytes
    values: bytes
    numbers: bytes


class Join:
    """`wait`: a sample when its window has closed. `eager`: a positive as its action comes, a negative at the close, and a late positive
    as a second sample of the same cause, which whoever learns must drop."""

    def __init__(self, eager: bool) -> None:
        self.eager = eager
        self.clock_ms: float = -1
        self.exposures: dict[tuple[int, int], Enriched] = {}
        self.clicks: dict[tuple[int, int], Enriched] = {}
        self.labels: dict[tuple[int, int], int] = {}

    def copy(self) -> Join:
        """What a checkpoint keeps."""
        made = Join(self.eager)
        made.clock_ms = self.clock_ms
        made.exposures, made.clicks, made.labels = dict(self.exposures), dict(self.clicks), dict(self.labels)
        return made

    def take(self, record: Enriched) -> list[Sample]:
        """The samples that a record brings about."""
        event = record.event
        late = event.ts_ms <= self.clock_ms
        if event.action == IMPRESSION and not late:
            self.exposures.setdefault(event.cause, record)
        if event.action == CLICK and (self.eager or not late):
            self.clicks.setdefault(event.cause, record)
        out = self._positives(record) if self.eager else []
        self.clock_ms = max(self.clock_ms, event.ts_ms - OUT_OF_ORDER_MS)
        return out + self._closed()

    def close(self) -> list[Sample]:
        """What is left when event time has come to its end."""
        self.clock_ms = float("inf")
        return self._closed()

    def _positives(self, record: Enriched) -> list[Sample]:
        """A record brings an exposure its click, or a click its exposure."""
        event = record.event
        clicks = [record] if event.action == CLICK else [c for c in self.clicks.values() if c.event.request == event.event]
        shown = [c for c, e in self.exposures.items() if c == event.cause or e.event.event == event.request]
        return [self._made(cause, 1) for cause in shown
                if self.labels.get(cause) != 1 and any(_within(self.exposures[cause], click) for click in clicks)]

    def _closed(self) -> list[Sample]:
        due = [cause for cause, exposure in self.exposures.items()
               if cause not in self.labels and exposure.event.ts_ms + WINDOW_MS <= self.clock_ms]
        due.sort(key=lambda cause: (self.exposures[cause].event.ts_ms, cause))
        return [self._made(cause, 0 if self.eager else self._label(cause)) for cause in due]

    def _label(self, cause: tuple[int, int]) -> int:
        """1 when an action within the window has this exposure for its latest."""
        mine = self.exposures[cause]
        for click in self.clicks.values():
            if _same(mine, click) and _within(mine, click):
                shown = [one.event for one in self.exposures.values() if _same(one, click) and one.event.ts_ms <= click.event.ts_ms]
                if max(shown, key=lambda event: (event.ts_ms, event.offset)).cause == cause:
                    return 1
        return 0

    def _made(self, cause: tuple[int, int], label: int) -> Sample:
        self.labels[cause] = label
        exposure = self.exposures[cause]
        return Sample(cause, label, exposure.keys, exposure.values, exposure.numbers)


def _same(one: Enriched, other: Enriched) -> bool:
    return (one.event.user, one.event.item) == (other.event.user, other.event.item)


def _within(exposure: Enriched, click: Enriched) -> bool:
    return 0 <= click.event.ts_ms - exposure.event.ts_ms <= WINDOW_MS
