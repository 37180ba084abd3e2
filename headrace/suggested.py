"""Definitions proposed for a log: what its columns and rates make worth keeping, each with the reason in figures, as a file to edit."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.features.inputs import number
from headrace.rows import Rows

DAY_MS = 86_400_000.0
EVENTS_LEAST = 3.0  # of a row, on average, that a rate of it says more than its prior
VALUES_MOST = 2000  # of a column, beyond which it is rather an id
NUMBERS_LEAST, NUMBERS_DISTINCT = 0.9, 20


class Proposal(NamedTuple):
    name: str
    lines: tuple[str, ...]
    reason: str


def suggested(rows: Rows) -> str:
    """A TOML file of definitions for `rows`; a comment says why each is there."""
    press, span_days = rows.action, (int(rows.ts_ms[-1]) - int(rows.ts_ms[0])) / DAY_MS if len(rows) else 0.0
    rate = rows.positives / len(rows) if len(rows) else 0.0
    head = [f"# Proposed from {len(rows):,} rows over {span_days:,.1f} days, of which {rate:.1%} end in {press!r}. Try it:",
            "# headrace features try FILE --mapping MAPPING.toml --definitions THIS.toml"]
    found = [*_sides(rows, press, rate, span_days), *_columns(rows, press, rate), *_people(rows)]
    if not found:
        head.append("# Nothing here meets anything often enough for a rate to say more than its prior; the built-in features stand.")
    return "\n".join([*head, *("\n".join(["", f"# {one.reason}", f"[feature.{one.name}]", *one.lines]) for one in found)]) + "\n"


def _sides(rows: Rows, press: str, rate: float, span_days: float) -> list[Proposal]:
    """What users and items do, over a half-life of theirs."""
    made = []
    for side, column in (("user", rows.user), ("item", rows.item)):
        each = len(rows) / max(len(column.unique()), 1)
        if each < EVENTS_LEAST:
            continue
        days = _whole_days(_between_ms(column, rows.ts_ms) * 20 / DAY_MS, span_days)
        made.append(Proposal(f"{side}_{_word(press)}_rate", _rate(side, press, rate, f"{days}d"),
                             f"{each:,.0f} rows {'a user' if side == 'user' else 'an item'}; twenty of them lie within about {days} days"))
    return made


def _columns(rows: Rows, press: str, rate: float) -> list[Proposal]:
    made = []
    for name, column in rows.features.items():
        if not name.startswith("item."):
            continue
        texts = column.drop_null()
        if not len(texts):
            continue
        parts = pc.list_flatten(pc.split_pattern(texts.cast(pa.string()), "|"))
        distinct, word = len(parts.unique()), _word(name.removeprefix("item."))
        numbers = [number(one) for one in texts.slice(0, 5000).to_pylist()]
        if np.isfinite(numbers).mean() >= NUMBERS_LEAST and len(set(numbers)) > NUMBERS_DISTINCT:
            made.append(Proposal(f"user_mean_{word}", ('entity = "user"', 'reducer = "mean"', f'where = {{ action = "{press}" }}',
                                                       f'value = "{name}"', 'half_life = "30d"'),
                                 f"{name} is a number in {np.isfinite(numbers).mean():.0%} of the rows"))
            continue
        users, met = len(rows.user.unique()), len(parts)
        if distinct < 2 or distinct > VALUES_MOST:
            continue
        pairs = _pairs(rows, column)
        if met / max(pairs, 1) >= EVENTS_LEAST:
            made.append(Proposal(f"user_{word}_{_word(press)}_rate", _rate(f"user x {name}", press, rate, ""),
                                 f"{distinct:,} values of {name}; a user meets one of his {pairs / users:,.0f} {met / pairs:,.1f} times"))
        made.append(Proposal(f"user_top_{word}", ('entity = "user"', 'reducer = "top_n"', f'where = {{ action = "{press}" }}',
                                                  f'value = "{name}"', "n = 3", 'half_life = "30d"'),
                             f"what a user presses most, of {distinct:,} values of {name}"))
    return made


def _people(rows: Rows) -> list[Proposal]:
    each = len(rows) / max(len(rows.item.unique()), 1)
    if each < EVENTS_LEAST:
        return []
    return [Proposal("item_people", ('entity = "item"', 'reducer = "distinct"', 'value = "user"'),
                     f"{each:,.0f} rows an item: many by few are another thing than many by many")]


def _rate(entity: str, press: str, rate: float, half_life: str) -> tuple[str, ...]:
    lines = (f'entity = "{entity}"', 'reducer = "ratio"', f'where = {{ action = "{press}" }}', 'over = { action = "impression" }',
             f"prior = {rate:.4f}", "weight = 5.0")
    return (*lines, f'half_life = "{half_life}"') if half_life else lines


def _between_ms(column: pa.Array, ts_ms: np.ndarray) -> float:
    """The median time between two rows of one user or item."""
    index = column.dictionary_encode().indices.to_numpy()
    order = np.argsort(index, kind="stable")  # rows are in time order
    same = index[order][1:] == index[order][:-1]
    apart = np.diff(ts_ms[order])[same]
    return float(np.median(apart)) if len(apart) else 0.0


def _pairs(rows: Rows, column: pa.Array) -> int:
    """How many (user, value) there are."""
    users = rows.user.dictionary_encode().indices.to_numpy().astype(np.int64)
    lists = pc.fill_null(pc.split_pattern(pc.fill_null(column.cast(pa.string()), ""), "|"), [])
    lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
    values = pc.list_flatten(lists).dictionary_encode().indices.to_numpy().astype(np.int64)
    return len(np.unique(np.repeat(users, lengths) << 32 | values))


def _whole_days(days: float, span_days: float) -> int:
    return max(1, round(min(days, max(span_days, 1.0), 90.0)))


def _word(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_") or "column"
