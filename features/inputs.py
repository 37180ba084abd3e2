"""What a feature set's definitions take of events: for each event and definition a number, what it is over, and ids.

`Inputs` are the columns of n events that conditions and values look at. The stream makes them from scanned bytes (streaming/), `of_records`
from decoded interactions: the recomputation, the tests and a user's own trial of a definition.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from headrace.features.definitions import Condition, Definition
from headrace.features.feature_set import VALUES, FeatureSet
from headrace.schemas.hashing import event_key, feature_key

Records = Sequence[Mapping[str, Any]]


class Inputs(NamedTuple):
    """action (event_key), scene, user, item uint64[n], value float64[n]; of each of the set's columns tokens uint64[n,VALUES] (0: fewer)
    and reals float64[n] (NaN: no number)."""

    action: np.ndarray
    scene: np.ndarray
    user: np.ndarray
    item: np.ndarray
    value: np.ndarray
    tokens: dict[str, np.ndarray]
    reals: dict[str, np.ndarray]


class Taken(NamedTuple):
    """What D definitions take of n events: x, y float64[n,D] (both NaN: nothing), tokens uint64[n,D,VALUES]; `names`, "field=value", of the
    tokens that functions have made."""

    x: np.ndarray
    y: np.ndarray
    tokens: np.ndarray
    names: list[str]


def moment_of(feature_set: FeatureSet, scene: str, context: Mapping[str, str]) -> np.ndarray:
    """uint64[P] of a request: what stands in `moment` of an event with this scene and context map."""
    return np.array([feature_key("scene", scene) if name == "scene" else keys_of(name, context.get(name.removeprefix("context.")) or "")[0]
                     for name in feature_set.moments], np.uint64)


def columns_of(feature_set: FeatureSet, inputs: Inputs, taken: Taken) -> dict[str, np.ndarray]:
    """The columns of FeatureSet.event_columns behind the built-in ones."""
    n = len(inputs.action)
    moment = np.zeros((n, len(feature_set.moments)), np.uint64)
    for place, name in enumerate(feature_set.moments):
        moment[:, place] = inputs.scene if name == "scene" else inputs.tokens[name][:, 0]
    return {"x": taken.x, "y": taken.y, "tokens": np.ascontiguousarray(taken.tokens[:, feature_set.with_tokens]), "moment": moment}


def taken_of(feature_set: FeatureSet, columns: Mapping[str, np.ndarray]) -> Taken:
    """What `columns_of` has packed."""
    tokens = np.zeros((len(columns["x"]), len(feature_set.all), VALUES), np.uint64)
    tokens[:, feature_set.with_tokens] = columns["tokens"]
    return Taken(columns["x"], columns["y"], tokens, [])


class FunctionError(Exception):
    """A definition's Python function failed on an event, or gave what its reducer cannot take; says which, where, on what."""


def of_records(records: Records, feature_set: FeatureSet) -> Inputs:
    n = len(records)

    def ids(field: str, of: Any) -> np.ndarray:
        return np.array([of(record[field]) for record in records], np.uint64)

    tokens = {name: np.zeros((n, VALUES), np.uint64) for name in feature_set.columns}
    reals = {name: np.full(n, math.nan) for name in feature_set.columns}
    for row, record in enumerate(records):
        for name, keys in tokens.items():
            text = record["context"].get(name.removeprefix("context."))
            if text:
                keys[row], reals[name][row] = keys_of(name, text), number(text)
    return Inputs(ids("action", event_key), ids("scene", lambda scene: feature_key("scene", scene)),
                  ids("user_id", lambda user: feature_key("user_id", user)), ids("item_id", lambda item: feature_key("item_id", item)),
                  np.array([record["value"] for record in records], np.float64), tokens, reals)


def keys_of(column: str, text: str) -> list[int]:
    """uint64[VALUES] of a column's text, 0 for fewer: the keys that its values have as built-in features. Only columns of users and items
    have several values, split by |."""
    field = column.removeprefix("context.")
    parts = [part for part in ([text] if column != field else text.split("|")) if part][:VALUES]
    return [feature_key(field, part) for part in parts] + [0] * (VALUES - len(parts))


def number(text: str) -> float:
    """Of a column's text; NaN for one that is none, or not finite."""
    try:
        found = float(text)
    except ValueError:
        return math.nan
    return found if math.isfinite(found) else math.nan


