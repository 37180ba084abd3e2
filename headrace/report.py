"""The report of a replay: counted from outside, in the topics and on the shards, not from the jobs' own counters."""

from __future__ import annotations

from collections import Counter
from typing import Any

from headrace.models.progressive import MODEL, POPULARITY, keys_of, summary
from headrace.replay import Sent
from headrace.taps import Mark, Offsets, Taps, duplicates_of, window_counts

Cause = tuple[int, int, int]


def report(sent: Sent, mark: Mark, taps: Taps, seconds: float) -> dict[str, Any]:
    """The dict of the replay contract; `seconds` from the first event sent to the last sample applied.

    interactions_sent = interactions_decoded + dead_letters, which are those refused before they were decoded; what the samples job
    refused later (late, no_exposure) is in dead_letters_by_reason alone.
    """
    highs = {topic: taps.highs(topic) for topic in mark.offsets}
    decoded, impressions = _decoded(taps, mark.offsets["enriched"], highs["enriched"])
    refused, reasons = _refused(taps, mark.offsets["dead-letters"], highs["dead-letters"], decoded)
    samples, positives = _samples(taps, mark.offsets["samples"], highs["samples"])
    model = summary(taps.counts(keys_of(MODEL)) - mark.total[MODEL])
    popularity = summary(taps.counts(keys_of(POPULARITY)) - mark.total[POPULARITY])
    stats = taps.stats()
    applied = taps.applied()
    return {
        "rows": sent.rows,
        "interactions_sent": sent.interactions,
        "interactions_decoded": len(decoded),
        "impressions": impressions,
        "actions": len(decoded) - impressions,
        "dead_letters": refused,
        "dead_letters_by_reason": dict(reasons),
        "samples": samples,
        "positives": positives,
        "samples_applied": [now - before for now, before in zip(applied, mark.applied, strict=True)],
        "duplicates_dropped": duplicates_of(stats) - mark.duplicates + taps.retries() - mark.retries,
        "seconds": round(seconds, 3),
        "events_per_s": round(sent.interactions / seconds, 1) if seconds > 0 else None,
        "model": taps.model,
        "auc": model["auc"],
        "auc_popularity": popularity["auc"],
        "logloss": model["logloss"],
        "logloss_base_rate": model["logloss_base_rate"],
        "calibration": model["calibration"],
        "windows": windows(mark, taps, highs["interactions"]),
    }


def windows(mark: Mark, taps: Taps, highs: Offsets) -> list[dict[str, Any]]:
    """{samples, auc, logloss} of each window of interactions' offsets that the replay reached, oldest first."""
    before = mark.offsets["interactions"]
    reached = sorted({window for partition, high in highs.items() if high > before.get(partition, 0)
                      for window in range(before.get(partition, 0) // taps.window_offsets, (high - 1) // taps.window_offsets + 1)})
    found = []
    for window, counts in window_counts(taps, reached).items():
        figures = summary(counts - mark.windows.get(window, 0))
        if figures["samples"]:
            found.append({name: figures[name] for name in ("samples", "auc", "logloss")})
    return found


def _decoded(taps: Taps, start: Offsets, stop: Offsets) -> tuple[set[tuple[int, int]], int]:
    """(partition, offset) in interactions of every event in enriched, heartbeats aside; how many are impressions."""
    decoded: set[tuple[int, int]] = set()
    impressions = 0
    for record in taps.read("enriched", start, stop):
        where = (record["partition"], record["offset"])
        if record["action"] == "heartbeat" or where in decoded:
            continue
        decoded.add(where)
        impressions += record["action"] == "impression"
    return decoded, impressions


def _refused(taps: Taps, start: Offsets, stop: Offsets, decoded: set[tuple[int, int]]) -> tuple[int, Counter[str]]:
    """Interactions that never were decoded, each once; all dead letters by reason, each once."""
    seen: dict[tuple[int, int], str] = {}
    for record in taps.read("dead-letters", start, stop):
        if record["topic"] == "interactions":
            seen.setdefault((record["partition"], record["offset"]), record["reason"])
    return sum(where not in decoded for where in seen), Counter(seen.values())


def _samples(taps: Taps, start: Offsets, stop: Offsets) -> tuple[int, int]:
    """Samples by distinct cause, the first of a cause being the sample; how many are positive."""
    labels: dict[Cause, float] = {}
    for record in taps.read("samples", start, stop):
        labels.setdefault((record["source"], record["partition"], record["offset"]), record["label"])
    return len(labels), sum(label >= 0.5 for label in labels.values())
