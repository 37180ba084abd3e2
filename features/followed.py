"""What a shard tells those who follow it: its blocks as they come, and its rows to begin with (features/follower.py)."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping

import numpy as np

from headrace.features.row_memory import FAMILIES_NOTE
from headrace.features.shard import FeatureShard
from headrace.rpc.errors import BadMessage, Refused
from headrace.rpc.message import Arrays, Header
from headrace.rpc.server import Verb

NOTE, STARTS_MAX, BYTES_MAX, ROWS_MAX = b"followed", 1000, 4 << 20, 4096
COPIED_NOTES = (b"layouts", FAMILIES_NOTE)


class Followed:
    """Over a shard with a tail. Of its store a name and the block at which each of its last starts began: a follower that is ahead of a
    start has seen what the shard lost (in a power cut), and begins anew. `masked`: features that are frozen to their defaults."""

    def __init__(self, shard: FeatureShard, masked: Callable[[], list[str]] = list) -> None:
        assert shard.tail is not None
        self._shard, self._tail, self._masked = shard, shard.tail, masked
        held = json.loads(shard.store.note(NOTE) or b"{}")
        self._name = held.get("name") or secrets.token_hex(8)
        self._starts: dict[str, int] = {**held.get("starts", {}), str(held.get("count", 0) + 1): shard.memory.number}
        self._count = held.get("count", 0) + 1
        kept = dict(list(self._starts.items())[-STARTS_MAX:])
        shard.store.put_note(NOTE, json.dumps({"name": self._name, "count": self._count, "starts": kept}).encode())

    def verbs(self) -> Mapping[str, Verb]:
        return {"blocks": self._blocks, "copy": self._copy, "rows": self._rows}

    def _blocks(self, header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
        """Those from `next` on, to a follower of the store `name` that knew its start `start`; `anew` when it has to begin anew."""
        self._known(header)
        number = _whole(header, "next")
        told = {"next": self._shard.memory.number, "name": self._name, "start": self._count, "anew": False,
                "masked": self._masked()}
        data = None
        if header.get("name") == self._name and number <= self._least(_whole(header, "start")):
            data = self._tail.since(number, BYTES_MAX)
        if data is None or (not data and number < self._shard.memory.number):
            return told | {"anew": True}, {}
        return told, {"data": np.frombuffer(data, np.uint8)}

    def _least(self, start: int) -> int:
        """The most that a follower may have come to that knew this start."""
        later = [self._starts.get(str(one), -1) for one in range(start + 1, self._count + 1)]
        return min(later, default=self._shard.memory.number) if start <= self._count else -1

    def _copy(self, header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
        """One step of writing all rows: `first` is the oldest block that the store is without. Notes and counts as of `next`."""
        self._known(header)
        self._shard.write_some()
        memory, store = self._shard.memory, self._shard.store
        notes = {name.decode(): (store.note(name) or b"").decode() for name in COPIED_NOTES}
        return {"first": memory.first, "next": memory.number, "name": self._name, "start": self._count, "notes": notes,
                "counts": self._shard.counts, "families": list(memory.tables)}, {}

    def _rows(self, header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
        """Up to 4,096 keys (8 bytes) of a family from `since` (hex) on, and their rows, as they lie in the store; `next` (hex): from where
        there is more, empty at the end."""
        family, since = header.get("family"), header.get("since")
        try:
            begin = bytes.fromhex(str(since))
        except ValueError:
            begin = None
        if family not in self._shard.memory.tables or begin is None:
            raise BadMessage(f"no family of rows is {family!r}, or no key is {since!r}")
        held = self._shard.store.some(str(family), begin, ROWS_MAX)
        more = (held[-1][0] + b"\0").hex() if len(held) == ROWS_MAX else ""
        return {"next": more}, {"keys": np.frombuffer(b"".join(key for key, _ in held), np.uint8),
                                "rows": np.frombuffer(b"".join(row for _, row in held), np.uint8),
                                "sizes": np.array([len(row) for _, row in held], np.int64)}

    def _known(self, header: Header) -> None:
        if header.get("feature_set") != self._shard.set.name:
            raise Refused(f"a follower of feature set {header.get('feature_set')!r}; this shard has {self._shard.set.name}: start both with"
                          " the same files in [features] definitions")


def _whole(header: Header, name: str) -> int:
    value = header.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadMessage(f"{name} is {value!r}, expected a whole number")
    return value
