"""One sample of a lake, by its event or its cause, with the names of its features and where it came from."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pyarrow.compute as pc

from headrace.features.layout import FEATURE_SET, NUMBERS, SLOTS
from headrace.lake import files
from headrace.lake.errors import NoSuchSample
from headrace.lake.manifest import File, Manifest, Origin
from headrace.lake.reader import Lake

Cause = tuple[int, int]  # partition, offset of `interactions`
LISTS = ("feature_keys", "feature_values", "numbers")
LINEAGE = ("source", "partition", "offset", "at_partition", "at_offset", "at_ms", "feature_set", "features_sequence", "model", "version")


def samples_of(lake: Lake, wanted: str | Cause) -> list[dict[str, Any]]:
    """The samples of an event_id, or of a cause: one a target (and source). Each with `features`, slot -> key and value, and `numbers`,
    by name where its feature set is ours and by place where it is not, and `lineage`. Raises NoSuchSample, LakeDamaged."""
    found = []
    for one, file in _candidates(lake, wanted):
        table = files.read(lake.store, file, ["event_id", "partition", "offset"])
        if isinstance(wanted, str):
            keep = pc.equal(table["event_id"], wanted)
        else:
            keep = pc.and_(pc.equal(table["partition"], wanted[0]), pc.equal(table["offset"], wanted[1]))
        if pc.any(keep).as_py():
            found += [_told(row, one, file, lake) for row in files.read(lake.store, file).filter(keep).to_pylist()]
    if not found:
        named = wanted if isinstance(wanted, str) else f"{wanted[0]}:{wanted[1]}"
        kind = "event" if isinstance(wanted, str) else "cause"
        raise NoSuchSample(f"the lake {lake.store} holds no sample of {kind} {named} up to commit"
                           f" {lake.manifests[-1].number}; `headrace trace {named}` says where it is on its way")
    return found


def _candidates(lake: Lake, wanted: str | Cause) -> Iterator[tuple[Manifest, File]]:
    """Files that may hold it, without opening them."""
    for one in lake.manifests:
        for file in one.files:
            if isinstance(wanted, str) or any(span.partition == wanted[0] and span.first <= wanted[1] <= span.last for span in file.causes):
                yield one, file


def _told(row: dict[str, Any], one: Manifest, file: File, lake: Lake) -> dict[str, Any]:
    """A row as JSON can say it."""
    known = row["feature_set"] == FEATURE_SET
    slots = SLOTS if known and len(row["feature_keys"]) == len(SLOTS) else [str(n) for n in range(len(row["feature_keys"]))]
    names = NUMBERS if known and len(row["numbers"]) == len(NUMBERS) else [str(n) for n in range(len(row["numbers"]))]
    of = file.origin or Origin(one.number, one.number, one.topic_id, one.code)
    lineage = {name: row[name] for name in LINEAGE} | {
        "file": f"{lake.store}/{file.path}", "commit": of.last if of.first == of.last else [of.first, of.last], "code": of.code,
        "topic": one.topic, "topic_id": of.topic_id}
    features = {slot: {"key": f"{key:016x}", "value": _number(value)}
                for slot, key, value in zip(slots, row["feature_keys"], row["feature_values"], strict=True)}
    plain = {name: _number(value) if isinstance(value, float) else value for name, value in row.items() if name not in (*LISTS, *LINEAGE)}
    return {**plain, "features": features, "numbers": dict(zip(names, map(_number, row["numbers"]), strict=True)), "lineage": lineage}


def _number(value: float) -> float | None:
    """JSON has no infinity and no NaN."""
    return value if math.isfinite(value) else None


