"""A feature set by dictionaries and reducer_twins: what each definition says at each event, from the interactions themselves."""

import dataclasses
import math

from headrace.features.reducers import IDS
from headrace.schemas.hashing import feature_key
from tests.features.reducer_twins import Twin


class SetTwin:
    """Takes interactions in order. `read` gives {definition: number, or list of tokens}."""

    def __init__(self, definitions, idle_s=math.inf):
        self.definitions = [dataclasses.replace(one, ttl_ms=min(one.ttl_ms, 1000 * idle_s)) for one in definitions]
        self.states, self.attributes, self.idle_ms = {}, {}, 1000 * idle_s

    def event(self, record):
        """What is seen at the event, which then is folded."""
        ts = record["ts_ms"]
        for side, one in (("user", record["user_id"]), ("item", record["item_id"])):
            for name, text in record["context"].items():
                if name.startswith(f"{side}.") and text:
                    self.attribute(side, one, name, [part for part in text.split("|") if part][:4], ts)
        lookups = [one for one in self.definitions if one.reducer.startswith("lookup")]
        for one in lookups:
            self.fold(one, record)
        seen = self.read(record["user_id"], record["item_id"], record["scene"], record["context"], ts)
        for one in self.definitions:
            if one not in lookups:
                self.fold(one, record)
        return seen

    def attribute(self, side, one, name, values, ts):
        stamp = (ts, feature_key(name, values[0]))
        if stamp > self.attributes.get((side, one, name), ((-1, 0), []))[0]:
            self.attributes[side, one, name] = stamp, values

    def rows(self, definition, user, item, scene, context, ts):
        """Of the entity: keys of the states that the event is folded into."""
        parts = []
        for part in definition.entity:
            if part in ("user", "item", "scene"):
                parts.append([{"user": user, "item": item, "scene": scene}[part]])
            elif part.startswith("context."):
                text = context.get(part.removeprefix("context."))
                parts.append([text] if text else [])
            else:
                side = part.split(".")[0]
                (told_ms, _), values = self.attributes.get((side, {"user": user, "item": item}[side], part), ((ts, 0), []))
                parts.append(values if ts - told_ms <= self.idle_ms else [])
        return [(definition, *key) for key in product(parts)]

    def fold(self, definition, record):
        for x, y, token in taken(definition, record):
            for key in self.rows(definition, record["user_id"], record["item_id"], record["scene"], record["context"], record["ts_ms"]):
                self.state(key, definition).fold(x, y, token, record["ts_ms"])

    def state(self, key, definition):
        if key not in self.states:
            given = {"n": 4 * dict(definition.parameters)["n"]} if definition.reducer == "top_n" else {}
            self.states[key] = Twin(definition.reducer, definition.ttl_ms, definition.window_ms, definition.tiles,
                                    definition.half_life_ms, **{**dict(definition.parameters), **given})
        return self.states[key]

    def read(self, user, item, scene, context, ts):
        found = {}
        for one in self.definitions:
            ids = one.kind.makes == IDS
            live = [state for key in self.rows(one, user, item, scene, context, ts) if (state := self.states.get(key)) is not None
                    and state.newest is not None and ts <= state.newest + state.ttl_ms]
            whole = Twin(one.reducer, one.ttl_ms, one.window_ms, one.tiles, one.half_life_ms, **dict(one.parameters))
            whole.events = [event for state in live for event in state.events]
            whole.newest = max((state.newest for state in live), default=None)
            found[one.name] = whole.read(ts, [] if ids else one.blank)
        return found


def product(parts):
    made = [()]
    for values in parts:
        made = [(*left, value) for left in made for value in values]
    return made


def holds(condition, record):
    context = {(name if name.startswith(("user.", "item.")) else f"context.{name}"): text for name, text in record["context"].items()}
    for name, wanted in condition.columns:
        values = context.get(name, "").split("|")[:4] if not name.startswith("context.") else [context.get(name)]
        if not set(values) & set(wanted):
            return False
    return ((not condition.actions or record["action"] in condition.actions)
            and (not condition.scenes or record["scene"] in condition.scenes)
            and condition.least <= record["value"] <= condition.most)


def taken(definition, record):
    """(x, y, token) of an event, once a token."""
    if definition.function is not None:
        made = definition.function(record)
        if definition.kind.takes == "token":
            texts = [made] if isinstance(made, str) else made or []
            return [(1.0, 0.0, feature_key(definition.name, text)) for text in texts][:4]
        return [] if made is None else [(made, 1.0, 0)]
    x, y = holds(definition.where, record), definition.over is not None and holds(definition.over, record)
    if definition.kind.takes == "token":
        own = {"user": ("user_id", record["user_id"]), "item": ("item_id", record["item_id"]), "scene": ("scene", record["scene"])}
        field, text = own.get(definition.value, (definition.value, record["context"].get(definition.value, "")))
        parts = [text] if definition.value in own else [part for part in text.split("|") if part][:4]
        parts = parts[:1] if definition.reducer == "lookup_id" else parts
        return [(1.0, 0.0, feature_key(field, part)) for part in parts] if x else []
    amount = definition.value
    if isinstance(amount, str):
        amount = record["value"] if amount == "value" else float(record["context"].get(amount, math.nan))
    x &= not math.isnan(amount)
    return [(amount if x else 0.0, float(y), 0)] if x or y else []
