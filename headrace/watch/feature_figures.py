"""Figures of features: as /metrics, and read back from there for `headrace features stats` and `headrace status`."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import httpx
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families

from headrace.watch.feature_columns import BROKEN

if TYPE_CHECKING:
    from headrace.watch.feature_quality import FeatureQuality

PREFIX = "headrace_feature_"
_GAUGES = {
    "samples": "Exposures of the window.", "null_rate": "Share of the window's exposures that read no finite number, or no id.",
    "default_rate": "Share that read its default; of numbers.", "psi": "Population stability index against its reference.",
    "cardinality": "Different numbers or ids of the window, about.", "age_seconds": "Since the newest event that counts for it.",
    "reference_samples": "Exposures of its reference; 0 while it is gathered.", "frozen": "1 while a model reads its default."}
_QUANTILES = {"0": "min", "0.5": "p50", "1": "max"}


def exported(quality: FeatureQuality, masked: Collection[str]) -> Iterator[Metric]:
    """headrace_feature_NAME by feature."""
    families = {name: GaugeMetricFamily(PREFIX + name, said, labels=["feature"]) for name, said in _GAUGES.items()}
    value = GaugeMetricFamily(f"{PREFIX}value", "Least, median and most value of the window.", labels=["feature", "quantile"])
    broken = GaugeMetricFamily(f"{PREFIX}broken", "1 while it is beyond this bound.", labels=["feature", "bound"])
    for name, one in quality.watched.items():
        window, numeric = one.window, not one.window.quantiles.is_empty()
        told: dict[str, float | None] = {
            "samples": window.n, "null_rate": window.null / window.n if window.n else None,
            "default_rate": window.default / window.n if numeric else None, "psi": one.psi,
            "cardinality": round(window.cardinality) if window.n else None, "age_seconds": one.age_s,
            "reference_samples": one.reference.n if one.reference is not None else 0, "frozen": float(name in masked)}
        for key, number in told.items():
            if number is not None:
                families[key].add_metric([name], number)
        for quantile in _QUANTILES if numeric else ():
            value.add_metric([name, quantile], window.quantiles.get_quantile(float(quantile)))
        for bound in BROKEN if one.column.place >= 0 else ():
            broken.add_metric([name, bound], float(bound in one.broken))
    yield from (*families.values(), value, broken)


def read(http_port: int, timeout_s: float = 2.0) -> dict[str, dict[str, Any]] | None:
    """By feature its figures: those of `exported`, min, p50 and max, and `broken`, the bounds that it is beyond. None when nobody answers
    at this port."""
    try:
        answer = httpx.get(f"http://127.0.0.1:{http_port}/metrics", timeout=timeout_s).raise_for_status()
    except httpx.HTTPError:
        return None
    found: dict[str, dict[str, Any]] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            key = sample.name.removeprefix(PREFIX)
            if key == sample.name or "feature" not in sample.labels:
                continue
            one = found.setdefault(sample.labels["feature"], {"broken": []})
            if key == "value":
                one[_QUANTILES[sample.labels["quantile"]]] = sample.value
            elif key == "broken":
                one["broken"] += [sample.labels["bound"]] if sample.value else []
            else:
                one[key] = sample.value
    return found


def sentence(found: dict[str, dict[str, Any]]) -> str:
    """For `headrace status`."""
    broken = [f"{name} ({', '.join(one['broken'])})" for name, one in found.items() if one["broken"]]
    frozen = [name for name, one in found.items() if one.get("frozen")]
    if not broken and not frozen:
        return f"features: {len(found)} are watched, all within their bounds"
    told = [f"beyond their bounds: {', '.join(broken)}"] if broken else []
    told += [f"frozen to their defaults: {', '.join(frozen)}"] if frozen else []
    return f"features: {'; '.join(told)} (`headrace features stats`)"
