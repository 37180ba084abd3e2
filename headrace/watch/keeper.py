"""What the guard (downgrade.py) sees and says, done: versions loaded to be scored in shadow, published, served, dropped; each step told."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from headrace.models.batch import Batch, unique
from headrace.models.catalog import Model
from headrace.models.fm import probability
from headrace.models.inputs import Inputs
from headrace.ps import versions as files
from headrace.ps.spec import ModelSpec
from headrace.ps.table import Table
from headrace.ps.versions import LIVE, Choice, VersionError
from headrace.rpc.errors import RpcError
from headrace.versions import GUARD, PERSON, Caller, NotServed, Versions, VersionUnknown, named
from headrace.watch.downgrade import Bounds, Guard, Step, crowded

log = logging.getLogger(__name__)
STATE = "guard.json"
FAILED = (VersionError, VersionUnknown, NotServed, RpcError, OSError)
Pull = Callable[[np.ndarray, int | None], tuple[int, np.ndarray]]


class Keeper:
    """Of one model. `pull(keys, version)` -> (version that answered, rows) of what is served (None) or of a version a replica holds;
    `shards` publish; `inputs` are the model's. `score` and `take` are what Shadow asks for; one thread calls `score`, another `take`,
    another `tick`."""

    def __init__(self, versions: Versions, spec: ModelSpec, model: Model, pull: Pull, shards: Sequence[Caller], bounds: Bounds,
                 detectors: Mapping[str, Callable[[float], bool]], rows_max: int, now_ms: Callable[[], int],
                 inputs: Inputs) -> None:
        self._versions, self._spec, self._model, self._pull, self._shards = versions, spec, model, pull, shards
        self._rows_max, self._now_ms = rows_max, now_ms
        self._lock = threading.Lock()
        self._tables: dict[int, Table] = {}
        self._unusable: set[int] = set()
        self._choice = Choice()
        self._slots = inputs.slots
        self.guard = Guard(bounds, detectors, (inputs.slots, inputs.empty))
        self.downgrades = sum(_is_down(one["by"], one["version"], one["figures"].get("before", LIVE))
                              for one in versions.events() if one["event"] == "serving")
        self._restore()

    def score(self, batch: Batch) -> dict[int, np.ndarray]:
        """Probabilities float32[n] by version: live, what is served, and all that are loaded. Raises RpcError."""
        with self._lock:
            self.guard.see(batch.keys, batch.values)
        keys, places = unique(batch)
        number, rows = self._pull(keys, None)
        by_version = {number: rows}
        if number != LIVE:
            by_version[LIVE] = self._pull(keys, LIVE)[1]
        for number, table in list(self._tables.items()):
            if number not in by_version:
                by_version[number] = table.pull(keys)
        return {number: probability(self._model.predict(rows, places, batch.values)) for number, rows in by_version.items()}

    def take(self, label: np.ndarray, scores: dict[int, np.ndarray]) -> None:
        with self._lock:
            self.guard.add(label, scores)

    def tick(self) -> list[Step]:
        """An interval is over: do what the guard says. What could not be done is told, and tried again when the guard says it again."""
        choice, there = self._versions.choice(), self._load()
        resumed = choice.turn > self._choice.turn and choice.by == PERSON and not choice.pinned and choice.version == self._choice.version
        self._choice = choice
        now_s = self._now_ms() / 1000
        with self._lock:
            if resumed:
                self.guard.relearn()
            steps = self.guard.tick(now_s, choice.version, choice.pinned, there)
        for step in steps:
            self._do(step)
        self._drop(now_s)
        with self._lock:
            text = json.dumps(self.guard.state())
        work = self._versions.root / f".{STATE}"
        work.parent.mkdir(parents=True, exist_ok=True)
        work.write_text(text + "\n")
        work.rename(self._versions.root / STATE)
        return steps

    def keep_ticking(self, stop: threading.Event) -> None:
        """`tick` every interval until `stop`."""
        while not stop.wait(self.guard.bounds.interval_s):
            try:
                self.tick()
            except Exception:
                log.exception("the guard failed; again in %.0f s", self.guard.bounds.interval_s)

    def collect(self) -> Iterator[Metric]:
        """For Prometheus."""
        model = self._spec.model
        downs = CounterMetricFamily("headrace_downgrades", "Steps back that the guard has taken, ever.", labels=["model"])
        downs.add_metric([model], self.downgrades)
        serving = GaugeMetricFamily("headrace_serving_version", "Version that was chosen to be served; 0 is live.", labels=["model"])
        serving.add_metric([model], self._choice.version)
        trouble = GaugeMetricFamily("headrace_guard_trouble", "1 while the guard sees this trouble.", labels=["model", "trouble"])
        for kind in ("labels", "model"):
            trouble.add_metric([model, kind], float(self.guard.trouble == kind))
        trouble.add_metric([model, "inputs"], float(bool(self.guard.inputs.gaps)))
        missing = GaugeMetricFamily("headrace_input_missing", "Share of the window's exposures without a value.", labels=["model", "slot"])
        for slot, share in zip(self._slots, () if self.guard.inputs.missing is None else self.guard.inputs.missing, strict=False):
            missing.add_metric([model, slot], float(share))
        yield from (downs, serving, trouble, missing)
        window = self.guard.window
        samples = GaugeMetricFamily("headrace_guard_samples", "Samples of the guard's window.", labels=["model"])
        samples.add_metric([model], window.samples if window else 0)
        entropy = GaugeMetricFamily("headrace_guard_entropy", "Log-loss over the base rate's in the window.", labels=["model", "version"])
        calibration = GaugeMetricFamily("headrace_guard_calibration", "Predicted over true positives in the window.",
                                        labels=["model", "version"])
        for version in sorted(window.sums.loss) if window else []:
            if window is not None and window.has(version):
                entropy.add_metric([model, str(version)], window.entropy(version))
                calibration.add_metric([model, str(version)], window.calibration(version))
        yield from (samples, entropy, calibration)

    def _load(self) -> dict[int, float]:
        """Have every usable version in memory; when each was made, in seconds."""
        there = {}
        for one in self._versions.there()[0]:
            number = one.number
            if number not in self._tables and number not in self._unusable:
                try:
                    self._tables[number] = files.load(self._versions.root, number, self._spec, self._rows_max)[1]["weights"]
                except VersionError as error:
                    self._unusable.add(number)
                    self._versions.note("unusable", GUARD, str(error), number)
            if number in self._tables:
                there[number] = one.created_ms / 1000
        for number in set(self._tables) - set(there):
            self._tables.pop(number)
        return there

    def _do(self, step: Step) -> None:
        try:
            if step.kind == "publish":
                self._versions.publish(self._shards, GUARD, step.reason, step.figures)
            elif step.kind == "serve":
                done = self._versions.serve(step.version, GUARD, step.reason, figures=step.figures)
                self._choice = done.choice
                self.downgrades += _is_down(GUARD, step.version, done.before)
                log.warning("serving %s instead of %s: %s", named(step.version), named(done.before), step.reason)
            else:
                self._versions.note(step.kind, GUARD, step.reason, step.version, step.figures)
                if step.kind in ("alarm", "stuck"):
                    log.warning("%s: %s", step.kind, step.reason)
        except FAILED as error:
            log.error("%s of %s could not be done: %s", step.kind, named(step.version), error)
            self._versions.note("failed", GUARD, f"{step.kind}: {error}", step.version)

    def _drop(self, now_s: float) -> None:
        made = {one.number: one.created_ms / 1000 for one in self._versions.there()[0] if one.by == GUARD}
        for number in crowded(made, self.guard.bounds.keep, now_s, frozenset({self._choice.version})):
            try:
                self._versions.remove(number, f"more than versions.keep ({self.guard.bounds.keep})")
            except FAILED as error:
                log.error("version %d could not be dropped: %s", number, error)

    def _restore(self) -> None:
        try:
            state = json.loads((self._versions.root / STATE).read_text())
            self._choice = self._versions.choice()
            self.guard.restore(state, self._now_ms() / 1000, self._load())
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError, VersionError) as error:
            log.error("what the guard knew is not readable, it begins anew: %s", error)


def _is_down(by: str, version: int, before: int) -> bool:
    return by == GUARD and version != LIVE and (before == LIVE or version < before)
