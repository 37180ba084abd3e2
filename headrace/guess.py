"""A mapping proposed for a file, with the reason of each line: by names that logs use, and by what the values do.

A column that has one value for each user is the user's, one for each item the item's, others belong to the exposure. What is known only
after the exposure (an outcome) is no feature: it would tell the label.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.readers import peek
from headrace.schemas.interaction import TS_MS_MAX, TS_MS_MIN

ROWS_MAX = 200_000
USER = ("user_id", "user", "uid", "customer_id", "customer", "visitor_id", "visitor", "member_id", "account_id", "client_id", "reviewer_id",
        "device_id", "cookie_id", "session_id", "member", "account", "client", "reviewer", "viewer_id", "viewer", "reader_id", "reader",
        "buyer_id", "buyer", "shopper_id", "shopper", "person_id", "person", "profile_id")
ITEM = ("item_id", "item", "iid", "movie_id", "product_id", "video_id", "article_id", "post_id", "photo_id", "content_id", "news_id",
        "book_id", "song_id", "track_id", "business_id", "listing_id", "goods_id", "sku_id", "sku", "asin", "parent_asin", "isbn", "ad_id",
        "doc_id", "note_id", "mid", "product", "movie", "film_id", "film", "video", "article", "post", "photo", "content", "news", "book",
        "song", "track", "listing", "goods", "asset_id", "asset", "page_id", "document_id", "ad")
TIME = ("ts_ms", "ts", "timestamp", "event_time", "time_ms", "time", "datetime", "created_at", "date_time", "unix_time",
        "unix_timestamp", "unix_review_time", "date", "event_timestamp", "when", "occurred_at", "at")
CLICK = ("is_click", "click", "clicked", "label", "is_clicked", "target", "liked", "is_like", "like", "converted", "purchased", "response",
         "is_positive", "feedback", "bought", "is_bought", "purchase", "buy", "is_buy", "ordered", "accepted", "outcome")
RATING = ("rating", "stars", "overall", "score", "review_rating", "rate")
OUTCOME = re.compile(r"(^|_)(click|clicked|like|liked|follow|comment|forward|share|hate|play|watch|watched|dwell|view|purchase|purchased"
                     r"|buy|bought|cart|order|rating|stars|score|enter|stay|conversion|converted|feedback|response|label)(_|$)")
SEPARATORS = ("|", ";", ",")
DETERMINED, TELLING, MOSTLY = 0.995, 0.999, 0.9
NUMBERS_MAX, FINE = 200, 0.3  # distinct values of a number that is still a category; of users and items


class NoGuess(Exception):
    """No mapping can be proposed; the message says which column was not found, and lists those there are."""


@dataclass
class Column:
    """One column of the sample: values coded int64[n], -1 for null; their number; the names it may be known by."""

    name: str
    known: str
    values: pa.Array
    codes: np.ndarray
    distinct: int


@dataclass
class Guess:
    """`time_unit`: "" for times that have a unit of their own; `columns`: key of [columns] -> (value, why); the fields of each section with
    why; what was left out and why."""

    time_unit: str = "s"
    columns: dict[str, tuple[str, str]] = field(default_factory=dict)
    fields: dict[str, dict[str, str]] = field(default_factory=lambda: {"context": {}, "user": {}, "item": {}})
    separators: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)

    def text(self, file: str, rows: int, tried: str = "") -> str:
        """MAPPING.toml, each line with its reason as a comment; `tried`: the command that tries it."""
        tried = tried or f"headrace replay {file} --mapping THIS --check"
        lines = [f"# proposed for {file} by its first {rows:,} rows; {tried} tries it",
                 *([f'time_unit = "{self.time_unit}"'] if self.time_unit else []), "", "[columns]"]
        lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}  # {why}" for key, (value, why) in self.columns.items()]
        for section, fields in self.fields.items():
            if fields:
                lines += ["", f"[{section}]", "fields = ["]
                lines += [f"    {json.dumps(name, ensure_ascii=False)},  # {why}" for name, why in fields.items()]
                lines.append("]")
                if section in self.separators:
                    lines.append(f"separator = {json.dumps(self.separators[section])}")
        if self.left:
            lines += ["", "# left out:"] + [f"#   {json.dumps(name, ensure_ascii=False)}: {why}" for name, why in self.left.items()]
        return "\n".join(lines) + "\n"


def guess(path: str | Path) -> tuple[Guess, int]:
    """The proposal and the rows that it is of. Raises NoGuess, ReadError."""
    table = peek(path, ROWS_MAX)
    return of_table(table, path), table.num_rows


def of_table(table: pa.Table, path: str | Path) -> Guess:
    """The proposal for rows of `path`, a file or a topic. Raises NoGuess."""
    columns = [_column(name, table[name]) for name in table.column_names]
    made = Guess()
    user = _named(columns, USER, "user", path)
    item = _named([one for one in columns if one is not user], ITEM, "item", path)
    rest = [one for one in columns if one not in (user, item)]
    ts, unit, why = _time(rest, path)
    rest.remove(ts)
    label, text, because = _label(rest, path)
    made.time_unit = unit
    made.columns = {"user_id": (user.name, f"{user.distinct:,} values"), "item_id": (item.name, f"{item.distinct:,} values"),
                    "ts": (ts.name, why), "label": (text, because)}
    for one in rest:
        if one is not label:
            _place(made, one, user, item, label)
    _separate(made, {one.name: one for one in columns})
    return made


def known_as(name: str) -> str:
    """userId, User-ID and user id are user_id."""
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()).strip("_")


def _column(name: str, values: pa.ChunkedArray) -> Column:
    array = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        array = pc.binary_join(array.cast(pa.list_(pa.string())), "|")
    elif pa.types.is_struct(array.type) or pa.types.is_map(array.type):
        array = pa.nulls(len(array))
    coded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
    codes = coded.indices.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)
    values = coded.dictionary_decode() if pa.types.is_dictionary(array.type) else array
    return Column(name, known_as(name), values, codes, len(np.unique(codes[codes >= 0])))


def _named(columns: list[Column], names: tuple[str, ...], what: str, path: str | Path) -> Column:
    found = [one for name in names for one in columns if one.known == name] or \
            [one for one in columns if one.known.startswith(f"{what}_") and one.known.endswith(("id", "hash", "key", "code"))]
    for one in found:
        if one.distinct > 1:
            return one
    raise _nothing(what, columns, path, f"name it {names[0]}, or write the mapping by hand: `headrace replay --help`, docs/replay.md")


def _nothing(what: str, columns: list[Column], path: str | Path, then: str) -> NoGuess:
    return NoGuess(f"{path}: no column looks like the {what}: {then}; its columns: {', '.join(one.name for one in columns)}")


def _time(columns: list[Column], path: str | Path) -> tuple[Column, str, str]:
    """The column, its unit ("" of timestamps and texts), why."""
    ranked = [one for name in TIME for one in columns if one.known == name]
    ranked += [one for one in columns if one not in ranked and pa.types.is_temporal(one.values.type)]
    ranked += [one for one in columns if one not in ranked and re.search(r"(^|_)(ts|time|timestamp|date)(_|$)", one.known)]
    for one in ranked:
        kind = one.values.type
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            return one, "", f"timestamps: {_span(one.values)}"
        if pa.types.is_string(kind) and re.match(r"\d{4}-\d\d-\d\d", next((text for text in one.values.to_pylist() if text), "")):
            return one, "", "texts of ISO 8601"
        if pa.types.is_integer(kind) or pa.types.is_floating(kind):
            low, high = (bound.as_py() for bound in pc.min_max(one.values).values())
            for unit, times in (("s", 1000), ("ms", 1)):
                if low is not None and low * times >= TS_MS_MIN and high * times <= TS_MS_MAX:
                    return one, unit, f"{low} to {high}: {'seconds' if unit == 's' else 'milliseconds'} since 1970"
    raise _nothing("time", columns, path, "seconds or milliseconds since 1970, timestamps or texts of ISO 8601 are needed")


def _span(values: pa.Array) -> str:
    low, high = (bound.as_py() for bound in pc.min_max(values).values())
    return f"{low} to {high}"


def _label(columns: list[Column], path: str | Path) -> tuple[Column, str, str]:
    """The column, what [columns] label says, why."""
    for one in (one for name in (*CLICK, *RATING) for one in columns if one.known == name):
        values = _as_numbers(one)
        if values is None or one.distinct < 2:
            continue
        there = values[~np.isnan(values)]
        levels = np.unique(there)
        if len(levels) == 2:
            text = one.name if levels[0] == 0 else f"{one.name} >= {levels[1]:g}"
            return one, text, f"two values, the upper one in {np.mean(there == levels[1]):.1%} of rows"
        if 3 <= len(levels) <= 101:
            least = min(levels[1:], key=lambda level: abs(np.mean(there >= level) - 0.5))
            why = f"{len(levels)} levels from {levels[0]:g} to {levels[-1]:g}; {np.mean(there >= least):.1%} of rows"
            return one, f"{one.name} >= {least:g}", why
    raise _nothing("label", columns, path, "a column of two values, or a rating, named is_click, label, rating or the like is needed (texts"
                   " such as view and purchase cannot be compared)")


def _as_numbers(one: Column) -> np.ndarray | None:
    kind = one.values.type
    if pa.types.is_boolean(kind):
        return one.values.cast(pa.int8()).cast(pa.float64()).to_numpy(zero_copy_only=False)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return one.values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return None


def _place(made: Guess, one: Column, user: Column, item: Column, label: Column) -> None:
    """Into the section whose side determines it, or left out with the reason."""
    rows = len(one.codes)
    if one.distinct < 2:
        made.left[one.name] = "one value, or none" if one.values.type != pa.null() else "no value of one kind"
    elif OUTCOME.search(one.known):
        made.left[one.name] = "looks like an outcome: known only after the exposure, it would tell the label"
    elif one.distinct > NUMBERS_MAX and _as_numbers(one) is not None and one.distinct > FINE * min(item.distinct, user.distinct):
        made.left[one.name] = f"a number of {one.distinct:,} values: features are categories, cut it into some first"
    elif _determined(one, user):
        made.fields["user"][one.name] = f"one value for each user, {one.distinct:,} in all"
    elif _determined(one, item):
        made.fields["item"][one.name] = f"one value for each item, {one.distinct:,} in all"
    elif _tells(one, label):
        made.left[one.name] = f"its values tell {label.name!r}: it would be known only afterwards"
    elif one.distinct > MOSTLY * rows:
        made.left[one.name] = "another value in nearly each row"
    elif pa.types.is_temporal(one.values.type):
        made.left[one.name] = "a time: its hour or weekday would be a feature"
    else:
        made.fields["context"][one.name] = f"changes within users and items, {one.distinct:,} values"


def _determined(one: Column, by: Column) -> bool:
    """Whether nearly all keys of `by` that come twice or more have one value."""
    there = by.codes >= 0
    keys, values = by.codes[there], one.codes[there]
    counts = np.bincount(keys)
    pairs = np.unique(np.stack([keys, values]), axis=1)[0]
    kinds = np.bincount(pairs, minlength=len(counts))
    several = counts > 1
    return bool(several.any()) and float(np.mean(kinds[several] == 1)) >= DETERMINED


def _tells(one: Column, label: Column) -> bool:
    """Whether nearly each value of `one` comes with one value of the label, in a column of few values."""
    there = one.codes >= 0
    if one.distinct > NUMBERS_MAX or not there.any():
        return False
    pairs, pair_counts = np.unique(np.stack([one.codes[there], label.codes[there]]), axis=1, return_counts=True)
    best = np.zeros(int(pairs[0].max()) + 1)
    np.maximum.at(best, pairs[0], pair_counts)
    _, label_counts = np.unique(label.codes[there], return_counts=True)
    return bool(best.sum() / there.sum() >= TELLING > label_counts.max() / there.sum())


def _separate(made: Guess, columns: dict[str, Column]) -> None:
    """The separator of a section: in a fifth of the texts of one of its fields, whose parts come again."""
    for section in ("user", "item"):
        for name, separator in _separators(columns[name] for name in made.fields[section]):
            made.separators.setdefault(section, separator)
            if made.separators[section] == separator:
                made.fields[section][name] += f"; several, split by {separator}"


def _separators(columns: Iterator[Column]) -> Iterator[tuple[str, str]]:
    for one in columns:
        if not pa.types.is_string(one.values.type):
            continue
        texts = [text for text in one.values.unique().to_pylist() if text]
        for separator in SEPARATORS:
            split = [text.split(separator) for text in texts if separator in text]
            parts = [part for found in split for part in found]
            if len(split) >= 0.2 * len(texts) and len(split) > 1 and len(set(parts)) < 0.5 * len(parts):
                yield one.name, separator
                break
