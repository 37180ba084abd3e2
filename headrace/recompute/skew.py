"""Whether what was served and learnt from is what the log says: exposures' features computed again as of the place that each recorded.

Twice: the log is folded again by the product's own shard and read at each place, all features bit by bit; and definitions are computed by
DuckDB from the interactions alone (statements.py). Of what travelled with an exposure only the place, the time and what was asked are used.
"""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from headrace.features.events import EventBatch
from headrace.features.feature_set import FeatureSet
from headrace.features.inputs import moment_of
from headrace.features.layout import F, K
from headrace.features.shard import FeatureShard
from headrace.features.store import FeatureStore
from headrace.models.inputs import mixed
from headrace.offline import causes_of
from headrace.recompute.engine import Query, Recomputed
from headrace.recompute.statements import field_of
from headrace.schemas.hashing import feature_key

SERVED, FROZEN = "served", "frozen"
EXAMPLES, BLOCK, RING = 5, 2048, 1 << 26
CLOSE = 1e-4  # of float32 sums taken in another order
Record = Mapping[str, Any]
Place = tuple[int, int]


class SkewError(Exception):
    """The log cannot be folded again: what is missing of it, and what to do."""


class Seen(NamedTuple):
    """An exposure: where it lies in `interactions`, what was asked, and the features that it carries: keys uint64[F], values float32[F],
    numbers float32[K]."""

    kind: str
    place: Place
    query: Query
    keys: np.ndarray
    values: np.ndarray
    numbers: np.ndarray


@dataclass
class Report:
    """`events` folded again; exposures checked by kind; of how many a feature differs, by the way of computing and the feature's name; the
    first few."""

    feature_set: str
    events: int = 0
    checked: Counter[str] = field(default_factory=Counter)
    folded_again: Counter[str] = field(default_factory=Counter)
    duckdb: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    @property
    def mismatches(self) -> int:
        return sum(self.folded_again.values()) + sum(self.duckdb.values())

    def note(self, counter: Counter[str], name: str, seen: Seen, carried: object, said: object) -> None:
        counter[name] += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(f"{seen.kind} {seen.place[0]}:{seen.place[1]} ({seen.query.user}, {seen.query.item}): {name} is {carried},"
                                 f" and the log says {said}")


def skew(interactions: Mapping[Place, Record], enriched: Iterable[Record], feature_set: FeatureSet, *, half_life_s: float, limit: int,
         idle_s: float = 0.0, seed: int = 0, moved: Callable[[str], Any] = lambda text: None) -> Report:
    """Check at most `limit` exposures, chosen by `seed`, the served ones first. `interactions` by (partition, offset) as they were sent,
    `enriched` as the features job wrote them. Raises SkewError."""
    events, exposures = gathered(interactions, enriched, feature_set)
    rng = np.random.default_rng(seed)
    chosen: list[Seen] = []
    for kind in (SERVED, FROZEN):
        of_kind = [one for one in exposures if one.kind == kind]
        take = min(limit - len(chosen), len(of_kind))
        chosen += [of_kind[at] for at in sorted(rng.permutation(len(of_kind))[:take].tolist())]
    if not chosen:
        raise SkewError(f"nothing could be checked: of the {len(events):,} events in enriched none is an exposure with features of"
                        f" {feature_set.name}; see that the jobs run (headrace jobs list) and were started with these definitions")
    report = Report(feature_set.name, len(events), Counter(one.kind for one in chosen))
    moved(f"{len(events):,} events are folded again")
    _fold_again(events, chosen, feature_set, half_life_s, idle_s, report)
    if feature_set.definitions:
        moved(f"DuckDB computes {len(feature_set.definitions)} features of {len(chosen):,} exposures")
        _by_sql(events, chosen, feature_set, idle_s, report)
    return report


def gathered(interactions: Mapping[Place, Record], enriched: Iterable[Record], feature_set: FeatureSet) -> tuple[list[Record], list[Seen]]:
    """(events in the order in which they were folded, exposures of `feature_set`): up to the first event that is not in `enriched` yet."""
    by_place: dict[int, Record] = {}
    exposures = []
    for record in enriched:
        if record["folded"] < 0 or record["folded"] in by_place:
            continue
        place = record["partition"], record["offset"]
        sent = interactions.get(place)
        if sent is None:
            raise SkewError(f"the event at {place[0]}:{place[1]} is in enriched, and gone from interactions: the topics keep different"
                            " stretches; nothing is wrong by that, but the log cannot be folded again")
        event = {**sent, "ts_ms": record["ts_ms"]}  # which may have been clamped
        by_place[record["folded"]] = event
        if record["action"] == "impression" and record["feature_set"] == feature_set.name:
            served = sent["exposure"] is not None and sent["exposure"]["feature_set"] == feature_set.name
            after = record["features_sequence"] if served else record["folded"]
            asked = Query(after, not served, sent["ts_ms"] if served else record["ts_ms"], sent["user_id"], sent["item_id"], sent["scene"],
                          sent["context"])
            exposures.append(Seen(SERVED if served else FROZEN, place, asked, *_arrays(record)))
    if by_place and 0 not in by_place:
        raise SkewError(f"the log begins in the middle: the first of {max(by_place) + 1:,} events that were folded are not in enriched any"
                        " more; a check needs the log from its beginning (kafka.retention_ms)")
    whole = next(at for at in range(len(by_place) + 1) if at not in by_place)  # what is still on its way is for another time
    return [by_place[at] for at in range(whole)], [one for one in exposures if one.query.sequence + one.query.own <= whole]


