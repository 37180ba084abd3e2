"""What the watch has seen: as /metrics, and read back from there for `headrace status` and the demo."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import httpx
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families

from headrace.watch.watcher import Watcher

OURS, PEER = "ours", "river"


class Exported:
    """A Prometheus collector over a watcher and the drifts found, {(detector, of): how many}."""

    def __init__(self, watcher: Watcher, drifts: Mapping[tuple[str, str], int]) -> None:
        self._watcher, self._drifts = watcher, drifts

    def collect(self) -> Iterator[Metric]:
        auc = GaugeMetricFamily("headrace_watch_auc", "Progressive AUC on the sampled share, predicted at the exposure.", labels=["model"])
        loss = GaugeMetricFamily("headrace_watch_logloss", "Progressive log-loss, nats, on the same samples.", labels=["model"])
        for name, tally in ((OURS, self._watcher.ours), (PEER, self._watcher.theirs)):
            figures = tally.figures()
            for family, value in ((auc, figures["auc"]), (loss, figures["logloss"])):
                if value is not None:
                    family.add_metric([name], value)
        outcomes = CounterMetricFamily("headrace_watch_samples", "Sampled exposures by what became of them.", labels=["outcome"])
        for outcome, count in self._watcher.outcomes.items():
            outcomes.add_metric([outcome], count)
        drifts = CounterMetricFamily("headrace_watch_drifts", "Drifts that River's detectors found in ours.", labels=["detector", "of"])
        for labels, count in self._drifts.items():
            drifts.add_metric(list(labels), count)
        yield from (auc, loss, outcomes, drifts)


@dataclass(frozen=True)
class Figures:
    """Read from /metrics; auc and logloss by model (ours, river), empty before the first sample of each label."""

    scored: int
    auc: dict[str, float] = field(default_factory=dict)
    logloss: dict[str, float] = field(default_factory=dict)
    drifts: dict[str, int] = field(default_factory=dict)

    def sentence(self) -> str:
        """For people."""
        if OURS not in self.auc or PEER not in self.auc:
            return f"watch: {self.scored:,} samples, too few for an AUC"
        found = ", ".join(f"{name} {count}" for name, count in self.drifts.items() if count)
        return (f"watch: AUC {self.auc[OURS]:.4f} (River {self.auc[PEER]:.4f}), log-loss {self.logloss[OURS]:.4f} "
                f"(River {self.logloss[PEER]:.4f}) over the same {self.scored:,} sampled exposures; drifts: {found or 'none'}")


def read(http_port: int, timeout_s: float = 1.0) -> Figures | None:
    """The figures of the watch at this port, None when nobody answers there."""
    try:
        answer = httpx.get(f"http://127.0.0.1:{http_port}/metrics", timeout=timeout_s).raise_for_status()
    except httpx.HTTPError:
        return None
    auc, loss, drifts, scored = dict[str, float](), dict[str, float](), dict[str, int](), 0
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            if sample.name == "headrace_watch_auc":
                auc[sample.labels["model"]] = sample.value
            elif sample.name == "headrace_watch_logloss":
                loss[sample.labels["model"]] = sample.value
            elif sample.name == "headrace_watch_drifts_total":
                drifts[f"{sample.labels['detector']} of {sample.labels['of']}"] = int(sample.value)
            elif sample.name == "headrace_watch_samples_total" and sample.labels["outcome"] == "scored":
                scored = int(sample.value)
    return Figures(scored, auc, loss, drifts)
