"""A model's input: the slots of the feature set, and those that its transforms make of the set's numbers and slots.

Samples carry keys, values and numbers as they were at the exposure; what a model makes of them is its own, and is made by the same code
when it learns and when it ranks. A transform is of a model's version: another set of them is another model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from headrace.models.batch import Batch, MalformedBatch, from_bytes
from headrace.models.fields import Fields, fields_of

LIMIT = 4.0  # a scaled number lies within: AdaGrad steps as far in every slot, so scale is speed
EDGES_MAX, TRANSFORMS_MAX = 256, 64
_KINDS = ("bucket", "scale", "cross")
_BY = {"none": lambda x: x, "log1p": lambda x: np.sign(x) * np.log1p(np.abs(x)), "log2": lambda x: np.sign(x) * np.log2(1.0 + np.abs(x)),
       "log_odds": lambda x: np.log(np.clip(x, 1e-6, 1 - 1e-6) / (1 - np.clip(x, 1e-6, 1 - 1e-6)))}
_KEYS = {"bucket": ("name", "bucket", "edges"), "scale": ("name", "scale", "by", "center", "spread"), "cross": ("name", "cross")}


class TransformError(Exception):
    """A transform cannot be made; says which of [[model.transforms]], and what to write instead."""


class Transform(NamedTuple):
    """`kind` bucket: of the number `of[0]`, by `edges` float64[e], key by bucket, value 1. scale: the number as one key's value,
    (by(x) - center) / spread. cross: of the slots `of`, a key by the pair of theirs, where both have a value."""

    name: str
    kind: str
    of: tuple[str, ...]
    edges: tuple[float, ...] = ()
    by: str = "none"
    center: float = 0.0
    spread: float = 1.0


class Inputs:
    """slots, side uint8[F] and empty uint64[F], the keys of slots without a value, of a feature set, the names of its numbers, and the
    transforms in order: a cross may be of slots that earlier ones make. `seed(name)` is the key of such a slot without a value. Raises
    TransformError. `blank` float32[K]: the numbers' defaults, for features that are masked; zeros without it."""

    def __init__(self, slots: Sequence[str], side: np.ndarray, empty: np.ndarray, numbers: Sequence[str],
                 transforms: Sequence[Transform] = (), seed: Callable[[str], int] = lambda name: 0,
                 blank: np.ndarray | None = None) -> None:
        self.blank = np.zeros(len(numbers), np.float32) if blank is None else blank
        self._places: tuple[Sequence[str], np.ndarray, np.ndarray] = ((), np.zeros(0, np.int64), np.zeros(0, np.int64))
        self.transforms, self.numbers, self.width = tuple(transforms), tuple(numbers), len(slots)
        if len(self.transforms) > TRANSFORMS_MAX:
            raise TransformError(f"{len(self.transforms)} transforms; a model has at most {TRANSFORMS_MAX}")
        self.slots, sides = list(slots), [int(one) for one in side]
        self._plan: list[tuple[Transform, np.uint64, list[int]]] = []
        for transform in self.transforms:
            known = self.slots if transform.kind == "cross" else list(numbers)
            for name in transform.of:
                if name not in known:
                    what = "slot" if transform.kind == "cross" else "number"
                    raise TransformError(f"transform {transform.name}: {name!r} is no {what} of this feature set; there are"
                                         f" {', '.join(known)}")
            if transform.name in self.slots:
                raise TransformError(f"transform {transform.name}: a slot has that name already")
            places = [known.index(name) for name in transform.of]
            self._plan.append((transform, np.uint64(seed(transform.name)), places))
            self.slots.append(transform.name)
            sides.append(sides[places[0]] if transform.kind == "cross" and len({sides[place] for place in places}) == 1 else 0)
        self.side = np.array(sides, np.uint8)
        self.fields: Fields = fields_of(self.slots, self.side)
        self.F = len(self.slots)
        self.empty = np.concatenate([empty, np.array([made for _, made, _ in self._plan], np.uint64)])

    def masked(self, keys: np.ndarray, values: np.ndarray, numbers: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, ...]:
        """keys, values and numbers with the features `names` as their defaults: numbers and slots of that name, and slots NAME.0 on. A
        name that the set does not have is passed over."""
        if self._places[0] != names:
            slots = [place for place, slot in enumerate(self.slots[: self.width]) if slot in names or slot.rpartition(".")[0] in names]
            self._places = names, np.array(slots, np.int64), np.array([k for k, one in enumerate(self.numbers) if one in names], np.int64)
        _, slots_at, numbers_at = self._places
        keys, values, numbers = keys.copy(), values.copy(), numbers.copy()
        keys[:, slots_at], values[:, slots_at] = self.empty[slots_at], 0.0
        numbers[:, numbers_at] = self.blank[numbers_at]
        return keys, values, numbers

    def expand(self, keys: np.ndarray, values: np.ndarray, numbers: np.ndarray,
               masked: Sequence[str] = ()) -> tuple[np.ndarray, np.ndarray]:
        """(keys uint64[n,F], values float32[n,F]) of samples as they travel: keys and values of the feature set's slots, numbers
        float32[n,K]. `masked`: features that are read as their defaults. The same arrays when there is nothing to be made."""
        if masked:
            keys, values, numbers = self.masked(keys, values, numbers, masked)
        if not self._plan:
            return keys, values
        n = len(keys)
        made, weights = np.empty((n, self.F), np.uint64), np.empty((n, self.F), np.float32)
        made[:, : self.width], weights[:, : self.width] = keys, values
        for slot, (transform, seed, places) in enumerate(self._plan, self.width):
            if transform.kind == "cross":
                first, second = places
                made[:, slot] = mixed(mixed(seed, made[:, first]), made[:, second])
                weights[:, slot] = (weights[:, first] != 0) & (weights[:, second] != 0)
            elif transform.kind == "bucket":
                bucket = np.searchsorted(np.array(transform.edges, np.float32), numbers[:, places[0]], side="right")
                made[:, slot], weights[:, slot] = mixed(seed, bucket.astype(np.uint64)), 1.0
            else:
                scaled = (_BY[transform.by](numbers[:, places[0]].astype(np.float64)) - transform.center) / transform.spread
                made[:, slot], weights[:, slot] = seed, np.clip(scaled, -LIMIT, LIMIT)
            made[:, slot][weights[:, slot] == 0] = seed
        return made, weights


    def batch(self, keys: Sequence[bytes], values: Sequence[bytes], numbers: Sequence[bytes], label: np.ndarray | None = None,
              weight: np.ndarray | None = None, masked: Sequence[str] = ()) -> Batch:
        """Samples as they travel, packed, as the model's batch; `masked` as of `expand`. Raises MalformedBatch."""
        made = from_bytes(keys, values, self.width, label, weight)
        if not self._plan and not masked:
            return made
        rows = np.frombuffer(b"".join(numbers), "<f4")
        if rows.size != len(keys) * len(self.numbers):
            raise MalformedBatch(f"{len(keys)} samples with {rows.size} numbers, expected {len(self.numbers)} each")
        wide, weights = self.expand(made.keys, made.values, rows.reshape(len(keys), len(self.numbers)), masked)
        return Batch(wide, weights, made.label, made.weight)


