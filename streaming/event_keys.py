"""The columns that a feature shard folds, made from scanned interactions; features.events.EventBatch makes the same from decoded ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from headrace.features.layout import ACTIONS, CONTEXT_FIELDS, IMPRESSION, ITEM_FIELDS, OTHER, USER_FIELDS
from headrace.schemas.hashing import event_key
from headrace.schemas.interaction import CONTEXT_MAX
from headrace.streaming import kernels
from headrace.streaming.scanned import Scanned

TOLD_BITS = 20
_ACTION_KEYS = np.array([event_key(name) for name in ACTIONS], np.uint64)
_PREFIXES = (b"user_id=", b"item_id=", b"user.", b"item.")
_PREFIX = np.frombuffer(b"".join(_PREFIXES), np.uint8)
_PREFIX_ENDS = np.cumsum([len(prefix) for prefix in _PREFIXES])


class EventKeys:
    """Makes columns, and remembers which keys were told: `tell(names)` is called with the "field=value" of keys that were not, and keys
    count as told when it returns. After half a million the memory begins anew, and names are told again."""

    def __init__(self, tell: Callable[[list[str]], object]) -> None:
        self._tell = tell
        self._table = np.zeros(1 << TOLD_BITS, np.uint64)
        self._count = 0
        self._order, self._scratch = np.empty(CONTEXT_MAX, np.int32), np.empty(4096, np.uint8)

    def columns(self, scanned: Scanned, chosen: np.ndarray, ts_ms: np.ndarray) -> dict[str, np.ndarray]:
        """layout.EVENT_COLUMNS of the rows `chosen` int64[k], none of them a heartbeat, at ts_ms int64[k]. Raises what `tell` raises."""
        k = len(chosen)
        made: dict[str, np.ndarray] = {
            "action": np.empty(k, np.uint8), "user": np.empty(k, np.uint64), "item": np.empty(k, np.uint64),
            "event": np.empty(k, np.uint64), "user_fields": np.zeros((k, USER_FIELDS), np.uint64),
            "item_fields": np.zeros((k, ITEM_FIELDS), np.uint64), "context": np.zeros((k, CONTEXT_FIELDS), np.uint64)}
        room = 4 * k + 64
        while True:
            unknown, keys = np.empty((room, 3), np.int32), np.empty(room, np.uint64)
            count = kernels.keys_of(scanned.data, chosen, scanned.texts, scanned.entries, scanned.entry_ends, _ACTION_KEYS, OTHER, _PREFIX,
                                    _PREFIX_ENDS, self._table, self._order, self._scratch, *made.values(), unknown, keys)  # type: ignore[call-arg]
            if count <= room:
                break
            room = count
        if count:
            self._tell(self._names(scanned, unknown[:count]))
            self._remember(keys[:count])
        return {**made, "ts_ms": ts_ms, "value": scanned.value[chosen].astype(np.float32),
                "served": (made["action"] == IMPRESSION).astype(np.uint8) & scanned.whole[chosen]}

    def _remember(self, keys: np.ndarray) -> None:
        if self._count + len(keys) > len(self._table) // 2:
            self._table[:] = 0
            self._count = 0
            keys = keys[: len(self._table) // 2]
        self._count += kernels.tell(self._table, keys)

    @staticmethod
    def _names(scanned: Scanned, unknown: np.ndarray) -> list[str]:
        """Each "field=value" once."""
        data, names = scanned.data, dict[str, None]()
        fields = {-1: "user_id", -2: "item_id"}
        for entry, start, length in unknown.tolist():
            if entry >= 0 and entry not in fields:
                name, size = scanned.entries[entry, :2].tolist()
                fields[entry] = data[name : name + size].tobytes().decode()
            names[f"{fields[entry]}={data[start : start + length].tobytes().decode()}"] = None
        return list(names)
