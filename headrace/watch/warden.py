"""Features watched on the live stream, and what is found done: told, noted with the feature service, frozen to their defaults."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from prometheus_client.core import Metric

from headrace.features.feature_set import FeatureSet
from headrace.features.masks import ALARM, CALM, FREEZE
from headrace.rpc.errors import RpcError
from headrace.watch.exposed import Rate, Records, Share
from headrace.watch.feature_figures import exported
from headrace.watch.feature_quality import FeatureQuality, Finding

log = logging.getLogger(__name__)
WATCH = "watch"
STATE = "state.json"
SAVE_TURNS = 12  # a state is written so often, and when something was found


class Decisions(Protocol):
    """features.client.FeatureClient."""

    def masks(self) -> dict[str, Any]: ...

    def decide(self, decision: str, feature: str, by: str, why: str) -> bool: ...


class Warden:
    """`expose` takes records of `enriched`, `happen` those of `interactions`, `turn` is called once an interval; each on a thread of its
    own. `share` chooses the exposures, `rate` how many events are looked at. State lies in `folder`. `masked` are the features that are
    frozen, as of the last turn."""

    def __init__(self, feature_set: FeatureSet, quality: FeatureQuality, decisions: Decisions, share: Share, rate: Rate,
                 folder: Path, now_ms: Callable[[], int]) -> None:
        self._set, self.quality, self._decisions, self._share, self._rate = feature_set, quality, decisions, share, rate
        self._folder, self._now_ms = folder, now_ms
        self._lock = threading.Lock()
        self._undone: list[Finding] = []
        self._resets: dict[str, int] = {}
        self._turns = 0
        self.masked: tuple[str, ...] = ()
        self._restore()

    def expose(self, records: Records) -> None:
        chosen = [record for record in self._share.chosen(records)[0] if record["feature_set"] == self._set.name]
        if chosen:
            rows = [np.frombuffer(b"".join(record[name] for record in chosen), kind).reshape(len(chosen), -1) for name, kind in (
                ("feature_keys", "<u8"), ("feature_values", "<f4"), ("numbers", "<f4"))]
            with self._lock:
                self.quality.add(*rows)

    def happen(self, records: Records) -> None:
        with self._lock:
            self.quality.sources.add(records[: self._rate.taken(len(records))])

    def turn(self) -> list[Finding]:
        """An interval is over. What could not be told the feature service is told at the next turn."""
        self._ask()
        with self._lock:
            found = self.quality.turn(self._now_ms())
        for one in found:
            log.warning("feature %s: %s: %s", one.feature, one.bound, one.why)
        waiting, self._undone = [*self._undone, *found], []
        for place, one in enumerate(waiting):
            try:
                self._do(one)
            except RpcError as error:
                log.error("the feature service was not told of %d findings, tried again: %s", len(waiting) - place, error)
                self._undone = waiting[place:]
                break
        self._turns += 1
        if found or self._turns % SAVE_TURNS == 0:
            self._save()
        return found

    def keep_turning(self, stop: threading.Event) -> None:
        """`turn` every interval until `stop`."""
        while not stop.wait(self.quality.limits.interval_s):
            try:
                self.turn()
            except Exception:
                log.exception("features could not be judged; again in %.0f s", self.quality.limits.interval_s)

    def collect(self) -> Iterator[Metric]:
        """For Prometheus."""
        with self._lock:
            yield from exported(self.quality, self.masked)

    def _do(self, found: Finding) -> None:
        self._decisions.decide(ALARM if found.broken else CALM, found.feature, WATCH, f"{found.bound}: {found.why}")
        if found.broken and found.hard and self.quality.limits.freeze and found.feature not in self.masked:
            self._decisions.decide(FREEZE, found.feature, WATCH, f"{found.bound}: {found.why}")
            self.masked = (*self.masked, found.feature)

    def _ask(self) -> None:
        """What is frozen, and which references are to begin anew."""
        try:
            told = self._decisions.masks()
        except RpcError as error:
            log.warning("the feature service does not say what is frozen: %s", error)
            return
        self.masked = tuple(sorted(told["frozen"]))
        for feature, turn in told["resets"].items():
            if self._resets.get(feature, 0) < turn:
                with self._lock:
                    self.quality.reset(feature)
        self._resets = dict(told["resets"])

    def _save(self) -> None:
        with self._lock:
            text = json.dumps({"quality": self.quality.state(), "resets": self._resets})
        self._folder.mkdir(parents=True, exist_ok=True)
        work = self._folder / f".{STATE}"
        work.write_text(text + "\n")
        work.rename(self._folder / STATE)

    def _restore(self) -> None:
        try:
            state = json.loads((self._folder / STATE).read_text())
            self.quality.restore(state["quality"])
            self._resets = dict(state["resets"])
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            log.error("the references of features are not readable, they begin anew: %s", error)
