"""A file checked as a replay would send it, without sending: which rows would be accepted, and what is wrong with the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.readers import Skipped
from headrace.replay import BATCH_ROWS, interactions
from headrace.rows import Checked, Rows, checked, in_order
from headrace.schemas.errors import Malformed
from headrace.schemas.interaction import check_interaction
from headrace.schemas.mapping import Mapping

SHOWN = 3  # rows told of each reason


@dataclass
class Reason:
    """Why rows are rejected, how many, and the first of them in words."""

    reason: str
    count: int = 0
    first: list[str] = field(default_factory=list)


@dataclass
class Audit:
    """Counts of rows, of users, items and positives among those accepted; their range of time in ms; reasons, the most frequent first;
    what is odd about rows that would be accepted."""

    rows: int = 0
    accepted: int = 0
    rejected: int = 0
    positives: int = 0
    users: int = 0
    items: int = 0
    first_ms: int | None = None
    last_ms: int | None = None
    reasons: list[Reason] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)


def audit(path: str | Path, mapping: Mapping) -> Audit:
    """Every row counted once, under the first thing wrong with it. Raises ReadError when the file cannot be read at all, MappingError."""
    skipped = Skipped()
    found = checked(path, mapping, skipped)
    names = _names(found, skipped)
    reasons = {"not readable": Reason("not readable")}
    for line, why in skipped.rows:
        count(reasons, "not readable", f"line {line}: {why}")
    good = np.ones(len(found.ts_ms), bool)
    for fault in found.faults:
        for row in fault.rows[good[fault.rows]].tolist():
            count(reasons, f"{fault.column} {fault.reason}", f"{names(row)}: {fault.said(row)}")
        good[fault.rows] = False
    rows = in_order(found, mapping, path, good)
    for row, error in _refused(rows):
        count(reasons, error.reason, f"{names(row)}: {error.detail}")
        good[row] = False
    kept = good[rows.row]
    every, accepted, taken = len(good) + len(skipped.rows), int(kept.sum()), pa.array(kept)
    made = Audit(every, accepted, every - accepted, int(rows.label[kept].sum()), len(rows.user.filter(taken).unique()),
                 len(rows.item.filter(taken).unique()),
                 reasons=sorted((reason for reason in reasons.values() if reason.count), key=lambda reason: -reason.count))
    if accepted:
        made.first_ms, made.last_ms = (int(rows.ts_ms[kept][at]) for at in (0, -1))
    made.odd = list(odd(made, mapping))
    return made


def _names(found: Checked, skipped: Skipped) -> Any:
    """row -> how people find it: its line where the file has lines, else its number from 0."""
    lines = skipped.lines
    return (lambda row: f"row {row}") if lines is None or len(lines) != len(found.ts_ms) else (lambda row: f"line {lines[row]}")


def count(reasons: dict[str, Reason], reason: str, said: str) -> None:
    """One more of `reason`; the first are told."""
    of = reasons.setdefault(reason, Reason(reason))
    of.count += 1
    if len(of.first) < SHOWN:
        of.first.append(said)


def _refused(rows: Rows) -> Iterator[tuple[int, Malformed]]:
    """(row, error) of what the features job would put into dead-letters, of an exposure or its action."""
    for first in range(0, len(rows), BATCH_ROWS):
        batch = slice(first, min(first + BATCH_ROWS, len(rows)))
        for (_, impression, action), row in zip(interactions(rows, batch), rows.row[batch].tolist(), strict=True):
            try:
                check_interaction(impression if action is None else action)
            except Malformed as error:
                yield row, error


def odd(made: Audit, mapping: Mapping) -> Iterator[str]:
    """What is odd about all that would be accepted."""
    if not made.accepted:
        yield "no row would be sent"
        return
    label = mapping.label
    if made.positives in (0, made.accepted):
        what = "no row is" if not made.positives else "every row is"
        said = f"{label.column} {label.operator} {label.number:g}" if mapping.events is None else "an event that is no impression"
        yield f"{what} a positive ({said}): nothing can be learnt from that"
    for what, count, column in (("user", made.users, mapping.user_id), ("item", made.items, mapping.item_id)):
        if count == made.accepted > 1:
            yield f"every row has another {what}: is {column!r} the id of the row?"
        if count == 1 < made.accepted:
            yield f"all rows have one {what}: is {column!r} the right column?"
    if made.first_ms == made.last_ms and made.accepted > 1:
        yield f"all rows have one time: is {mapping.ts!r} the right column?"
