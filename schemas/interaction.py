"""What an interaction must satisfy beyond its schema, before it may change any feature."""

from __future__ import annotations

import math
import re
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
FLOAT32_MAX = 3.4028234e38
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_UNITS = ((1000, 1, "seconds"), (1, 1000, "microseconds"), (1, 1_000_000, "nanoseconds"))


def check_interaction(record: dict[str, Any]) -> None:
    """Raise Malformed unless a decoded interaction can be used.

    Reasons (schemas/reasons.py): empty_id (users and items; heartbeats need none), long_id, control_character, bad_action, bad_value,
    bad_position, bad_ts, bad_context, bad_exposure, bad_score, not_finite (within the exposure's bytes).
    """
    user, item, action = record["user_id"], record["item_id"], record["action"]
    if (not user or not item) and action != HEARTBEAT:
        raise Malformed("empty_id", f"{'item_id' if user else 'user_id'} is empty; the action is {action[:ACTION_BYTES_MAX]!r}")
    text = user + item + record["event_id"] + record["scene"] + (record["request_id"] or "")
    if len(text) > 64:  # 64 characters never exceed 256 bytes
        _check_lengths(record)
    if not action or (len(action) > 16 and len(action.encode()) > ACTION_BYTES_MAX):
        raise Malformed("bad_action", f"action has {len(action.encode())} bytes, expected 1 to {ACTION_BYTES_MAX}")
    if "," in action:
        raise Malformed("bad_action", f"action {action!r} holds a comma, which separates the actions of a sample")
    if not (action.isprintable() and text.isprintable()):
        _check_characters(record)
    if not -FLOAT32_MAX <= record["value"] <= FLOAT32_MAX:
        raise Malformed("bad_value", f"value is {record['value']:.6g}, beyond what 32 bits can hold")
    position = record["position"]
    if position is not None and position < 0:
        raise Malformed("bad_position", f"position is {position}, expected 0 for the first of the list")
    if not TS_MS_MIN <= record["ts_ms"] <= TS_MS_MAX:
        raise Malformed("bad_ts", f"ts_ms is {record['ts_ms']}: not milliseconds between 1990 and 2100{_unit(record['ts_ms'])}")
    context = record["context"]
    if context:
        _check_context(context)
    if record["exposure"] is not None:
        _check_exposure(record["exposure"])


def _check_lengths(record: dict[str, Any]) -> None:
    for name in ("user_id", "item_id", "event_id", "request_id", "scene"):
        text = record[name] or ""
        if len(text) > 64 and (length := len(text.encode())) > ID_BYTES_MAX:
            raise Malformed("long_id", f"{name} has {length} bytes; the limit is {ID_BYTES_MAX}")


def _check_characters(record: dict[str, Any]) -> None:
    """Control characters only: much that Python calls not printable is part of words and emojis."""
    for name in ("user_id", "item_id", "event_id", "request_id", "scene", "action"):
        found = _CONTROL.search(record[name] or "")
        if found:
            raise Malformed("control_character", f"{name} {record[name][:80]!r} holds U+{ord(found[0]):04X} at character {found.start()}")


def _unit(ts: int) -> str:
    """What a time in another unit looks like."""
    for times, over, name in _UNITS:
        if TS_MS_MIN <= ts * times // over <= TS_MS_MAX:
            return f"; it looks like {name}"
    return ""


def _check_context(context: dict[str, str]) -> None:
    if len(context) > CONTEXT_MAX:
        raise Malformed("bad_context", f"context has {len(context)} entries; the limit is {CONTEXT_MAX}")
    for name, value in context.items():
        if not name:
            raise Malformed("bad_context", "a context entry has no name")
        if "=" in name:
            raise Malformed("bad_context", f"context entry {name[:40]!r} has = in its name, which ends the name of a feature")
        if len(name) + len(value) > 256 and max(len(name.encode()), len(value.encode())) > CONTEXT_BYTES_MAX:
            raise Malformed("bad_context", f"context entry {name[:40]!r} is longer than {CONTEXT_BYTES_MAX} bytes")


def _check_exposure(exposure: dict[str, Any]) -> None:
    keys, values, numbers = len(exposure["feature_keys"]), len(exposure["feature_values"]), len(exposure["numbers"])
    if keys % 8 or values % 4 or keys != 2 * values or numbers % 4:
        raise Malformed("bad_exposure", f"feature_keys of {keys} bytes, feature_values of {values}, numbers of {numbers} do not agree")
    if not all(map(math.isfinite, (number for name in ("feature_values", "numbers") for number in _floats(exposure[name])))):
        raise Malformed("not_finite", "a number within feature_values or numbers is NaN or infinite")
    if (keys or numbers) and not exposure.get("feature_set", ""):
        raise Malformed("bad_exposure", f"features of {keys // 8} slots and no feature_set that says what they are")
    score = exposure.get("score")
    if score is not None and not 0 <= score <= 1:
        raise Malformed("bad_score", f"score is {score:.6g}, expected a probability")


def _floats(data: bytes) -> array[float]:
    """The whole little-endian float32 of `data`."""
    floats = array("f", data[: len(data) // 4 * 4])
    if sys.byteorder == "big":
        floats.byteswap()
    return floats
