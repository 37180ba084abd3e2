"""Decoded interactions as the arrays that a feature shard folds.

The context map of an interaction carries columns of the user (user.FIELD), of the item (item.FIELD) and of the moment (all others).
A name that starts with _ is no feature. Slots are filled in order of field names; several values of a user's or an item's field are
separated by |.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from headrace.features.feature_set import BASE, FeatureSet
from headrace.features.inputs import columns_of, of_records, take
from headrace.features.layout import ACTION_CODES, CONTEXT_FIELDS, IMPRESSION, ITEM_FIELDS, OTHER, USER_FIELDS
from headrace.schemas.errors import Malformed
from headrace.schemas.hashing import event_key, feature_key


class EventBatch:
    """n events as `columns` (FeatureSet.event_columns) from decoded interactions without heartbeats. Raises FunctionError.

    `names`: "field=value" of every key used, each once, for FeatureClient.names. `dropped`: values that found no slot. An impression
    counts as served when its exposure carries a whole sample of this feature set.
    """

    def __init__(self, records: Sequence[dict[str, Any]], feature_set: FeatureSet = BASE) -> None:
        n = len(records)
        self._names: dict[str, None] = {}
        self.dropped = 0
        slots = (np.zeros((n, USER_FIELDS), np.uint64), np.zeros((n, ITEM_FIELDS), np.uint64), np.zeros((n, CONTEXT_FIELDS), np.uint64))
        for row, record in enumerate(records):
            if record["context"]:
                self._context(record["context"], row, slots)
        action = np.array([ACTION_CODES.get(record["action"], OTHER) for record in records], np.uint8)
        self.columns: dict[str, np.ndarray] = {
            "ts_ms": np.array([record["ts_ms"] for record in records], np.int64), "action": action,
            "user": self._ids("user_id", records), "item": self._ids("item_id", records),
            "event": np.array([_event(record["event_id"]) for record in records], np.uint64),
            "value": np.array([record["value"] for record in records], np.float64).astype(np.float32),
            "user_fields": slots[0], "item_fields": slots[1], "context": slots[2],
            "served": ((action == IMPRESSION) & np.array([_served(record.get("exposure"), feature_set) for record in records],
                                                         bool)).astype(np.uint8)}
        if feature_set.definitions:
            inputs = of_records(records, feature_set)
            taken = take(feature_set, inputs, records)
            self.columns |= columns_of(feature_set, inputs, taken)
            self._names.update(dict.fromkeys(taken.names))

    @property
    def names(self) -> list[str]:
        return list(self._names)

    def __len__(self) -> int:
        return len(self.columns["ts_ms"])

    def _ids(self, field: str, records: Sequence[dict[str, Any]]) -> np.ndarray:
        keys = []
        for record in records:
            key, name = _id(field, record[field])
            keys.append(key)
            self._names[name] = None
        return np.array(keys, np.uint64)

    def _context(self, context: dict[str, str], row: int, slots: tuple[np.ndarray, ...]) -> None:
        filled: list[list[int]] = [[], [], []]
        for field in sorted(context):
            if field.startswith("_"):
                continue
            side, keys, names = _values(field, context[field])
            filled[side] += keys
            self._names.update(names)
        for array, found in zip(slots, filled, strict=True):
            width = array.shape[1]
            if found:
                array[row, : len(found)] = found[:width]
            self.dropped += max(0, len(found) - width)


def check_features(exposure: dict[str, Any], feature_set: FeatureSet = BASE) -> None:
    """Raise Malformed for features that a shard cannot take as they were served: foreign_features, feature_width.

    Without this they would be frozen anew, and the model would learn on other inputs than it was scored on.
    """
    name = feature_set.name
    if exposure["feature_set"] in ("", name):
        width = (len(exposure["feature_keys"]), len(exposure["feature_values"]), len(exposure["numbers"]))
        if exposure["feature_set"] and width != (8 * feature_set.F, 4 * feature_set.F, 4 * feature_set.K):
            raise Malformed("feature_width", f"{name} has {feature_set.F} slots and {feature_set.K} numbers; here are keys, values and"
                                             f" numbers of {list(width)} bytes")
    else:
        raise Malformed("foreign_features", f"served with feature set {exposure['feature_set'][:80]!r}; {name} is folded here")


def _served(exposure: dict[str, Any] | None, feature_set: FeatureSet) -> bool:
    return (exposure is not None and exposure["feature_set"] == feature_set.name
            and len(exposure["feature_keys"]) == 8 * feature_set.F)


def _event(event_id: str) -> int:
    return event_key(event_id) if event_id else 0


@lru_cache(maxsize=1 << 16)
def _id(field: str, value: str) -> tuple[int, str]:
    return feature_key(field, value), f"{field}={value}"


@lru_cache(maxsize=1 << 16)
def _values(field: str, text: str) -> tuple[int, tuple[int, ...], dict[str, None]]:
    """(side: 0 user, 1 item, 2 context; keys; names) of a context entry."""
    side = 0 if field.startswith("user.") else 1 if field.startswith("item.") else 2
    values = [value for value in (text.split("|") if side < 2 else [text]) if value]
    return side, tuple(feature_key(field, value) for value in values), {f"{field}={value}": None for value in values}
