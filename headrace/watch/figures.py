"""What the watch has seen: as /metrics, and read back from there for `headrace status` and the demo."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import httpx
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families

from headrace.watch.watcher import Watcher

OURS, PEER = "ours", "river"
LEARNT, SERVED = "learnt", "served"
Summary = dict[str, float | None]


class Exported:
    """A Prometheus collector over a watcher, the drifts found, {(detector, of): how many}, and `learnt()`: our figures of series SAMPLED in
    training's metrics, None while the parameter server does not answer."""

    def __init__(self, watcher: Watcher, drifts: Mapping[tuple[str, str], int], learnt: Callable[[], Summary | None]) -> None:
        self._watcher, self._drifts, self._learnt = watcher, drifts, learnt

    def collect(self) -> Iterator[Metric]:
        labels = ["model", "as"]
        auc = GaugeMetricFamily("headrace_watch_auc", "Progressive AUC on the sampled share.", labels=labels)
        loss = GaugeMetricFamily("headrace_watch_logloss", "Progressive log-loss, nats.", labels=labels)
        count = GaugeMetricFamily("headrace_watch_scored", "Samples that these are of.", labels=labels)
        watcher = self._watcher
        for name, how, figures in ((OURS, LEARNT, self._learnt()), (PEER, LEARNT, watcher.learner.figures()),
                                   (OURS, SERVED, watcher.ours.figures()), (PEER, SERVED, watcher.theirs.figures())):
            for family, key in ((auc, "auc"), (loss, "logloss"), (count, "samples")):
                value = None if figures is None else figures[key]
                if value is not None:
                    family.add_metric([name, how], value)
        outcomes = CounterMetricFamily("headrace_watch_samples", "Sampled exposures by what became of them.", labels=["outcome"])
        for outcome, number in watcher.outcomes.items():
            outcomes.add_metric([outcome], number)
        drifts = CounterMetricFamily("headrace_watch_drifts", "Drifts that River's detectors found in ours.", labels=["detector", "of"])
        for of, number in self._drifts.items():
            drifts.add_metric(list(of), number)
        yield from (auc, loss, count, outcomes, drifts)


@dataclass(frozen=True)
class Figures:
    """Read from /metrics: auc, logloss and scored by "ours learnt", "river learnt", "ours served", "river served"; drifts by name."""

    auc: dict[str, float] = field(default_factory=dict)
    logloss: dict[str, float] = field(default_factory=dict)
    scored: dict[str, int] = field(default_factory=dict)
    drifts: dict[str, int] = field(default_factory=dict)

    def sentence(self, served: bool = True) -> str:
        """For people; without `served` only what does not hang on how fast a replay sends."""
        if not all(f"{model} {how}" in self.auc for model in (OURS, PEER) for how in (LEARNT, SERVED)):
            return f"watch: {self.scored.get(f'{PEER} {LEARNT}', 0):,} samples, too few for an AUC"
        if not served:
            return ("watch (River's online logistic regression beside our model, on a sampled share of the stream):"
                    f" as they learn, {self._pair(LEARNT)}")
        found = ", ".join(f"{name} {count}" for name, count in self.drifts.items() if count)
        return ("watch (River's online logistic regression beside our model, on a sampled share of the stream): "
                f"as they learn, {self._pair(LEARNT)}; as they serve, {self._pair(SERVED)}. "
                "As they serve counts the way too, and a replay sends days in seconds: our serving rows are then further behind than River,"
                " which learns in the process that scores (docs/watch.md). "
                f"Drifts that River's detectors found in our errors: {found or 'none'}")

    def _pair(self, how: str) -> str:
        ours, theirs = f"{OURS} {how}", f"{PEER} {how}"
        return (f"AUC {self.auc[ours]:.4f} (River {self.auc[theirs]:.4f}), log-loss {self.logloss[ours]:.4f} ({self.logloss[theirs]:.4f})"
                f" over {self.scored[ours]:,} ({self.scored[theirs]:,}) samples")


def read(http_port: int, timeout_s: float = 1.0) -> Figures | None:
    """The figures of the watch at this port, None when nobody answers there."""
    try:
        answer = httpx.get(f"http://127.0.0.1:{http_port}/metrics", timeout=timeout_s).raise_for_status()
    except httpx.HTTPError:
        return None
    figures = Figures()
    by_model = {"headrace_watch_auc": figures.auc, "headrace_watch_logloss": figures.logloss}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            if sample.name == "headrace_watch_drifts_total":
                figures.drifts[f"{sample.labels['detector']} of {sample.labels['of']}"] = int(sample.value)
            elif sample.name == "headrace_watch_scored":
                figures.scored[f"{sample.labels['model']} {sample.labels['as']}"] = int(sample.value)
            elif sample.name in by_model:
                by_model[sample.name][f"{sample.labels['model']} {sample.labels['as']}"] = sample.value
    return figures
