"""The demo: stack, jobs, MovieLens 100K in time order, the live curve, the effect at four fifths of the stream, the accounts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import pyarrow.parquet
from rich.console import Console
from rich.live import Live

from headrace import movielens, replay_run, submission
from headrace.access import given
from headrace.api import Client
from headrace.choice import choice_of
from headrace.clock import StackClock
from headrace.config import Config, Watch
from headrace.demo.accounts import accounts
from headrace.demo.curve import Curve
from headrace.demo.effect import CLICKED, PASSED, Effect, Front, Plain, measure
from headrace.demo.tell import accounts_table, effect_sentence, effect_table, memory_table
from headrace.drain import Progress
from headrace.live_taps import live_taps
from headrace.own_stack import UNJUDGED, own_stack
from headrace.replay import Sent, now_ms
from headrace.rows import Rows, load
from headrace.schemas import mapping
from headrace.status import rows as processes
from headrace.taps import Mark, Taps
from headrace.watch import figures

JOBS = ["features", "samples", "train", "vectors"]
LOOK_S = 0.5
LINE_S = 5.0
USER, GENRE = "you", "Children's"


class DemoFailed(Exception):
    """A part of the demo did not do what it shows; the message says which and where to look."""


@dataclass
class Films:
    """Titles, genres and the films of each genre, most rated first; of MovieLens."""

    titles: dict[str, str]
    by_genre: dict[str, list[str]]
    seen: dict[str, set[str]]

    @classmethod
    def of(cls, file: Path) -> Films:
        table = pyarrow.parquet.read_table(file, columns=["user_id", "item_id", "title", "genre"]).to_pydict()
        count: dict[str, int] = {}
        titles, genres, seen = {}, {}, dict[str, set[str]]()
        for user, item, title, genre in zip(table["user_id"], table["item_id"], table["title"], table["genre"], strict=True):
            count[item] = count.get(item, 0) + 1
            titles[item], genres[item] = title, genre.split("|")
            seen.setdefault(user, set()).add(item)
        by_genre: dict[str, list[str]] = {}
        for item in sorted(count, key=lambda item: -count[item]):
            for genre in genres[item]:
                by_genre.setdefault(genre, []).append(item)
        return cls(titles, by_genre, seen)

    def without(self, genre: str) -> list[str]:
        """The films of other genres alone, those of the largest genres first, each genre's most rated in turn."""
        inside, others = set(self.by_genre[genre]), sorted(self.by_genre.values(), key=len, reverse=True)
        in_turn = chain.from_iterable(zip_longest(*others))
        return list(dict.fromkeys(item for item in in_turn if item is not None and item not in inside))


@dataclass
class Demo:
    """One run of the demo on a stack that is up; `rate` rows a second are sent."""

    config: Config
    console: Console
    rows: Rows
    films: Films
    rate: float
    taps: Taps
    mark: Mark
    front: Front
    effect: Effect | None = None
    curve: Curve = field(init=False)

    def __post_init__(self) -> None:
        self.curve = Curve(self.taps, self.mark, len(self.rows) + CLICKED + PASSED)
        self._sent, self._began, self._lined = Sent(), time.monotonic(), 0.0

    def run(self, file: str) -> dict[str, Any]:
        """Replay, with the effect in the middle; the report."""
        with self._live() as show:
            self._show = show
            watch = replay_run.Watch(self._on_sent, self._on_drained)
            return replay_run.run(self.config, self.rows, file, clock="now", watch=watch, also=self._with_clicks)

    def _on_sent(self, sent: Sent) -> None:
        """Keep to the rate, look at the stack while waiting, and do the effect once four fifths are through."""
        self._sent = sent
        due = self._began + sent.rows / self.rate
        while True:
            self._look()
            left = due - time.monotonic()
            if left <= 0:
                break
            time.sleep(min(left, LOOK_S))
        if self.effect is None and sent.rows >= len(self.rows) * 4 // 5:
            with closing(StackClock(**given(self.config.engine))) as clock:
                clock.set("now", now_ms(), hold_ms=0)  # nothing is being sent now: event time is the engine's again
            self._drain(sent)
            self.effect = self._measure()
            self.console.print(effect_table(self.effect, self.films.titles))
            self.console.print(effect_sentence(self.effect))
            self._began += time.monotonic() - due

    def _on_drained(self, sent: Sent, at: Progress) -> None:
        self._sent = sent
        self._look()

    def _with_clicks(self, sent: Sent) -> Sent:
        return replace(sent, impressions=sent.impressions + CLICKED + PASSED, actions=sent.actions + CLICKED) if self.effect else sent

    def _drain(self, sent: Sent, deadline_s: float = 60.0) -> None:
        """Wait until all that was sent so far is learnt."""
        until, before = time.monotonic() + deadline_s, -1
        while (learnt := min(self.taps.applied()) - min(self.mark.applied)) < sent.impressions:
            if learnt > before:  # a busy machine is slow: only standing still is a failure
                until, before = time.monotonic() + deadline_s, learnt
            if time.monotonic() > until:
                raise DemoFailed(f"{learnt:,} of {sent.impressions:,} samples are learnt, and none more for {deadline_s:.0f} s;"
                                 " `headrace jobs logs train` may say why")
            self._look()
            time.sleep(0.1)

    def _measure(self) -> Effect:
        """On a user whom nobody has seen: all that is known of them is what the demo shows."""
        return measure(self.front, USER, GENRE, self.films.by_genre[GENRE], set(), lambda: min(self.taps.applied()),
                       others=self.films.without(GENRE))

    def _look(self) -> None:
        now = time.monotonic()
        if self.curve.points and now - self.curve._began - self.curve.points[-1].seconds < LOOK_S:
            return
        self.curve.look(self._sent)
        self._show()

    @contextmanager
    def _live(self) -> Iterator[Any]:
        """On a terminal the curve is redrawn in place; elsewhere a line comes every few seconds."""
        if self.console.is_terminal:
            with Live(console=self.console, refresh_per_second=4) as live:
                yield lambda: live.update(self.curve.text())
            return

        def line() -> None:
            if time.monotonic() - self._lined >= LINE_S:
                self._lined = time.monotonic()
                self.console.print(self.curve.line(), highlight=False)

        yield line


