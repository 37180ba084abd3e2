"""How fresh is it: headrace_hop_ms of each hop, from the health pages of those that export it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import httpx
from prometheus_client.parser import text_string_to_metric_families

from headrace.engine.console.figures import Freshness, Hop, Point
from headrace.goals import GOALS_MS

HOP_MS, HOP_CAUSES = "headrace_hop_ms", "headrace_hop_causes"
LABELS = {"gradient": "Gradient applied", "serving_row": "Serving row", "vector": "Vector", "recommendation": "Recommendation"}
OWN = "recommendation"
P50, P99 = 0.5, 0.99


class Ages(NamedTuple):
    """Of a hop: quantile -> ms, and how many causes it has seen."""

    ms: Mapping[float, float]
    causes: int


def ages(text: str, hop: str) -> Ages:
    """Of `hop` in the text of a /metrics page."""
    found: dict[float, float] = {}
    causes = 0
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.labels.get("hop") == hop and sample.name == HOP_MS:
                found[float(sample.labels["quantile"])] = sample.value
            elif sample.labels.get("hop") == hop and sample.name == f"{HOP_CAUSES}_total":
                causes = int(sample.value)
    return Ages(found, causes)


class FreshnessLook:
    """`pages`: the /metrics addresses that export each hop but our own, which `own()` tells. Of several shards the slowest counts.
    `waits_ms`: how long an event lies in its window by design, added to the goals."""

    def __init__(self, pages: Mapping[str, Sequence[str]], own: Callable[[], Ages], waits_ms: int, timeout_s: float = 1.0) -> None:
        self._pages, self._own, self._waits_ms = pages, own, waits_ms
        self._http = httpx.Client(timeout=timeout_s, trust_env=False)

    def __call__(self) -> tuple[Freshness, Point]:
        hops = [self._hop(name) for name in GOALS_MS]
        note = (f"Goals allow for the {self._waits_ms:,} ms that a sample lies in its attribution window under the strategy wait."
                if self._waits_ms else "")
        return Freshness(hops, note), {f"{hop.name}_p99": hop.p99_ms for hop in hops}

    def close(self) -> None:
        self._http.close()

    def _hop(self, name: str) -> Hop:
        goal_ms = GOALS_MS[name] + self._waits_ms
        found, silent = [], ""
        if name == OWN:
            found.append(self._own())
        elif not self._pages.get(name):
            silent = "It runs on another machine, and its health page listens there only."
        for page in self._pages.get(name, ()):
            try:
                found.append(ages(self._http.get(page).raise_for_status().text, name))
            except (httpx.HTTPError, ValueError) as error:
                silent = f"{page} does not answer ({type(error).__name__}); `headrace status` shows whether it runs."
        told = [one for one in found if one.ms]
        return Hop(name, LABELS[name], goal_ms, max((one.ms[P50] for one in told), default=None),
                   max((one.ms[P99] for one in told), default=None), sum(one.causes for one in found), silent)
