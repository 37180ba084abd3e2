"""A person's label, checked; and what holds of several by the same and by different labellers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

TEXT_BYTES = 1024
TARGET = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
COLUMNS = ("item_id", "user_id", "target", "label", "labeller", "ts_ms")


class LabelError(Exception):
    """A label that cannot be taken: which one, what is wrong with it."""


class Unit(NamedTuple):
    """What is labelled: an item, or with `user_id` the item as shown to that user."""

    item_id: str
    user_id: str | None
    target: str


class Label(NamedTuple):
    """`label`: a number, 0 and 1 for a target that is an action; ts_ms since 1970."""

    unit: Unit
    label: float
    labeller: str
    ts_ms: int

    def record(self) -> dict[str, Any]:
        """As of schemas/labels.avsc."""
        return {**self.unit._asdict(), "label": self.label, "labeller": self.labeller, "ts_ms": self.ts_ms}


def label_of(row: Mapping[str, Any], now_ms: int, target: str | None = None, labeller: str | None = None) -> Label:
    """A row of a file, whose cells may be texts; `target`, `labeller` and `now_ms` are of rows that do not say. Raises LabelError."""
    unknown = sorted(set(row) - set(COLUMNS))
    if unknown:
        raise LabelError(f"there is no column {unknown[0]!r}; a label has {', '.join(COLUMNS)}")
    said: dict[str, Any] = {name: None if (cell := row.get(name)) in (None, "") else cell for name in COLUMNS}
    texts: dict[str, Any] = {"item_id": said["item_id"], "target": said["target"] or target, "labeller": said["labeller"] or labeller}
    for name, text in texts.items():
        if text is None:
            more = "" if name == "item_id" else f", or say --{name}"
            raise LabelError(f"{name} is missing: give the file a column {name}{more}")
    for name, text in (*texts.items(), ("user_id", said["user_id"])):
        if text is not None and not (isinstance(text, str) and len(text.encode()) <= TEXT_BYTES):
            raise LabelError(f"{name} is {str(text)[:80]!r}: it is a text of at most {TEXT_BYTES} bytes")
    if not TARGET.fullmatch(texts["target"]):
        raise LabelError(f"target is {texts['target'][:80]!r}: an action such as click, or a quality such as spam; letters, digits, _, -")
    label, ts_ms = _number(said["label"], "label"), now_ms if said["ts_ms"] is None else _number(said["ts_ms"], "ts_ms")
    if not 0 < ts_ms <= now_ms + 86_400_000:
        raise LabelError(f"ts_ms is {ts_ms:.0f}: milliseconds since 1970, and not of the future")
    return Label(Unit(texts["item_id"], said["user_id"], texts["target"]), label, texts["labeller"], int(ts_ms))


def _number(cell: Any, name: str) -> float:
    try:
        made = float(cell) if cell is not None else math.nan
    except (TypeError, ValueError):
        made = math.nan
    if not math.isfinite(made):
        raise LabelError(f"{name} is {cell!r}: it is a finite number")
    return made


def order(label: Label) -> tuple[str, str, str, str]:
    """What labels are sorted by: target, item, user, labeller."""
    return label.unit.target, label.unit.item_id, label.unit.user_id or "", label.labeller


def newest(labels: Iterable[Label]) -> list[Label]:
    """The last word of each labeller on each unit: that of the latest time, of one time the one that comes last."""
    held: dict[tuple[Unit, str], Label] = {}
    for one in labels:
        before = held.get((one.unit, one.labeller))
        if before is None or one.ts_ms >= before.ts_ms:
            held[one.unit, one.labeller] = one
    return list(held.values())


def verdicts(labels: Iterable[Label]) -> dict[Unit, float]:
    """What labellers say together, of newest labels: the median; a unit on which the two middle ones differ has none."""
    said: dict[Unit, list[float]] = {}
    for one in labels:
        said.setdefault(one.unit, []).append(one.label)
    middle = {unit: (sorted(values)[(len(values) - 1) // 2], sorted(values)[len(values) // 2]) for unit, values in said.items()}
    return {unit: low for unit, (low, high) in middle.items() if low == high}