def run(data: Path, console: Console, *, limit: int | None = None, rate: float = 2500.0, keep: bool = False,
        shuffle: int | None = None) -> dict[str, Any]:
    """The whole demo in data folder `data`; its JSON. Raises DemoFailed when the accounts do not agree."""
    began = time.monotonic()
    folder = data.parent / "data" / movielens.NAME
    console.print(f"MovieLens 100K in {folder} (GroupLens's terms: research use, no redistribution; TERMS.txt there)")
    file, _ = movielens.get(folder)
    rows = load(file, mapping.load(folder / "mapping.toml"))
    rows = rows.first(limit) if limit else rows
    rows = rows.shuffled(shuffle) if shuffle is not None else rows

    def say(text: str) -> None:
        console.print(text, highlight=False)

    settings = {**UNJUDGED, "watch": {"enabled": Watch().enabled or find_spec("river") is not None}}
    with own_stack(data, say, keep, settings) as config, live_taps(config) as taps:
        began_jobs = time.monotonic()
        submission.submit(config, JOBS)
        console.print(f"jobs {', '.join(JOBS)} run after {time.monotonic() - began_jobs:.1f} s")
        ready_s = time.monotonic() - began
        memory = processes(config.stack.data_dir) or []
        console.print(memory_table(memory))
        demo = Demo(config, console, rows, Films.of(file), rate, taps, Mark.of(taps), Plain(Client(**given(config.engine))))
        report = demo.run(str(file))
        clicks = CLICKED if demo.effect else 0
        checks = accounts(report, rows, clicks, taps, demo.mark, config.ps.reachable, choice_of(config))
        _tell(console, demo, report, checks)
        watched = figures.read(config.watch.http_port)
        console.print(watched.sentence(served=False) if watched else
                      "watch: River is not installed, or nobody answers; pip install 'headrace[watch]'")
        if keep:
            console.print(f"the stack stays up: engine {config.engine.url}, Flink {config.flink.url}, Kafka {config.kafka.bootstrap};"
                          f" `headrace down --data {data}` stops it")
    result = report | {"ready_seconds": round(ready_s, 1), "accounts": checks, "memory_mb": sum(row["memory_mb"] for row in memory),
                       "memory": {row["name"]: row["memory_mb"] for row in memory}, "effect": _effect(demo.effect),
                       "watch": asdict(watched) if watched else None, "curve": [point.__dict__ for point in demo.curve.points]}
    if not all(check["agree"] for check in checks):
        raise DemoFailed("; ".join(f"{c['account']}: {c['left']} against {c['right']}" for c in checks if not c["agree"]))
    return result


def _tell(console: Console, demo: Demo, report: dict[str, Any], checks: list[dict[str, Any]]) -> None:
    console.print(accounts_table(checks))
    console.print(f"progressive AUC {report['auc']:.4f} (popularity {report['auc_popularity']:.4f}), log-loss {report['logloss']:.4f} "
                  f"(base rate {report['logloss_base_rate']:.4f}), calibration {report['calibration']:.3f}; {report['samples']:,} samples"
                  f" in {report['seconds']:.0f} s")


def _effect(effect: Effect | None) -> dict[str, Any] | None:
    if effect is None:
        return None
    return {"user": effect.user, "genre": effect.genre, "clicked": effect.clicked, "passed": effect.passed,
            "seconds": round(effect.seconds, 3), "rise": effect.rise,
            "before": [row["item_id"] for row in effect.before], "after": [row["item_id"] for row in effect.after]}
