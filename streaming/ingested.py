"""A batch of a topic's records as messages of `interactions`: what the ingest job writes, and what `headrace ingest --check` counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from headrace.schemas.codec import Codec, Registry
from headrace.schemas.errors import Malformed
from headrace.schemas.mapping import Mapping
from headrace.streaming.ingest_rows import IngestRows, Made
from headrace.streaming.unwrap import ENVELOPE, Unwrap, Unwrapped


@dataclass
class Ingested:
    """Of n records: `messages[row]`, (key, message) in order, none of one refused or left aside; reasons by row; changes left aside."""

    messages: list[list[tuple[bytes, bytes]]]
    refused: dict[int, Malformed] = field(default_factory=dict)
    aside: Counter[str] = field(default_factory=Counter)

    @classmethod
    def empty(cls, n: int) -> Ingested:
        return cls([[] for _ in range(n)])

    def refuse(self, row: int, error: Malformed) -> None:
        self.messages[row] = []
        self.refused[row] = error


class Reader:
    """Reads records as `mapping` and its [source] say. `source`: the topic's number; with partition and offset it names a record for good,
    so that event ids are the same whenever it is read. An interaction of more than `event_bytes_max` bytes is refused."""

    def __init__(self, mapping: Mapping, source: int, codec: Codec, registry: Registry, event_bytes_max: int) -> None:
        assert mapping.source is not None, "a mapping of a topic has [source]"
        envelope = any(name.startswith(f"{ENVELOPE}.") for name in mapping.columns)
        self._unwrap = Unwrap(mapping.source, registry, envelope=envelope)
        self._rows, self._codec, self._source = IngestRows(mapping), codec, source
        self._event_bytes_max = event_bytes_max

    def exposures(self, values: list[bytes | None], partitions: list[int], offsets: list[int]) -> tuple[Made, Unwrapped]:
        """What the records are, `at` and `refused` by their positions here; and the rows that they were. Raises RegistryUnavailable."""
        found = self._unwrap.read(values)
        names = [f"{self._source:08x}-{partitions[at]}-{offsets[at]}" for at in found.at]
        made = self._rows.make(found.rows, names)
        refused = [*found.refused, *((found.at[row], error) for row, error in made.refused)]
        at = [found.at[row] for row in made.at]
        return Made(made.exposures, at, sorted(refused, key=lambda one: one[0]), made.aside), found

    def read(self, values: list[bytes | None], partitions: list[int], offsets: list[int], into_rows: list[int], into: Ingested) -> None:
        """Fill in the rows `into_rows` of `into`, one a value. Raises RegistryUnavailable."""
        made, found = self.exposures(values, partitions, offsets)
        for at, error in made.refused:
            into.refuse(into_rows[at], error)
        for at, (key, *records) in zip(made.at, made.exposures, strict=True):
            messages = [self._codec.encode(record) for record in records if record is not None]
            size = max(map(len, messages))
            if size > self._event_bytes_max:
                said = f"the interaction has {size} bytes; the limit is {self._event_bytes_max}"
                into.refuse(into_rows[at], Malformed("oversized", said))
            else:
                into.messages[into_rows[at]] = [(key, message) for message in messages]
        into.aside += found.aside + made.aside
