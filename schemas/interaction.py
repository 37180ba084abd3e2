"""What an interaction must satisfy beyond its schema, before it may change any feature."""

from __future__ import annotations

import math
import sys
from array import array
from typing import Any

from headrace.schemas.errors import Malformed

HEARTBEAT = "heartbeat"
ID_BYTES_MAX = 256
ACTION_BYTES_MAX = 64
CONTEXT_MAX = 64
CONTEXT_BYTES_MAX = 1024
TS_MS_MIN = 631_152_000_000  # 1990
TS_MS_MAX = 4_102_444_800_000  # 2100


def check_interaction(record: dict[str, Any]) -> None:
    """Raise Malformed unless a decoded interaction can be used.

    Reasons: empty_id (users and items; heartbeats need none), long_id, bad_action, bad_ts (not within 1990..2100: seconds, microseconds),
    bad_context (more than 64 entries, a name or value above 1 KiB), bad_exposure (lengths of keys, values and numbers
    disagree), not_finite (within the exposure's bytes).
    """
    user, item, action = record["user_id"], record["item_id"], record["action"]
    if (not user or not item) and action != HEARTBEAT:
        raise Malformed("empty_id", f"{'item_id' if user else 'user_id'} is empty; the action is {action[:ACTION_BYTES_MAX]!r}")
    if len(user) > 64 or len(item) > 64 or len(record["event_id"]) > 64:  # 64 characters never exceed 256 bytes
        for name in ("user_id", "item_id", "event_id"):
            if len(record[name].encode()) > ID_BYTES_MAX:
                raise Malformed("long_id", f"{name} has {len(record[name].encode())} bytes; the limit is {ID_BYTES_MAX}")
    if not action or (len(action) > 16 and len(action.encode()) > ACTION_BYTES_MAX):
        raise Malformed("bad_action", f"action has {len(action.encode())} bytes, expected 1 to {ACTION_BYTES_MAX}")
    if not TS_MS_MIN <= record["ts_ms"] <= TS_MS_MAX:
        raise Malformed("bad_ts", f"ts_ms is {record['ts_ms']}: not milliseconds between 1990 and 2100")
    context = record["context"]
    if context:
        _check_context(context)
    if record["exposure"] is not None:
        _check_exposure(record["exposure"])


def _check_context(context: dict[str, str]) -> None:
    if len(context) > CONTEXT_MAX:
        raise Malformed("bad_context", f"context has {len(context)} entries; the limit is {CONTEXT_MAX}")
    for name, value in context.items():
        if not name:
            raise Malformed("bad_context", "a context entry has no name")
        if len(name) + len(value) > 256 and max(len(name.encode()), len(value.encode())) > CONTEXT_BYTES_MAX:
            raise Malformed("bad_context", f"context entry {name[:40]!r} is longer than {CONTEXT_BYTES_MAX} bytes")


def _check_exposure(exposure: dict[str, Any]) -> None:
    keys, values, numbers = len(exposure["feature_keys"]), len(exposure["feature_values"]), len(exposure["numbers"])
    if keys % 8 or values % 4 or keys != 2 * values or numbers % 4:
        raise Malformed("bad_exposure", f"feature_keys of {keys} bytes, feature_values of {values}, numbers of {numbers} do not agree")
    if not all(map(math.isfinite, (number for name in ("feature_values", "numbers") for number in _floats(exposure[name])))):
        raise Malformed("not_finite", "a number within feature_values or numbers is NaN or infinite")


def _floats(data: bytes) -> array[float]:
    """The whole little-endian float32 of `data`."""
    floats = array("f", data[: len(data) // 4 * 4])
    if sys.byteorder == "big":
        floats.byteswap()
    return floats
