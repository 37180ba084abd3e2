"""A batch of interactions read into columns: by the kernel what is plainly right, by the codec what the kernel doubts.

So the codec and its checks say what is refused and why, and the speed is the kernel's for all others. What the codec accepts after a doubt
(another writer's schema, blocks of odd sizes) is written anew as ours and scanned with the rest.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from headrace.features.events import check_features
from headrace.features.feature_set import BASE, FeatureSet
from headrace.features.known_sets import KnownSets
from headrace.schemas import kernels
from headrace.schemas.codec import Codec, check_interaction
from headrace.schemas.errors import Malformed
from headrace.schemas.interaction import CONTEXT_MAX, FLOAT32_MAX, HEARTBEAT, TS_MS_MAX, TS_MS_MIN

Refused = list[tuple[int, Malformed]]
_FEATURES = ("feature_keys", "feature_values", "numbers")
_OURS = 0xFFFFFFFF  # the id of datums written anew, in a scan of their own only
_ANY = 1 << 31
_HEARTBEAT = np.frombuffer(HEARTBEAT.encode(), np.uint8)
_TS_RANGE = np.array([TS_MS_MIN, TS_MS_MAX], np.int64)


class Scanned(NamedTuple):
    """What schemas.kernels.scan found in n messages, which lie one after the other in data uint8[m]: seen uint8[n], value float64[n], ts_ms
    int64[n], texts int32[n,6,2], spans int32[n,6], entries int32[e,4] up to entry_ends int64[n], whole uint8[n]."""

    data: np.ndarray
    seen: np.ndarray
    value: np.ndarray
    ts_ms: np.ndarray
    texts: np.ndarray
    spans: np.ndarray
    entries: np.ndarray
    entry_ends: np.ndarray
    whole: np.ndarray


class Reader:
    """Reads interactions with `codec`; messages of more than `bytes_max` bytes are refused, and features of a set that is not `known`:
    what was served with a set from before is made a sample of the one that is held."""

    def __init__(self, codec: Codec, bytes_max: int, feature_set: FeatureSet = BASE, known: KnownSets | None = None) -> None:
        self._codec, self._bytes_max, self._set, self._known = codec, bytes_max, feature_set, known or KnownSets(feature_set)

    def read(self, messages: list[bytes | None]) -> tuple[Scanned, Refused]:
        """(what was found, rows that are refused with their reasons): every other row has been seen. Raises RegistryUnavailable."""
        values = [message or b"" for message in messages]
        scanned = scan(values, self._codec.alike(), self._bytes_max, self._set)
        doubted = _doubted(scanned)
        if doubted and self._learnt(messages, doubted):
            scanned = scan(values, self._codec.alike(), self._bytes_max, self._set)
            doubted = _doubted(scanned)
        if not doubted:
            return scanned, []
        refused: Refused = []
        mended = False
        for row in doubted:
            try:
                values[row] = self._anew(messages[row])
                mended = True
            except Malformed as error:
                values[row] = b""
                refused.append((row, error))
        if mended:
            scanned = scan(values, [*self._codec.alike(), _OURS], _ANY, self._set)
            left = set(_doubted(scanned)) - {row for row, _ in refused}
            assert not left, f"the codec takes records {sorted(left)[:3]} of a call, and the scan doubts them as written anew"
        return scanned, refused

    def decoded(self, messages: list[bytes | None]) -> list[dict[str, Any]]:
        """Records of messages that were seen."""
        return [self._codec.decode(message, bytes_max=self._bytes_max) for message in messages]

    def _learnt(self, messages: list[bytes | None], rows: list[int]) -> bool:
        """Have the codec look up the schemas of `rows`; whether one was new and is like ours."""
        before = len(self._codec.alike())
        for row in rows:
            try:
                self._codec.writer_schema(messages[row])
            except Malformed:
                continue
        return len(self._codec.alike()) > before

    def _anew(self, message: bytes | None) -> bytes:
        """A message as we would write it. Raises Malformed."""
        record = self._codec.decode(message, bytes_max=self._bytes_max)
        check_interaction(record)
        exposure = record["exposure"]
        if exposure is not None:
            held = [exposure[name] for name in _FEATURES]
            if exposure["feature_set"] in self._known and tuple(map(len, held)) == self._known.width(exposure["feature_set"]):
                exposure.update(zip(_FEATURES, self._known.packed(exposure["feature_set"], *held), strict=True))
                exposure["feature_set"] = self._set.name
            check_features(exposure, self._set)
        return b"\x00" + _OURS.to_bytes(4, "big") + self._codec.datum(record)


def scan(values: list[bytes], schema_ids: list[int], bytes_max: int, feature_set: FeatureSet = BASE) -> Scanned:
    """Columns of messages written under one of `schema_ids`; rows that are not plainly right are left at DOUBT."""
    n = len(values)
    name = np.frombuffer(feature_set.name.encode(), np.uint8)
    widths = np.array([8 * feature_set.F, 4 * feature_set.F, 4 * feature_set.K], np.int64)
    data = np.frombuffer(b"".join(values), np.uint8)
    assert len(data) < _ANY, "positions are 32 bits: call with less at once"
    ends = np.cumsum(np.fromiter(map(len, values), np.int64, n))
    found = Scanned(data, np.empty(n, np.uint8), np.empty(n), np.empty(n, np.int64), np.empty((n, kernels.TEXTS, 2), np.int32),
                    np.empty((n, kernels.SPANS), np.int32), np.empty((min(CONTEXT_MAX * n, len(data) // 2 + CONTEXT_MAX), 4), np.int32),
                    np.empty(n, np.int64), np.empty(n, np.uint8))
    kernels.scan(data, ends, np.array(schema_ids, np.int64), bytes_max, _HEARTBEAT, name, widths, _TS_RANGE, FLOAT32_MAX,
                 *found[1:])
    return found


def _doubted(scanned: Scanned) -> list[int]:
    return np.nonzero(scanned.seen == kernels.DOUBT)[0].tolist()