def take(feature_set: FeatureSet, inputs: Inputs, records: Records | None = None) -> Taken:
    """What every definition of the set takes of the events. `records` are needed where a definition is a function. Raises FunctionError."""
    n, count = len(inputs.action), len(feature_set.all)
    taken = Taken(np.full((n, count), math.nan), np.full((n, count), math.nan), np.zeros((n, count, VALUES), np.uint64), [])
    for d, definition in enumerate(feature_set.all):
        if definition.function is None:
            _take(definition, inputs, taken.x[:, d], taken.y[:, d], taken.tokens[:, d])
        else:
            assert records is not None, "functions take decoded events"
            for row, record in enumerate(records):
                _call(definition, record, row, d, taken)
    return taken


def _take(definition: Definition, inputs: Inputs, x: np.ndarray, y: np.ndarray, tokens: np.ndarray) -> None:
    """Of one definition: x, y float64[n], tokens uint64[n,VALUES], which hold NaN, NaN and 0."""
    chosen = matches(definition.where, inputs)
    if definition.kind.takes == "token":
        found = _tokens(str(definition.value), inputs)
        chosen &= found[:, 0] != 0
        tokens[chosen] = found[chosen]
        x[chosen] = 1.0
        return
    amounts = _amounts(definition.value, inputs)
    chosen &= ~np.isnan(amounts)
    x[chosen] = amounts[chosen]
    if definition.over is not None:
        y[matches(definition.over, inputs)] = 1.0


def matches(condition: Condition, inputs: Inputs) -> np.ndarray:
    """bool[n]: which events a condition holds for."""
    found = np.ones(len(inputs.action), bool)
    if condition.actions:
        found &= np.isin(inputs.action, np.array([event_key(action) for action in condition.actions], np.uint64))
    if condition.scenes:
        found &= np.isin(inputs.scene, np.array([feature_key("scene", scene) for scene in condition.scenes], np.uint64))
    for name, values in condition.columns:
        wanted = np.array([keys_of(name, value)[0] for value in values], np.uint64)
        found &= np.isin(inputs.tokens[name], wanted).any(axis=1)
    if condition.least > -math.inf:
        found &= inputs.value >= condition.least
    if condition.most < math.inf:
        found &= inputs.value <= condition.most
    return found


def _amounts(value: str | float, inputs: Inputs) -> np.ndarray:
    if isinstance(value, str):
        return inputs.value if value == "value" else inputs.reals[value]
    return np.full(len(inputs.value), float(value))


def _tokens(value: str, inputs: Inputs) -> np.ndarray:
    if value not in ("user", "item", "scene"):
        return inputs.tokens[value]
    found = np.zeros((len(inputs.user), VALUES), np.uint64)
    found[:, 0] = {"user": inputs.user, "item": inputs.item, "scene": inputs.scene}[value]
    return found


def _call(definition: Definition, record: Mapping[str, Any], row: int, d: int, taken: Taken) -> None:
    assert definition.function is not None
    try:
        made = definition.function(record)
    except Exception as error:
        raise FunctionError(f"{definition.place}: feature {definition.name}: {type(error).__name__}: {error}, on the event"
                            f" {record['event_id']!r}") from error
    if made is None or (made is False and definition.kind.takes in ("nothing", "token")):
        return
    if definition.kind.takes == "token":
        texts = [made] if isinstance(made, str) else made
        if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
            raise _unfit(definition, made, "a text, a list of texts or None")
        keys = [feature_key(definition.name, text) for text in texts if text][:VALUES]
        if keys:
            taken.tokens[row, d, : len(keys)] = keys
            taken.x[row, d] = 1.0
            taken.names.extend(f"{definition.name}={text}" for text in texts if text)
        return
    if not isinstance(made, int | float | np.number) or not math.isfinite(made):
        raise _unfit(definition, made, "a finite number, True or False, or None")
    taken.x[row, d] = float(made)
    if definition.kind.takes == "ratio":
        taken.y[row, d] = 1.0


def _unfit(definition: Definition, made: object, wanted: str) -> FunctionError:
    return FunctionError(f"{definition.place}: feature {definition.name} gave {made!r}; a function of reducer {definition.reducer} gives"
                         f" {wanted}")
