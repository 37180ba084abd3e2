"""What a bench gives: rows, each a figure and the peer or limit that was measured beside it in the same run."""

from __future__ import annotations

import math
import platform
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rich.table import Table

TIME_UNITS = ("ns", "us", "ms", "s", "min", "h")
LOST = "share lost"  # of what the best possible gives
LESS_IS_BETTER = (*TIME_UNITS, LOST, "nats", "bytes a user")
PACKAGES = ("headrace", "numpy", "pyarrow", "numba", "fastavro", "faiss-cpu", "rocksdict", "confluent-kafka", "apache-flink",
            "vowpalwabbit", "river")


@dataclass(frozen=True)
class Row:
    """One figure. `of` names the peer or limit measured in the same run, `of_value` is its figure in the same unit."""

    name: str
    value: float
    unit: str
    of: str | None = None
    of_value: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """value / of_value, for a time or a loss of_value / value: more is better. None without a peer."""
        if self.of_value is None:
            return None
        above, below = (self.of_value, self.value) if self.unit in LESS_IS_BETTER else (self.value, self.of_value)
        return above / below if below else None


@dataclass(frozen=True)
class Result:
    """One run of a bench; `quick` when sizes were cut."""

    bench: str
    seconds: float
    rows: list[Row]
    cores: int
    quick: bool = False

    def document(self) -> dict[str, Any]:
        """{bench, versions, cores, seconds, rows: [{name, value, unit, of, of_value, ratio, note}]}; null for what never came."""
        rows = []
        for row in self.rows:
            fields = asdict(row)
            note = fields.pop("note")
            if not math.isfinite(row.value):  # JSON has no infinity
                fields["value"] = None
            rows.append({**fields, "ratio": row.ratio, "note": f"quick; {note}".removesuffix("; ") if self.quick else note})
        return {"bench": self.bench, "versions": versions(), "cores": self.cores, "seconds": round(self.seconds, 3), "rows": rows}

    def table(self) -> Table:
        """For people."""
        size = " (--quick: smaller sizes)" if self.quick else ""
        shown = Table("name", "value", "unit", "of", "its value", "ratio", "note",
                      title=f"{self.bench}{size}: {self.seconds:.1f} s on {self.cores} cores", title_justify="left")
        for row in self.rows:
            shown.add_row(row.name, _figure(row.value), row.unit, row.of or "", _figure(row.of_value), _figure(row.ratio), row.note)
        return shown


def versions() -> dict[str, str]:
    """Python's, and those of the packages that are installed of the ones that figures depend on."""
    found = {"python": platform.python_version(), "platform": f"{sys.platform} {platform.machine()}"}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