def _arrays(record: Record) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return (np.frombuffer(record["feature_keys"], "<u8"), np.frombuffer(record["feature_values"], "<f4"),
            np.frombuffer(record["numbers"], "<f4"))


def _fold_again(events: Sequence[Record], chosen: Sequence[Seen], feature_set: FeatureSet, half_life_s: float, idle_s: float,
                report: Report) -> None:
    served = sorted((one for one in chosen if one.kind == SERVED), key=lambda one: one.query.sequence)
    frozen = {one.query.sequence: one for one in chosen if one.kind == FROZEN}
    with tempfile.TemporaryDirectory(prefix="headrace-skew-") as folder:
        store = FeatureStore(folder)
        shard = FeatureShard(store, half_life_s=half_life_s, ring_length=RING, frozen_offsets=4096, feature_set=feature_set,
                             idle_s=idle_s)
        try:
            at = 0
            for one in [*served, None]:
                until = len(events) if one is None else one.query.sequence
                while at < until:
                    part = events[at : min(until, at + BLOCK)]
                    # What was served with features is frozen all the same: it is compared elsewhere, and nothing else depends on it.
                    batch = EventBatch([dict(event) for event in part], feature_set)
                    offsets = np.arange(at, at + len(part))
                    answer = shard.freeze_and_fold(causes_of(offsets), batch.columns)
                    for row, place in enumerate(offsets.tolist()):
                        if place in frozen:
                            _compare(feature_set, frozen[place], [column[row] for column in answer[:3]], report)
                    at += len(part)
                if one is not None:
                    _compare(feature_set, one, _assembled(shard, one.query), report)
        finally:
            store.close()


def _assembled(shard: FeatureShard, query: Query) -> list[np.ndarray]:
    asked = {"event_id": "", "user_id": query.user, "item_id": query.item, "scene": query.scene, "action": "impression", "value": 1.0,
             "ts_ms": query.ts_ms, "context": dict(query.context)}
    columns = EventBatch([asked]).columns
    moment = moment_of(shard.set, query.scene, query.context)[None]
    made = shard.assemble(columns["user"], columns["item"], columns["context"], np.array([query.ts_ms]), moment)
    return [column[0] for column in made]


def _compare(feature_set: FeatureSet, seen: Seen, again: Sequence[np.ndarray], report: Report) -> None:
    """Bit by bit."""
    keys, values, numbers = again
    for slot in np.nonzero((keys != seen.keys) | (values != seen.values))[0].tolist():
        carried, said = ((int(k[slot]), float(v[slot])) for k, v in ((seen.keys, seen.values), (keys, values)))
        report.note(report.folded_again, feature_set.slots[slot], seen, carried, said)
    for place in np.nonzero(numbers != seen.numbers)[0].tolist():
        report.note(report.folded_again, feature_set.numbers[place], seen, float(seen.numbers[place]), float(numbers[place]))


def _by_sql(events: Sequence[Record], chosen: Sequence[Seen], feature_set: FeatureSet, idle_s: float, report: Report) -> None:
    recomputed = Recomputed(feature_set.definitions, list(enumerate(events)), idle_s)
    try:
        answers = recomputed.seen([one.query for one in chosen])
    finally:
        recomputed.close()
    for one, said in zip(chosen, answers, strict=True):
        for d, definition in enumerate(feature_set.definitions):
            at, width = int(feature_set.column[d]), int(feature_set.width[d])
            told = said[definition.identity]
            if width:
                slots = slice(F + at, F + at + width)
                carried = one.keys[slots][one.values[slots] != 0].tolist()
                texts = [feature_key(field_of(definition), text) for text in told]
                wanted = mixed(feature_set.id_seeds[at], np.array(texts, np.uint64)).tolist()
                same = carried == wanted
            else:
                carried, wanted = float(one.numbers[K + at]), len(told) if definition.reducer == "distinct" else told
                within = CLOSE + CLOSE * abs(wanted)
                if definition.reducer == "distinct":
                    within = 1.0 + 5 * 1.04 / math.sqrt(2 ** dict(definition.parameters)["bits"]) * wanted
                same = abs(carried - wanted) <= within
            if not same:
                report.note(report.duckdb, definition.identity, one, carried, wanted)
