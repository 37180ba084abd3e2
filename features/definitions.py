"""Feature definitions: what is kept of the events of a user, an item or a pair of them, as data.

A definition comes from a table [feature.NAME] of a TOML file or from a function under `@feature` of a Python file
(features/definition_files.py reads both), and is checked here once; every other file trusts it.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace.features.bounds import Bounds, bounds_of
from headrace.features.durations import milliseconds, written
from headrace.features.layout import NUMBERS, SLOTS
from headrace.features.reducers import IDS, REDUCERS, TILES, TILES_MAX, TTL_NONE, Reducer, State, parameters_of, state_of

KEYS = ("entity", "reducer", "source", "where", "ttl", "default", "owner", "freshness", "bounds", "version", "about")
SOURCES = ("interactions",)
PARTS = ("user", "item", "scene")
COLUMNS = ("user.", "item.", "context.")  # prefixes of columns that events carry in their context map
SEPARATOR = " x "
FRESHNESS_MS = 1000.0
BUILT_IN = {*NUMBERS, *(slot.split(".")[0] for slot in SLOTS)}
_NAME = re.compile(r"^[a-z][a-z0-9_]{0,63}$")
Event = Mapping[str, Any]
Function = Callable[[Event], Any]


class DefinitionError(Exception):
    """A definition cannot be used; the message begins with its file and line and says what to write instead."""


@dataclass(frozen=True)
class Condition:
    """Which events: of one of `actions`, in one of `scenes` (empty: any), with one of the values of each of `columns`, `value` within."""

    actions: tuple[str, ...] = ()
    scenes: tuple[str, ...] = ()
    columns: tuple[tuple[str, tuple[str, ...]], ...] = ()
    least: float = -math.inf
    most: float = math.inf


@dataclass(frozen=True)
class Definition:
    """A checked definition. `entity`: one or two parts, each user, item, scene, or a column (user.NAME, item.NAME, context.NAME).
    `value`: a number, "value", or a column; of reducers of ids "item", "user", "scene" or a column. `function`, of Python, stands in the
    place of `where`, `over` and `value`; `body` is its text."""

    name: str
    version: int
    entity: tuple[str, ...]
    reducer: str
    where: Condition = Condition()
    over: Condition | None = None
    value: str | float = 1.0
    window_ms: float = 0.0
    tiles: int = TILES
    half_life_ms: float = 0.0
    ttl_ms: float = TTL_NONE
    parameters: tuple[tuple[str, float], ...] = ()
    default: float | None = None
    source: str = "interactions"
    owner: str = ""
    freshness_ms: float = FRESHNESS_MS
    about: str = ""
    bounds: Bounds = field(default=Bounds(), compare=False)
    function: Function | None = field(default=None, compare=False)
    body: str = ""
    place: str = field(default="", compare=False)

    @property
    def identity(self) -> str:
        return f"{self.name}@{self.version}"

    def name_in(self, others: Sequence[Definition]) -> str:
        """Its name, with the version where another version stands beside it."""
        return self.identity if any(one.name == self.name and one.version > self.version for one in others) else self.name

    @property
    def group(self) -> str:
        """The rows that it lives in: all definitions of one entity share theirs."""
        return SEPARATOR.join(self.entity)

    @property
    def kind(self) -> Reducer:
        return REDUCERS[self.reducer]

    @property
    def state(self) -> State:
        return state_of(self.reducer, window_ms=self.window_ms, tiles=self.tiles, half_life_ms=self.half_life_ms, ttl_ms=self.ttl_ms,
                        **dict(self.parameters))

    @property
    def blank(self) -> float:
        """What is read before the first event, and after the time to live."""
        if self.default is not None:
            return self.default
        return dict(self.parameters).get("prior", 0.0) if self.kind.default is None else self.kind.default

    @property
    def meaning(self) -> dict[str, Any]:
        """What a change of makes another version: all that decides what the state holds."""
        return {"entity": self.group, "reducer": self.reducer, "source": self.source, "where": _told(self.where),
                "over": None if self.over is None else _told(self.over), "value": self.value, "window": written(self.window_ms or math.inf),
                "tiles": self.tiles if self.window_ms else 0, "half_life": written(self.half_life_ms or math.inf),
                "ttl": written(self.ttl_ms), "parameters": dict(self.parameters), "function": self.body}


def feature(**given: Any) -> Callable[[Function], Function]:
    """A definition from a function of one event, which gives what is folded: a number or True, for reducers of ids a text, None for an
    event that does not count. Its name and docstring are the feature's. The event is the interaction as a dictionary
    (schemas/interactions.avsc). A file of such functions is named in [features] definitions."""

    def keep(function: Function) -> Function:
        code = function.__code__
        collected = getattr(feature, "collected", None)
        if collected is not None:
            collected.append((function.__name__, given, function, f"{code.co_filename}:{code.co_firstlineno}"))
        return function

    return keep


def define(name: str, given: Mapping[str, Any], where_is: Callable[[str], str], function: Function | None = None,
           body: str = "") -> Definition:
    """Check one. `where_is(key)`: the file and line of a key, of "" the definition's own. Raises DefinitionError."""
    return _Check(name, given, where_is, function, body).definition()


