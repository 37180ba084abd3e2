"""What is done before a topic is ingested: its first records are looked at, and its group is put to where it begins."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from headrace import kafka
from headrace.audit import Audit, Reason, count, odd
from headrace.config import Config
from headrace.guess import of_table
from headrace.ingests import Definition, IngestError
from headrace.kafka import Record
from headrace.readers import loose
from headrace.schemas.codec import Codec
from headrace.schemas.registry import RegistryClient
from headrace.schemas.source import source
from headrace.schemas.topics import settings
from headrace.streaming import transactions
from headrace.streaming.ingested import Reader
from headrace.streaming.unwrap import Unwrap, paths, values_of

PEEKED, GUESSED = 200, 20_000
BATCH = 1024


def find(config: Config, topic: str) -> None:
    """Raises IngestError when `topic` is not there or is one of ours, KafkaUnavailable."""
    ours = [one.name for one in settings([config.model.name, *config.models], config.kafka.partitions)]
    if topic in ours:
        raise IngestError(f"{topic} is headrace's own topic: what is in it is read already")
    there = [name for name in kafka.partitions(config.kafka.cluster) if name not in ours and not name.startswith("__")]
    if topic not in there:
        near = difflib.get_close_matches(topic, there, 1, 0.6)
        known = f"the nearest is {near[0]!r}" if near else f"there are: {', '.join(sorted(there)[:20]) or 'none'}"
        raise IngestError(f"no topic {topic!r} at {config.kafka.cluster}; {known}. An ingested topic lies in headrace's own cluster")


def begin(config: Config, definition: Definition) -> dict[int, int]:
    """Put partitions that were never read to where [source] says; where the group stands then. Raises KafkaUnavailable, IngestError."""
    cluster, topic, start = config.kafka.cluster, definition.topic, definition.source.start
    marks, there = kafka.watermarks(cluster, topic), stands(config, definition)
    if isinstance(start, int):
        first = kafka.since(cluster, topic, start)
    else:
        first = {partition: high if start == "latest" else low for partition, (low, high) in marks.items()}
    new = {partition: first[partition] for partition in marks if partition not in there}
    if new:
        transactions.put(cluster, _group(config, definition), topic, new)
    return {**there, **new}


def stands(config: Config, definition: Definition) -> dict[int, int]:
    """partition -> the offset that is read next, of those that were begun. Raises KafkaUnavailable."""
    topic = definition.topic
    return transactions.committed(config.kafka.cluster, _group(config, definition), topic, kafka.watermarks(config.kafka.cluster, topic))


def progress(config: Config, definition: Definition) -> dict[int, tuple[int, int]]:
    """partition -> (the offset that is read next, the topic's end)."""
    there, marks = stands(config, definition), kafka.watermarks(config.kafka.cluster, definition.topic)
    return {partition: (there.get(partition, low), high) for partition, (low, high) in marks.items()}


def _group(config: Config, definition: Definition) -> str:
    return transactions.group_of(definition.name, kafka.topic_source(config.kafka.cluster, definition.topic))


@dataclass
class Looked:
    """What records of a topic would become. `audit` as of a file; `aside`: changes of Debezium that do not count, by op; `seen`: the
    fields of its rows; `readable`: how many records are rows at all; `first`: (partition, offset, reason) of the first refused."""

    audit: Audit = field(default_factory=Audit)
    aside: Counter[str] = field(default_factory=Counter)
    seen: dict[str, None] = field(default_factory=dict)
    readable: int = 0
    first: tuple[int, int, str] | None = None


def look(config: Config, definition: Definition, records_max: int = PEEKED) -> Looked:
    """Read up to `records_max` records, as many of each partition, from where [source] says (of latest, those before the end), and send
    nothing. Raises KafkaUnavailable, RegistryUnavailable."""
    return looked(_some(config, definition.topic, definition.source.start, records_max), definition, RegistryClient(config.registry.access),
                  config.engine.event_bytes_max)


def guessed(config: Config, topic: str, form: str, records_max: int = GUESSED) -> str:
    """MAPPING.toml proposed for a topic of format `form` by its first records. Raises SourceError, NoGuess, IngestError."""
    unwrap = Unwrap(source({"format": form}), RegistryClient(config.registry.access))
    found = unwrap.read([one.value for one in _some(config, topic, "earliest", records_max)])
    names = dict.fromkeys(name for row in found.rows for name in paths(row))
    if not names:
        why = f": {found.refused[0][1]}" if found.refused else ""
        raise IngestError(f"no record of {topic} is a row as {form}{why}")
    table = loose([dict(zip(names, values, strict=True)) for values in zip(*(values_of(found.rows, name) for name in names), strict=True)])
    made = of_table(table, topic).text(topic, table.num_rows, f"headrace ingest --topic {topic} --mapping THIS --check 1000")
    return f'{made}\n[source]\nformat = "{form}"\n'


def _some(config: Config, topic: str, start: str | int, records_max: int) -> Iterator[Record]:
    """Up to `records_max` records, as many of each partition."""
    cluster = config.kafka.cluster
    marks = kafka.watermarks(cluster, topic)
    each = -(-records_max // max(len(marks), 1))
    if isinstance(start, int):
        first = kafka.since(cluster, topic, start)
    else:
        first = {p: max(low, high - each) if start == "latest" else low for p, (low, high) in marks.items()}
    return kafka.read_between(cluster, topic, first, {p: min(high, first[p] + each) for p, (_, high) in marks.items()})


def looked(records: Iterator[Record], definition: Definition, registry: Any, event_bytes_max: int) -> Looked:
    """`look` at `records`."""
    mapping, found = definition.mapping, Looked()
    reader = Reader(mapping, 0, Codec("interactions", registry), registry, event_bytes_max)
    reasons: dict[str, Reason] = {}
    users, items, times = set[str](), set[str](), list[int]()
    made = found.audit
    while batch := list(islice(records, BATCH)):
        rows, unwrapped = reader.exposures([one.value for one in batch], [one.partition for one in batch], [one.offset for one in batch])
        for row in unwrapped.rows[:PEEKED]:
            found.seen.update(dict.fromkeys(paths(row)))
        found.readable += len(unwrapped.rows)
        found.aside += unwrapped.aside + rows.aside
        made.rows += len(batch)
        made.accepted += len(rows.exposures)
        made.rejected += len(rows.refused)
        for at, error in rows.refused:
            place = f"partition {batch[at].partition}, offset {batch[at].offset}"
            found.first = found.first or (batch[at].partition, batch[at].offset, str(error))
            count(reasons, error.reason, f"{place}: {error.detail}")
        for _, impression, action in rows.exposures:
            users.add(impression["user_id"])
            items.add(impression["item_id"])
            times.append(impression["ts_ms"])
            made.positives += action is not None or impression["action"] != "impression"
    made.users, made.items = len(users), len(items)
    made.reasons = sorted(reasons.values(), key=lambda reason: -reason.count)
    if times:
        made.first_ms, made.last_ms = min(times), max(times)
    made.odd = list(odd(made, mapping))
    return found


def fit(definition: Definition, found: Looked) -> str:
    """"" when the records that were looked at are of the mapping, else what is wrong, as a sentence."""
    made, mapping = found.audit, definition.mapping
    if not made.rows or made.accepted:
        missing = [name for name in mapping.columns if name not in found.seen] if found.readable else []
        return _missing(definition, missing[0], found) if missing else ""
    if found.readable:
        missing = [name for name in (mapping.user_id, mapping.item_id, mapping.ts, mapping.label.column) if name not in found.seen]
        if missing:
            return _missing(definition, missing[0], found)
    if found.first is None:  # all left aside
        return ""
    partition, offset, why = found.first
    return (f"none of {made.rows:,} records of {definition.topic} can be used as {definition.source.format}; the first is refused at"
            f" partition {partition}, offset {offset}: {why}. --check {made.rows} shows the others")


def _missing(definition: Definition, name: str, found: Looked) -> str:
    near = difflib.get_close_matches(name, found.seen, 1, 0.6)
    hint = f"; the nearest is {near[0]!r}" if near else ""
    return (f"{definition.topic} has no field {name!r} that the mapping names, in {found.readable:,} records{hint}; their fields: "
            f"{', '.join(list(found.seen)[:40])}")
