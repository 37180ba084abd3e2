"""MAPPING.toml: which column of a file, or field of a topic's records, is the user, the item, the time, the label and the features.

One language for both, so that rows replayed from a file and rows read from a topic become the same interactions; its section [source] is
of topics alone (schemas/source.py).
"""

from __future__ import annotations

import difflib
import math
import operator
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headrace.schemas.interaction import ACTION_BYTES_MAX, HEARTBEAT
from headrace.schemas.source import KEYS as SOURCE_KEYS
from headrace.schemas.source import Source, SourceError, source

if sys.version_info >= (3, 11):
    import tomllib
else:  # CPython 3.10
    import tomli as tomllib

KEYS = {
    "": ("time_unit", "columns", "context", "user", "item", "events", "source"),
    "columns": ("user_id", "item_id", "ts", "label", "action", "event", "request_id"),
    "context": ("fields",),
    "user": ("fields", "separator"),
    "item": ("fields", "separator"),
    "events": (),  # the topic's own names
    "source": SOURCE_KEYS,
}
OTHERS = "*"
UNITS = {"s": 1000.0, "ms": 1.0, "us": 1e-3, "ns": 1e-6}  # milliseconds of one
OPERATORS: dict[str, Callable[[Any, float], Any]] = {
    ">=": operator.ge, "<=": operator.le, "==": operator.eq, "!=": operator.ne, ">": operator.gt, "<": operator.lt,
}
_COMPARISON = re.compile(r"^(?P<column>[^<>=!]+?)\s*(?P<operator>>=|<=|==|!=|>|<)\s*(?P<number>.*)$")


class MappingError(Exception):
    """The mapping cannot be used; the message says which key of which file, and what to write instead."""


@dataclass(frozen=True)
class Label:
    """When a row is a positive: `column` compared with `number`; a bare column is true where it is neither 0 nor null."""

    column: str
    operator: str = "!="
    number: float = 0.0

    def of(self, values: np.ndarray) -> np.ndarray:
        """bool[n] of float64[n]; NaN (a null) is never a positive."""
        return OPERATORS[self.operator](values, self.number) & ~np.isnan(values)


@dataclass(frozen=True)
class Events:
    """Of topics whose records are one event each: `column` says which, `actions` what each is called here; "" leaves it aside, and `*` is
    any other. `request_id`: the field that an exposure and its actions share, "" for none."""

    column: str
    actions: dict[str, str]
    request_id: str = ""

    def of(self, name: str) -> str | None:
        """The action of an event, None when the mapping does not say."""
        return self.actions.get(name, self.actions.get(OTHERS))