class _Check:
    def __init__(self, name: str, given: Mapping[str, Any], where_is: Callable[[str], str], function: Function | None,
                 body: str) -> None:
        self.name, self.given, self.where_is, self.function, self.body = name, given, where_is, function, body

    def wrong(self, key: str, why: str) -> DefinitionError:
        return DefinitionError(f"{self.where_is(key)}: feature {self.name}: {why}")

    def definition(self) -> Definition:
        given = self.given
        if not _NAME.match(self.name):
            raise self.wrong("", "a name is small letters, digits and _, begins with a letter and has at most 64 of them")
        if self.name in BUILT_IN:
            raise self.wrong("", "that is a built-in feature's name; take another")
        reducer = self._reducer()
        entity = self._entity(self._text("entity"))
        window_ms, half_life_ms = self._duration("window"), self._duration("half_life")
        if window_ms and half_life_ms:
            raise self.wrong("half_life", "a window or a half_life, not both")
        tiles = self._whole("tiles", TILES, 1, TILES_MAX)
        if "tiles" in given and not window_ms:
            raise self.wrong("tiles", "tiles are of a window")
        if window_ms and window_ms / tiles < 1:
            raise self.wrong("window", f"{tiles} tiles of less than a millisecond")
        source = str(given.get("source", SOURCES[0]))
        if source not in SOURCES:
            raise self.wrong("source", f"{source!r} is no source; there is {', '.join(SOURCES)} (topics of your own become interactions by"
                                       " `headrace ingest`)")
        value = self._value(reducer)
        condition = self._condition("where")
        over = self._condition("over") if reducer.takes == "ratio" and self.function is None else None
        if reducer.takes == "ratio" and self.function is None and "over" not in given:
            raise self.wrong("", "a ratio has `over`: the events that it is over, as over = { action = \"impression\" }")
        return Definition(
            self.name, self._whole("version", 1, 1, 1 << 16), entity, str(given["reducer"]), condition, over, value, window_ms, tiles,
            half_life_ms, self._duration("ttl") or TTL_NONE, self._parameters(reducer), self._default(reducer), source,
            str(given.get("owner", "")), self._duration("freshness") or FRESHNESS_MS, self._about(),
            self._bounds(reducer), self.function, self.body, self.where_is(""))

    def _bounds(self, reducer: Reducer) -> Bounds:
        try:
            return bounds_of(self.given.get("bounds", {}), reducer.makes == IDS)
        except ValueError as error:
            raise self.wrong("bounds", str(error)) from None

    def _about(self) -> str:
        said = (self.function.__doc__ or "").strip().split("\n")[0] if self.function is not None else ""
        return str(self.given.get("about", said))

    def _reducer(self) -> Reducer:
        name = self._text("reducer")
        if name not in REDUCERS:
            raise self.wrong("reducer", f"{name!r} is no reducer{_nearest(name, REDUCERS)}; they are {', '.join(REDUCERS)}")
        known = {*KEYS, *parameters_of(REDUCERS[name])} - ({"where", "over", "value"} if self.function else set())
        for key in self.given:
            if key not in known:
                why = "a function says itself which events it counts and what it takes of them" if self.function and key in (
                    "where", "over", "value") else f"{key!r} is no key of a definition with reducer {name}{_nearest(key, known)}"
                raise self.wrong(key, why)
        return REDUCERS[name]

    def _text(self, key: str) -> str:
        found = self.given.get(key)
        if not isinstance(found, str) or not found:
            raise self.wrong(key, f"{key} is missing" if found is None else f"{key} is {found!r}, not a text")
        return found

    def _entity(self, text: str) -> tuple[str, ...]:
        parts = tuple(text.split(SEPARATOR))
        for part in parts:
            if part not in PARTS and not (part.startswith(COLUMNS) and part.split(".", 1)[1]):
                raise self.wrong("entity", f"{part!r} is nothing that rows are kept of; write user, item, scene, or a column as"
                                           " item.author, user.country, context.device, or two of them as \"user x item.author\"")
        if len(parts) > 2 or len(set(parts)) != len(parts):
            raise self.wrong("entity", f"{text!r}: one part, or two different ones")
        return parts

    def _duration(self, key: str) -> float:
        if key not in self.given:
            return 0.0
        try:
            return milliseconds(self.given[key])
        except ValueError as error:
            raise self.wrong(key, f"{key} = {error}") from None

    def _whole(self, key: str, default: int, least: int, most: int) -> int:
        found = self.given.get(key, default)
        if not isinstance(found, int) or isinstance(found, bool) or not least <= found <= most:
            raise self.wrong(key, f"{key} is {found!r}, a whole number from {least} to {most} was expected")
        return found

    def _parameters(self, reducer: Reducer) -> tuple[tuple[str, float], ...]:
        found = {}
        for key, parameter in reducer.parameters.items():
            number = self.given.get(key, parameter.default)
            if number is None:
                raise self.wrong("", f"{key} is missing: {self.given['reducer']} gives {reducer.meaning}")
            if not isinstance(number, int if parameter.whole else int | float) or isinstance(number, bool) or not (
                    parameter.least <= number <= parameter.most):
                raise self.wrong(key, f"{key} is {number!r}, expected a {'whole ' if parameter.whole else ''}number from"
                                      f" {parameter.least:g} to {parameter.most:g}")
            found[key] = float(number)
        return tuple(found.items())

    def _default(self, reducer: Reducer) -> float | None:
        found = self.given.get("default")
        if found is None:
            return None
        if reducer.makes == IDS:
            raise self.wrong("default", f"{self.given['reducer']} gives ids, of which none is the default")
        if not isinstance(found, int | float) or isinstance(found, bool) or not math.isfinite(found):
            raise self.wrong("default", f"default is {found!r}, not a finite number")
        return float(found)

    def _value(self, reducer: Reducer) -> str | float:
        found = self.given.get("value", 1.0)
        if self.function is not None or "value" not in parameters_of(reducer):
            return 1.0
        ids = reducer.takes == "token"
        known = ("item", "user", "scene") if ids else ("value",)
        if isinstance(found, int | float) and not isinstance(found, bool) and not ids and math.isfinite(found):
            return float(found)
        if isinstance(found, str) and (found in known or found.startswith(COLUMNS)):
            return found
        wanted = "item, user, scene" if ids else "a number, \"value\" (of the event)"
        if "value" not in self.given:
            raise self.wrong("", f"{self.given['reducer']} has `value`: what it keeps: {wanted}, or a column as \"item.author\"")
        raise self.wrong("value", f"value is {found!r}, expected {wanted}, or a column as \"context.price\"")

    def _condition(self, key: str) -> Condition:
        given = self.given.get(key, {})
        if not isinstance(given, Mapping):
            raise self.wrong(key, f"{key} is {given!r}, not a table as {{ action = [\"click\"] }}")
        columns, least, most = [], -math.inf, math.inf
        for name, wanted in given.items():
            if name in ("value_min", "value_max"):
                if not isinstance(wanted, int | float) or isinstance(wanted, bool):
                    raise self.wrong(key, f"{key}: {name} is {wanted!r}, not a number")
                least, most = (float(wanted), most) if name == "value_min" else (least, float(wanted))
            elif name not in ("action", "scene"):
                if not name.startswith(COLUMNS):
                    near = _nearest(name, ("action", "scene", "value_min", "value_max"))
                    raise self.wrong(key, f"{key}: {name!r} is nothing of an event{near}; a column is written with its side, as"
                                          " \"item.genre\" or \"context.device\"")
                columns.append((name, self._texts(key, name, wanted)))
        return Condition(self._texts(key, "action", given.get("action", ())), self._texts(key, "scene", given.get("scene", ())),
                         tuple(columns), least, most)

    def _texts(self, key: str, name: str, found: Any) -> tuple[str, ...]:
        found = (found,) if isinstance(found, str) else found
        if not isinstance(found, list | tuple) or not all(isinstance(one, str) for one in found):
            raise self.wrong(key, f"{key}: {name} is {found!r}, not a text or a list of texts")
        return tuple(found)


def _nearest(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    return f" (did you mean {near[0]}?)" if near else ""


def _told(condition: Condition) -> dict[str, Any]:
    said: dict[str, Any] = {"action": list(condition.actions), "scene": list(condition.scenes),
                            "columns": {name: list(values) for name, values in condition.columns}}
    return said | {"value": [None if math.isinf(bound) else bound for bound in (condition.least, condition.most)]}
