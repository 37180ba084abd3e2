"""The topic `dead-letters` without one user's or item's: the others are sent again behind them, then all before is removed.

A letter is somebody's when the record that it is of says so, and where that one is gone or not readable, when its first bytes or its
sentence hold the id. Cut off between the two steps, letters are there twice, which their readers count once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from headrace import kafka, kafka_admin
from headrace.config import Config
from headrace.dead_letters import BLOCK, TOPIC, UNREADABLE, Letter, Live, live, place_of
from headrace.kafka_types import Record
from headrace.schemas.codec import Codec
from headrace.schemas.errors import Malformed
from headrace.schemas.registry import RegistryClient


class Letters:
    """Of `config`'s stack."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def count(self, of: str, name: str) -> int:
        """Raises KafkaUnavailable, RegistryUnavailable."""
        with live(self._config) as log:
            return sum(theirs for _, theirs in self._judged(log, of, name))

    def erase(self, of: str, name: str) -> int:
        """How many went. Other letters keep what they say, and the broker keeps them from now; what nobody can read as a letter goes too.
        Raises as `count`, and Undelivered."""
        where = self._config.kafka.cluster
        marks = kafka.watermarks(where, TOPIC)
        with live(self._config) as log:
            judged = list(self._judged(log, of, name))
            gone = sum(theirs for _, theirs in judged)
            if gone:
                log.tell([letter for letter, theirs in judged if not theirs and letter["reason"] != UNREADABLE])
                kafka_admin.remove_before(where, TOPIC, {p: high for p, (_, high) in marks.items()})
        return gone

    def _judged(self, log: Live, of: str, name: str) -> Iterator[tuple[Letter, bool]]:
        letters = list(log.read_letters())
        registry = RegistryClient(self._config.registry.access)
        codec = Codec("interactions", registry)
        try:
            for start in range(0, len(letters), BLOCK):
                block = letters[start : start + BLOCK]
                found = log.originals(list({place_of(one) for one in block if one["topic"] == "interactions" and one["offset"] >= 0}))
                for letter in block:
                    yield letter, is_of(letter, _decoded(codec, found.get(place_of(letter))), of, name)
        finally:
            registry.close()


def is_of(letter: Letter, original: dict[str, Any] | None, of: str, name: str) -> bool:
    """A letter is of a user or item (`of`); `original`: its record, None where it is gone or not readable."""
    if original is not None:
        return bool(original.get(f"{of}_id") == name)
    text = letter["first_bytes"].decode("utf-8", "replace") + "\n" + letter["detail"]
    return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text) is not None or avro_text(name) in letter["first_bytes"]


def avro_text(text: str) -> bytes:
    """A text as Avro writes it: its length in zigzag varint, then UTF-8."""
    body, length = text.encode(), b""
    left = len(body) << 1
    while left >= 0x80:
        length, left = length + bytes([left & 0x7F | 0x80]), left >> 7
    return length + bytes([left]) + body


def _decoded(codec: Codec, record: Record | None) -> dict[str, Any] | None:
    try:
        return codec.decode(record.value) if record is not None else None
    except Malformed:
        return None
