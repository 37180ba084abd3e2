"""The live curve: what the stream does to the model, read from outside every half second."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from headrace.models.progressive import MODEL, POPULARITY, keys_of, summary
from headrace.replay import Sent
from headrace.taps import Mark, Taps, moved

_BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Point:
    """One look: seconds since the start, rates since the look before, totals, figures of model and baseline."""

    seconds: float
    sent: int
    enriched: int
    samples: int
    applied: int
    ps_rows: int
    events_per_s: float
    samples_per_s: float
    auc: float | None
    auc_popularity: float | None
    logloss: float | None
    logloss_base_rate: float | None

    @property
    def lag(self) -> int:
        """Exposures sent and not yet learnt by the slowest shard."""
        return max(0, self.sent - self.applied)


@dataclass
class Curve:
    """Points since `mark`; `look` adds one, `text` draws them."""

    taps: Taps
    mark: Mark
    total: int
    clock: Callable[[], float] = time.monotonic
    points: list[Point] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._began = self.clock()

    def look(self, sent: Sent) -> Point:
        """Read the stack once."""
        stats = self.taps.stats()
        applied = min(now - before for now, before in zip(self.taps.applied(), self.mark.applied, strict=True))
        grown = {topic: moved(self.taps.highs(topic), self.mark.offsets[topic]) for topic in ("enriched", "samples")}
        model = summary(self.taps.counts(keys_of(MODEL)) - self.mark.total[MODEL])
        popularity = summary(self.taps.counts(keys_of(POPULARITY)) - self.mark.total[POPULARITY])
        seconds = self.clock() - self._began
        last = self.points[-1] if self.points else None
        since = max(seconds - (last.seconds if last else 0.0), 1e-6)
        point = Point(seconds, sent.impressions, grown["enriched"], grown["samples"], applied, sum(rows_of(one) for one in stats),
                      (grown["enriched"] - (last.enriched if last else 0)) / since, (applied - (last.applied if last else 0)) / since,
                      model["auc"], popularity["auc"], model["logloss"], model["logloss_base_rate"])
        self.points.append(point)
        return point

    def line(self) -> str:
        """The newest point as one line, for logs."""
        p = self.points[-1]
        return (f"{p.seconds:5.1f} s {p.applied:>7,} learnt {p.events_per_s:>6,.0f} events/s {p.samples_per_s:>6,.0f} samples/s "
                f"lag {p.lag:>6,} PS rows {p.ps_rows:>6,}  AUC {_figure(p.auc)} (popularity {_figure(p.auc_popularity)}) "
                f"log-loss {_figure(p.logloss)}")

    def text(self) -> Group:
        """Table and curve of the newest point, for a terminal."""
        p = self.points[-1]
        table = Table(show_header=False, box=None, padding=(0, 2))
        table.add_row("events/s", f"{p.events_per_s:,.0f}", "samples/s", f"{p.samples_per_s:,.0f}", "lag", f"{p.lag:,}", "PS rows",
                      f"{p.ps_rows:,}")
        table.add_row("learnt", f"{p.applied:,}/{self.total:,}", "AUC", _figure(p.auc), "popularity", _figure(p.auc_popularity),
                      "log-loss", f"{_figure(p.logloss)} (base rate {_figure(p.logloss_base_rate)})")
        return Group(table, Text.assemble(("  model       ", "bold"), (spark([q.auc for q in self.points]), "green")),
                     Text.assemble(("  popularity  ", "bold"), (spark([q.auc_popularity for q in self.points]), "yellow")))


def rows_of(header: dict[str, Any]) -> int:
    """Rows of all tables in a shard's stats header."""
    return sum(table["rows"] for model in header.get("models", {}).values() for table in model["tables"].values())


def spark(values: list[float | None], width: int = 64, low: float = 0.5, high: float = 0.8) -> str:
    """The values between `low` and `high` as bars, the newest `width` of them thinned evenly."""
    shown = [value for value in values if value is not None]
    if len(shown) > width:
        shown = [shown[i * len(shown) // width] for i in range(width)]
    top = len(_BARS) - 1
    return "".join(_BARS[max(0, min(top, round((value - low) / (high - low) * top)))] for value in shown)


def _figure(value: float | None) -> str:
    return "  -  " if value is None else f"{value:.3f}"
