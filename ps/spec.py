"""What a shard holds: the tables of a model, as JSON both ways."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from headrace.ps.admission import ADMISSIONS, AFTER_MAX, BLOOM_A_KEY, bytes_of
from headrace.ps.index import CALL_ROWS, CAPACITY_MIN, LOAD_MAX
from headrace.ps.optimizers import OPTIMIZERS

DIM_MAX = 4096
ENCODINGS = ("float32", "float16", "int8")
ROWS_MIN = 2 * CALL_ROWS
_NAMES = "a name is made of a-z, 0-9, _ and -, at most 64 of them"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class SpecError(ValueError):
    """A specification that cannot be held: the message says which field of which table, and what is allowed. Mend the caller's spec."""


@dataclass(frozen=True)
class TableSpec:
    """One table: `dim` numbers a row of `dtype` ("float32" or "int64"), changed by `optimizer` with `params` (ps/optimizers.py).

    `init_scale`: standard deviation of columns 1.. of a new row (column 0 is 0), seeded by key and column; `served`: published to replicas,
    as `encoding` (ps/encoding.py: float32, float16, int8).

    A gradient's coordinates are held in +-`clip_value`, then a row's norm at `clip_norm`, and the weights after it in +-`weight_bound`; 0
    is no limit. `admission` (ps/admission.py) lets an unknown key in at its `admit_after`-th push; `admit_keys`: how many wait at once, by
    default the shard's rows_max, or what an eighth of `bytes_max` holds. `ttl_s`: a row whose last push is older in event time goes;
    `bytes_max`: the table's memory on a shard, at which the least recently pushed rows go (0: the table is full at the shard's rows_max,
    and refuses). Raises SpecError.
    """

    name: str
    dtype: str = "float32"
    dim: int = 1
    optimizer: str = "adagrad"
    params: dict[str, float] = field(default_factory=dict)
    init_scale: float = 0.0
    served: bool = False
    encoding: str = "float32"
    clip_value: float = 0.0
    clip_norm: float = 0.0
    weight_bound: float = 0.0
    admission: str = "none"
    admit_after: int = 2
    admit_keys: int = 0
    ttl_s: int = 0
    bytes_max: int = 0

    def __post_init__(self) -> None:
        where = f"table {self.name!r}"
        _check(isinstance(self.name, str) and _NAME.fullmatch(self.name), f"{where}: {_NAMES}")
        _check(self.dtype in ("float32", "int64"), f"{where}: dtype {self.dtype!r}; allowed: float32, int64")
        _check(isinstance(self.dim, int) and 1 <= self.dim <= DIM_MAX, f"{where}: dim {self.dim!r}; allowed: 1 to {DIM_MAX}")
        _check(self.optimizer in OPTIMIZERS, f"{where}: optimizer {self.optimizer!r}; known: {', '.join(sorted(OPTIMIZERS))}")
        _check(self.dtype == "float32" or self.optimizer == "sum", f"{where}: an int64 table's optimizer is sum, not {self.optimizer}")
        _check(math.isfinite(self.init_scale) and self.init_scale >= 0, f"{where}: init_scale {self.init_scale!r} is no finite number >= 0")
        _check(self.dtype == "float32" or self.init_scale == 0, f"{where}: init_scale of an int64 table is 0")
        _check(not self.served or self.dtype == "float32", f"{where}: only a float32 table can be served")
        _check(self.encoding in ENCODINGS, f"{where}: encoding {self.encoding!r}; known: {', '.join(ENCODINGS)}")
        for name in ("clip_value", "clip_norm", "weight_bound"):
            limit = getattr(self, name)
            _check(math.isfinite(limit) and limit >= 0, f"{where}: {name} {limit!r} is no finite number >= 0")
            _check(not limit or self.optimizer != "sum", f"{where}: {name} of a table of sums: nothing is to be cut there")
        _check(self.admission in ADMISSIONS, f"{where}: admission {self.admission!r}; known: {', '.join(ADMISSIONS)}")
        _check(isinstance(self.admit_after, int) and 1 <= self.admit_after <= AFTER_MAX,
               f"{where}: admit_after {self.admit_after!r}; allowed: 1 to {AFTER_MAX}")
        for name in ("admit_keys", "ttl_s", "bytes_max"):
            value = getattr(self, name)
            _check(isinstance(value, int) and value >= 0, f"{where}: {name} {value!r} is no integer >= 0")
        _check(not self.bytes_max or self.rows_within() >= ROWS_MIN,
               f"{where}: bytes_max {self.bytes_max} holds {self.rows_within()} rows of {self.row_bytes} bytes; it must hold {ROWS_MIN}")
        try:
            OPTIMIZERS[self.optimizer].values(self.params)
        except ValueError as error:
            raise SpecError(f"{where}: {error}") from None

    @property
    def width(self) -> int:
        """Numbers of a stored row: weights, then optimizer slots."""
        return OPTIMIZERS[self.optimizer].width(self.dim)

    @property
    def timed(self) -> bool:
        """Whether a row keeps when it was pushed."""
        return self.ttl_s > 0 or self.bytes_max > 0

    @property
    def clips(self) -> bool:
        return self.clip_value > 0 or self.clip_norm > 0

    @property
    def row_bytes(self) -> int:
        """Bytes of a row and of what is kept of it, without its place in the index: key, flags, place among the changed, time, free row."""
        return self.width * (8 if self.dtype == "int64" else 4) + 8 + 1 + 8 + 4 * self.timed + 8

    def rows_within(self) -> int:
        """Rows that `bytes_max` holds with their index, which takes 16 bytes a bucket, a power of two of them at most 0.8 full, and half as
        much again while it grows."""
        capacity, rows = CAPACITY_MIN, 0
        left = self.bytes_max - bytes_of(self.admission, self.waiting_max(0))
        while (best := min(int(LOAD_MAX * capacity), (left - 24 * capacity) // self.row_bytes)) > rows:
            rows, capacity = best, 2 * capacity
        return rows

    def waiting_max(self, rows_max: int) -> int:
        """Keys that wait to be let in: admit_keys, else as many as an eighth of bytes_max holds, else `rows_max`."""
        if self.admit_keys or not self.bytes_max:
            return self.admit_keys or rows_max
        return self.bytes_max // 8 // (64 if self.admission == "exact" else 2 * BLOOM_A_KEY)

    def admits(self) -> tuple[str, int, int]:
        """What a change of drops what waits to be let in."""
        return self.admission, self.admit_after, self.admit_keys

    def layout(self) -> tuple[str, str, int, str]:
        """What cannot change within a model version."""
        return self.name, self.dtype, self.dim, self.optimizer


@dataclass(frozen=True)
class ModelSpec:
    """A model's tables. A push names the model and touches any of them; `version` is part of the causes' scope. Raises SpecError."""

    model: str
    version: int
    tables: tuple[TableSpec, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "tables", tuple(self.tables))
        _check(isinstance(self.model, str) and _NAME.fullmatch(self.model), f"model {self.model!r}: {_NAMES}")
        _check(isinstance(self.version, int) and self.version >= 0, f"model {self.model}: version {self.version!r} is no integer >= 0")
        names = [table.name for table in self.tables]
        _check(names, f"model {self.model}: no tables")
        _check(len(set(names)) == len(names), f"model {self.model}: two tables of one name in {', '.join(names)}")

    @property
    def scope(self) -> str:
        """Scope of the model's causes."""
        return f"{self.model}@{self.version}"

    def to_dict(self) -> dict[str, Any]:
        return {"model": self.model, "version": self.version, "tables": [asdict(table) for table in self.tables]}

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_json(cls, source: str | bytes | Mapping[str, Any]) -> ModelSpec:
        """From JSON text or what it parses to. Raises SpecError, also for an unknown field."""
        try:
            body = json.loads(source) if isinstance(source, str | bytes) else source
        except json.JSONDecodeError as error:
            raise SpecError(f"the specification is no JSON: {error}") from None
        body = _fields(body, cls, "model")
        _check(isinstance(body["tables"], list | tuple), "tables is no list")
        tables = [TableSpec(**_fields(table, TableSpec, "table")) for table in body["tables"]]
        return cls(body["model"], body["version"], tuple(tables))


def _fields(body: Any, kind: type, what: str) -> dict[str, Any]:
    known = [f.name for f in fields(kind)]
    _check(isinstance(body, Mapping), f"a {what} is a JSON object, got {type(body).__name__}")
    for name in body:
        _check(name in known, f"unknown field {name!r} of a {what}; known: {', '.join(known)}")
    for name in ("model", "version", "tables") if what == "model" else ("name",):
        _check(name in body, f"a {what} without {name!r}")
    return dict(body)


def _check(condition: Any, message: str) -> None:
    if not condition:
        raise SpecError(message)