def mixed(seed: np.ndarray | np.uint64, value: np.ndarray) -> np.ndarray:
    """uint64 of (seed, value): splitmix64's finish, as the keys of buckets in features/kernels.py."""
    x = seed ^ ((value + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15))
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def transforms_of(tables: Sequence[Mapping[str, Any]]) -> tuple[Transform, ...]:
    """From the tables [[model.transforms]]. Raises TransformError."""
    return tuple(_transform(place, table) for place, table in enumerate(tables, 1))


def _transform(place: int, table: Mapping[str, Any]) -> Transform:
    kinds = [kind for kind in _KINDS if kind in table]
    where = f"model.transforms, the {place}."
    if len(kinds) != 1:
        raise TransformError(f"{where}: one of bucket, scale and cross says what it does; it has {', '.join(map(str, table)) or 'nothing'}")
    kind = kinds[0]
    for key in table:
        if key not in _KEYS[kind]:
            raise TransformError(f"{where}: {key!r} is no key of a {kind}; there are {', '.join(_KEYS[kind])}")
    of = table[kind] if kind == "cross" else [table[kind]]
    if not isinstance(of, list) or not all(isinstance(name, str) for name in of) or (kind == "cross" and len(of) != 2):
        raise TransformError(f"{where}: {kind} is {table[kind]!r}; " + ("two names of slots were expected, as [\"user_id\", \"item.0\"]"
                                                                       if kind == "cross" else "the name of a number was expected"))
    name = table.get("name", f"{kind}:{':'.join(of)}")
    made = Transform(str(name), kind, tuple(of))
    if kind == "bucket":
        edges = table.get("edges")
        if not isinstance(edges, list) or not 1 <= len(edges) <= EDGES_MAX or not all(_finite(one) for one in edges) or (
                sorted(set(edges)) != edges):
            raise TransformError(f"{where}: edges is {edges!r}; 1 to {EDGES_MAX} rising numbers were expected, as [0, 1, 3, 10]")
        return made._replace(edges=tuple(float(one) for one in edges))
    if kind == "scale":
        by, center, spread = table.get("by", "none"), table.get("center", 0.0), table.get("spread", 1.0)
        if by not in _BY:
            raise TransformError(f"{where}: by is {by!r}; there are {', '.join(_BY)}")
        if not _finite(center) or not _finite(spread) or spread <= 0:
            raise TransformError(f"{where}: center is a number and spread one above 0; here they are {center!r} and {spread!r}")
        return made._replace(by=by, center=float(center), spread=float(spread))
    return made


def _finite(one: object) -> bool:
    return isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one)