@dataclass(frozen=True)
class Mapping:
    """A checked MAPPING.toml. Separators split one text into several values of a field; on topics they are always `|`. `source`: of a
    topic, None for a file's alone."""

    user_id: str
    item_id: str
    ts: str
    label: Label
    time_unit: str = "s"
    action: str = "click"
    context: tuple[str, ...] = ()
    user: tuple[str, ...] = ()
    item: tuple[str, ...] = ()
    user_separator: str = "|"
    item_separator: str = "|"
    source: Source | None = None
    events: Events | None = None  # then `label` is only the event's column, and says nothing

    @property
    def features(self) -> dict[str, tuple[str, str | None]]:
        """Context key on the topic -> (column, separator or None)."""
        return {
            **{name: (name, None) for name in self.context},
            **{f"user.{name}": (name, self.user_separator) for name in self.user},
            **{f"item.{name}": (name, self.item_separator) for name in self.item},
        }

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column of the file that is read, each once."""
        request = (self.events.request_id,) if self.events is not None and self.events.request_id else ()
        named = (self.user_id, self.item_id, self.ts, self.label.column, *request, *self.context, *self.user, *self.item)
        return tuple(dict.fromkeys(named))

    @property
    def texts(self) -> tuple[str, ...]:
        """Columns that are read as text whatever they look like: an id 007 is not the number 7."""
        numbers = (self.ts,) if self.events is not None else (self.ts, self.label.column)
        return tuple(name for name in self.columns if name not in numbers)

    def check(self, columns: Iterable[str], file: str | Path) -> None:
        """Raises MappingError when `file`, whose columns these are, lacks one that is mapped."""
        columns = list(columns)
        for name in self.columns:
            if name not in columns:
                near = difflib.get_close_matches(name, columns, 1, 0.6)
                hint = f"; the nearest is {near[0]!r}" if near else ""
                raise MappingError(f"{file} has no column {name!r} that the mapping names{hint}; its columns: {', '.join(columns)}")


def load(path: str | Path) -> Mapping:
    """The mapping in the TOML file `path`. Raises MappingError."""
    path = Path(path)
    try:
        return parse(tomllib.loads(path.read_text(encoding="utf-8")), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise MappingError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except tomllib.TOMLDecodeError as error:
        raise MappingError(f"{path}: {error}") from None


def parse(values: dict[str, Any], where: str = "mapping") -> Mapping:
    """The mapping in a parsed TOML document; `where` names it in errors. Raises MappingError."""
    for name, body in values.items():
        _known(name, KEYS[""], where)
        if name == "time_unit":
            continue
        if not isinstance(body, dict):
            raise MappingError(f"{where}: {name} is a section, write [{name}]")
        for key in body if name != "events" else ():
            _known(key, KEYS[name], f"{where}: [{name}]")
    unit = values.get("time_unit", "s")
    if unit not in UNITS:
        raise MappingError(f'{where}: time_unit is {unit!r}; write "s", "ms", "us" or "ns"')
    columns = values.get("columns", {})
    for key in ("user_id", "item_id", "ts", "event" if "events" in values else "label"):
        if key not in columns:
            raise MappingError(f"{where}: [columns] lacks {key}")
    for key, value in columns.items():
        if not isinstance(value, str) or not value.strip():
            raise MappingError(f"{where}: [columns] {key} is {value!r}; write a text that is not empty")
    if columns.get("action") in ("impression", "heartbeat"):
        raise MappingError(f"{where}: [columns] action is {columns['action']!r}, which is no action of a user; write click, like, ...")
    return Mapping(
        user_id=columns["user_id"], item_id=columns["item_id"], ts=columns["ts"], time_unit=unit, events=_events(values, where),
        label=Label(columns["event"]) if "events" in values else label(columns["label"], where),
        action=columns.get("action", "click"), context=_fields(values, "context", where),
        user=_fields(values, "user", where), user_separator=_separator(values, "user", where),
        item=_fields(values, "item", where), item_separator=_separator(values, "item", where), source=_source(values, where),
    )


def _events(values: dict[str, Any], where: str) -> Events | None:
    columns, actions = values["columns"], values.get("events")
    if actions is None:
        for key in ("event", "request_id"):
            if key in columns:
                raise MappingError(f"{where}: [columns] {key} goes with a section [events], which says what each event is")
        return None
    for key in ("label", "action"):
        if key in columns:
            raise MappingError(f"{where}: [columns] {key} and [events]: a record is an exposure with its label, or one event")
    for name, action in actions.items():
        if not isinstance(action, str) or "," in action or len(action.encode()) > ACTION_BYTES_MAX or action == HEARTBEAT:
            raise MappingError(f"{where}: [events] {name} is {action!r}; write impression, click, like, ... or \"\" to leave it aside")
    if "impression" not in actions.values():
        raise MappingError(f"{where}: [events] has no impression, and an action without its exposure is no sample")
    return Events(columns["event"], dict(actions), columns.get("request_id", ""))


def _source(values: dict[str, Any], where: str) -> Source | None:
    try:
        return source(values["source"]) if "source" in values else None
    except SourceError as error:
        raise MappingError(f"{where}: [source] {error}") from None


def label(text: str, where: str = "mapping") -> Label:
    """`column`, or `column OP number` with OP one of >=, >, <=, <, ==, !=. Raises MappingError."""
    text = text.strip()
    found = _COMPARISON.match(text)
    if found is None:
        if re.search(r"[<>=!]", text):
            raise MappingError(f"{where}: label {text!r}: write a column, or a column, one of {' '.join(OPERATORS)} and a number")
        return Label(text)
    try:
        number = float(found["number"])
    except ValueError:
        raise MappingError(f"{where}: label {text!r} compares with {found['number']!r}, which is no number") from None
    if math.isnan(number):
        raise MappingError(f"{where}: label {text!r} compares with a NaN, which nothing equals")
    return Label(found["column"], found["operator"], number)


def _fields(values: dict[str, Any], section: str, where: str) -> tuple[str, ...]:
    fields = values.get(section, {}).get("fields", [])
    if not isinstance(fields, list) or any(not isinstance(name, str) or not name for name in fields):
        raise MappingError(f"{where}: [{section}] fields is a list of column names")
    for name in fields:
        if section == "context" and name.startswith("_"):
            raise MappingError(f"{where}: [context] field {name!r}: keys that start with _ are kept out of the features; rename the column")
    return tuple(dict.fromkeys(fields))


def _separator(values: dict[str, Any], section: str, where: str) -> str:
    separator = values.get(section, {}).get("separator", "|")
    if not isinstance(separator, str) or not separator:
        raise MappingError(f"{where}: [{section}] separator is a text that is not empty")
    return separator


def _known(name: str, known: tuple[str, ...], where: str) -> None:
    if name not in known:
        raise MappingError(f"{where}: unknown key {name!r}; the nearest is {difflib.get_close_matches(name, known, 1, 0)[0]!r}")
