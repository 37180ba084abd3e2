"""What a shard holds: the tables of a model, as JSON both ways."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from headrace.ps.optimizers import OPTIMIZERS

DIM_MAX = 4096
_NAMES = "a name is made of a-z, 0-9, _ and -, at most 64 of them"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class SpecError(ValueError):
    """A specification that cannot be held: the message says which field of which table, and what is allowed. Mend the caller's spec."""


@dataclass(frozen=True)
class TableSpec:
    """One table: `dim` numbers a row of `dtype` ("float32" or "int64"), changed by `optimizer` with `params` (ps/optimizers.py).

    `init_scale`: standard deviation of columns 1.. of a new row (column 0 is 0), seeded by key and column; `served`: published to replicas.
    Raises SpecError.
    """

    name: str
    dtype: str = "float32"
    dim: int = 1
    optimizer: str = "adagrad"
    params: dict[str, float] = field(default_factory=dict)
    init_scale: float = 0.0
    served: bool = False

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
        try:
            OPTIMIZERS[self.optimizer].values(self.params)
        except ValueError as error:
            raise SpecError(f"{where}: {error}") from None

    @property
    def width(self) -> int:
        """Numbers of a stored row: weights, then optimizer slots."""
        return self.dim * (1 + OPTIMIZERS[self.optimizer].slots)

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
