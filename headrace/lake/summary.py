"""What is in a lake, by its manifests alone: no data file is opened."""

from __future__ import annotations

from collections import Counter
from typing import Any

from headrace.lake.manifest import File, Label, topics
from headrace.lake.reader import Lake


def partitions(lake: Lake) -> list[dict[str, Any]]:
    """Day and hour of event time (UTC), files, rows, bytes, label rate by target; hours in order."""
    found: dict[str, list[File]] = {}
    for file in lake.files:
        found.setdefault(file.hour, []).append(file)
    return [{"day": held[0].day, "hour": int(hour.rpartition("=")[2]), "files": len(held),
             "rows": sum(file.rows for file in held), "bytes": sum(file.bytes for file in held), "labels": labels(held)}
            for hour, held in sorted(found.items())]


def commits(lake: Lake) -> list[dict[str, Any]]:
    """Of each commit what it wrote and read; `begins`: the first of those that one stands for, once they were rewritten."""
    return [{"commit": one.number, "begins": 1 if one.generation else one.number, "written_ms": one.written_ms, "rows": one.rows,
             "files": len(one.files), "bytes": sum(file.bytes for file in one.files), "records": one.records, "duplicates": one.duplicates,
             "unreadable": one.unreadable, "gap_offsets": sum(map(len, one.gaps)), "code": one.code, "topic_id": one.topic_id,
             "offsets": {str(read.partition): [read.first, read.stop] for read in one.offsets}} for one in lake.manifests]


def stats(lake: Lake) -> dict[str, Any]:
    """Counts, label rates by target and by day, and what is not in the lake: duplicates, records that are not readable, gaps."""
    held, manifests = lake.files, lake.manifests
    days: dict[str, list[File]] = {}
    for file in held:
        days.setdefault(file.day, []).append(file)
    sets: Counter[str] = Counter()
    for one in manifests:
        sets.update(one.feature_sets)

    def total(name: str) -> int:
        return sum(getattr(one, name) for one in manifests)

    return {
        "rows": total("rows"), "bytes": sum(file.bytes for file in held), "files": len(held),
        "commits": sum(one.number if one.generation else 1 for one in manifests), "manifests": len(manifests),
        "records": total("records"), "duplicates": total("duplicates"), "unreadable": total("unreadable"),
        "fault": next((one.fault for one in manifests if one.fault), ""),
        "dropped": total("dropped"), "generation": manifests[0].generation,
        "gap_offsets": sum(len(gap) for one in manifests for gap in one.gaps),
        "gaps": [{"commit": one.number, "partition": gap.partition, "from": gap.first, "to": gap.stop}
                 for one in manifests for gap in one.gaps],
        "labels": labels(held), 
        "days": {day: {"rows": sum(file.rows for file in of), "labels": labels(of)} for day, of in sorted(days.items())},
        "feature_sets": dict(sets), "topics": topics(manifests),
        "written_ms": manifests[-1].written_ms,
    }


def labels(held: list[File]) -> dict[str, dict[str, float]]:
    """target -> rows, positives, rate."""
    found: dict[str, Label] = {}
    for file in held:
        for target, label in file.labels.items():
            found[target] = found.get(target, Label()) + label
    return {target: {"rows": one.rows, "positives": one.positives, "rate": one.positives / one.rows}
            for target, one in sorted(found.items())}


