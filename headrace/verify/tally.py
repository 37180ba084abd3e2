"""The accounts of counts.py for streams of millions: arrays by offset, row and key instead of decoded records.

Of each topic one byte or five an offset are kept, of the log a byte a row and kind, of the samples' keys the distinct ones: some 60 MB for
an hour at 2,000 interactions a second. What is of another cause, or of an event that was not sent, is counted as foreign.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from headrace.choice import learnt
from headrace.models.choice import EVERY, Choice

Record = dict[str, Any]
Account = tuple[str, int, int]
CHUNK = 8192
KEYS_MAX = 1 << 20  # keys that wait to be counted


class Places:
    """Which (partition, offset) have been met, and what was noted there: uint32."""

    def __init__(self) -> None:
        self._met: dict[int, np.ndarray] = {}
        self._noted: dict[int, np.ndarray] = {}

    def meet(self, partition: np.ndarray, offset: np.ndarray, note: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(bool[n]: the place is met for the first time; bool[n]: it was met before and `note` uint32[n] differs from the first)."""
        new, unlike = np.zeros(len(offset), bool), np.zeros(len(offset), bool)
        for one in np.unique(partition).tolist():
            at = np.nonzero(partition == one)[0]
            met, noted = self._room(one, int(offset[at].max()) + 1, note is not None)
            _, first = np.unique(offset[at], return_index=True)
            first = first[~met[offset[at[first]]]]
            new[at[first]] = True
            met[offset[at]] = True
            if note is not None:
                noted[offset[at[first]]] = note[at[first]]
                unlike[at] = noted[offset[at]] != note[at]
        return new, unlike

    def __len__(self) -> int:
        return sum(int(met.sum()) for met in self._met.values())

    def has(self, other: Places) -> int:
        """How many of the places of `other` are here too."""
        return sum(int((self._met[p][: len(met)] & met[: len(self._met[p])]).sum()) for p, met in other._met.items() if p in self._met)

    def _room(self, partition: int, length: int, note: bool) -> tuple[np.ndarray, np.ndarray]:
        for held, dtype in ((self._met, bool), (self._noted, np.uint32)) if note else ((self._met, bool),):
            array = held.get(partition, np.zeros(0, dtype))
            if len(array) < length:
                held[partition] = np.concatenate([array, np.zeros(max(length, 2 * len(array)) - len(array), dtype)])
        return self._met[partition], self._noted.get(partition, np.zeros(0, np.uint32))


class KeyCounts:
    """How often each uint64 key came: the distinct ones, sorted, and those that wait to be merged into them."""

    def __init__(self) -> None:
        self._keys, self._times = np.zeros(0, np.uint64), np.zeros(0, np.int64)
        self._waiting: list[np.ndarray] = []
        self._wait = 0

    def add(self, keys: np.ndarray) -> None:
        self._waiting.append(keys)
        self._wait += len(keys)
        if self._wait >= KEYS_MAX:
            self._merge()

    def counted(self) -> tuple[np.ndarray, np.ndarray]:
        """(keys uint64[u] in order, times int64[u])."""
        self._merge()
        return self._keys, self._times

    def _merge(self) -> None:
        keys, times = np.unique(np.concatenate([self._keys[:0], *self._waiting]), return_counts=True)
        every, at = np.unique(np.concatenate([self._keys, keys]), return_inverse=True)
        self._times = np.bincount(at.reshape(-1), np.concatenate([self._times, times]), len(every)).astype(np.int64)
        self._keys, self._waiting, self._wait = every, [], 0


class Tally:
    """Accounts of a log of rows whose events are called DIGEST-ROW-i (impression) and DIGEST-ROW-a (action), `labels` bool[rows], of causes
    of `source`; `keys` are those of the samples that are learnt by `choice`."""

    def __init__(self, source: int, digest: str, labels: np.ndarray, choice: Choice = EVERY) -> None:
        self._choice = choice
        self._source, self._prefix, self._labels = source, f"{digest}-", labels
        self.impressions, self.actions, self.sampled, self.refused = Places(), Places(), Places(), Places()
        self.keys = KeyCounts()
        self.copies = {"enriched": 0, "samples": 0}
        self.reasons: Counter[str] = Counter()
        self.foreign = 0
        self._ids = {"i": np.zeros(len(labels), bool), "a": np.zeros(len(labels), bool)}
        self._unlike = self._wrong = self._positive = 0

    def enriched(self, records: Iterable[tuple[bytes, Record]]) -> None:
        """Values as they lie in `enriched`, with their records; heartbeats are passed over."""
        for chunk in _chunks((value, record) for value, record in records if record["action"] != "heartbeat"):
            for places, impression in ((self.impressions, True), (self.actions, False)):
                part = self._own([one for one in chunk if (one[1]["action"] == "impression") == impression], "i" if impression else "a")
                if part:
                    note = np.array([zlib.crc32(value) for value, _ in part], np.uint32)
                    new, unlike = places.meet(*_places([record for _, record in part]), note)
                    self.copies["enriched"] += int((~new).sum())
                    self._unlike += int(unlike.sum())
                    self._ids["i" if impression else "a"][[self._row(record) for _, record in part]] = True

    def samples(self, records: Iterable[Record]) -> None:
        """Records of `samples`: the first of a cause is its sample."""
        for chunk in _chunks((b"", record) for record in records):
            part = [record for _, record in self._own(chunk, "i")]
            if not part:
                continue
            new, _ = self.sampled.meet(*_places(part))
            first = [record for record, is_new in zip(part, new.tolist(), strict=True) if is_new]
            self.copies["samples"] += len(part) - len(first)
            label = np.array([record["label"] for record in first]) >= 0.5
            self._positive += int(label.sum())
            self._wrong += int((label != self._labels[[self._row(record) for record in first]]).sum())
            self.keys.add(np.frombuffer(b"".join(record["feature_keys"] for record in learnt(self._choice, first)), "<u8"))

    def dead(self, records: Iterable[Record]) -> None:
        """Records of `dead-letters`."""
        for chunk in _chunks((b"", record) for record in records if record["topic"] == "interactions"):
            part = [record for _, record in chunk]
            new, _ = self.refused.meet(*_places(part))
            self.reasons.update(record["reason"] for record, is_new in zip(part, new.tolist(), strict=True) if is_new)

    def accounts(self) -> list[Account]:
        """(name, found, expected), as counts.checks has them."""
        rows, positives = len(self._labels), int(self._labels.sum())
        known = self.impressions.has(self.refused) + self.actions.has(self.refused)
        return [
            ("impressions in enriched, by cause", len(self.impressions), rows),
            ("actions in enriched, by cause", len(self.actions), positives),
            ("event ids in enriched", sum(int(met.sum()) for met in self._ids.values()), rows + positives),
            ("copies in enriched that differ from the first of their cause", self._unlike, 0),
            ("samples, by cause", len(self.sampled), rows),
            ("exposures without a sample, by cause", len(self.impressions) - self.impressions.has(self.sampled), 0),
            ("samples whose label differs from the log's row", self._wrong, 0),
            ("positive samples", self._positive, positives),
            ("interactions refused that were never enriched", len(self.refused) - known, 0),
            ("records of another cause or event", self.foreign, 0),
        ]

    def _own(self, part: list[tuple[bytes, Record]], kind: str) -> list[tuple[bytes, Record]]:
        """Without what is foreign, which is counted."""
        mine = [one for one in part if one[1]["source"] == self._source and self._sent(one[1]["event_id"], kind)]
        self.foreign += len(part) - len(mine)
        return mine

    def _sent(self, event_id: str, kind: str) -> bool:
        row = event_id[len(self._prefix) : -2]
        return event_id.startswith(self._prefix) and event_id.endswith(f"-{kind}") and row.isdecimal() and int(row) < len(self._labels)

    def _row(self, record: Record) -> int:
        return int(record["event_id"][len(self._prefix) : -2])


def _places(part: list[Record]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([record["partition"] for record in part], np.int64), np.array([record["offset"] for record in part], np.int64)


def _chunks(records: Iterable[tuple[bytes, Record]]) -> Iterable[list[tuple[bytes, Record]]]:
    chunk: list[tuple[bytes, Record]] = []
    for one in records:
        chunk.append(one)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
