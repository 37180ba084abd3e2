"""The table of reducers: what each asks of a definition, and how its state lies in a row (features/reducer_kernels.py has their work)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from headrace.features import reducer_kernels as kernels

NUMBER, IDS = "number", "ids"
TILES = 16  # of a window unless a definition says otherwise: what is read may lack up to a sixteenth of the window's oldest part
TILES_MAX, IDS_MAX, TTL_NONE = 1024, 64, float("inf")


class Parameter(NamedTuple):
    """A number that a definition may give: its default (None: it must be given), and within what it lies."""

    default: float | None
    least: float
    most: float
    whole: bool = True


class State(NamedTuple):
    """How a feature is kept: the kernel's code and its numbers p float64[PARAMS]; words of 8 bytes, the header among them; how many ids
    it gives (0: one number)."""

    code: int
    p: np.ndarray
    words: int
    width: int


class Reducer(NamedTuple):
    """`takes`: number (`value`, a number; 1 unless told), token (`value`, an id), ratio (numbers where `where` and where `over` hold),
    nothing. `makes`: number or ids. `fades`: it may be over a `window` or have a `half_life`, or neither: then over all time; "half_life":
    that only. `words`: of 8 bytes behind the header, from its parameters."""

    takes: str
    makes: str
    fades: str
    parameters: Mapping[str, Parameter]
    default: float | None  # what is read before the first event; None: the ratio's prior
    meaning: str


_PRIOR = {"prior": Parameter(0.0, 0.0, 1e9, whole=False), "weight": Parameter(1.0, 1e-9, 1e9, whole=False)}

REDUCERS: dict[str, Reducer] = {
    "count": Reducer("nothing", NUMBER, "both", {}, 0.0, "events"),
    "sum": Reducer("number", NUMBER, "both", {}, 0.0, "sum of the values"),
    "ratio": Reducer("ratio", NUMBER, "both", _PRIOR, None, "(sum of the values + prior x weight) / (events of `over` + weight)"),
    "mean": Reducer("number", NUMBER, "half_life", {}, 0.0, "mean of the values"),
    "variance": Reducer("number", NUMBER, "half_life", {}, 0.0, "variance of the values, over their number"),
    "last_n": Reducer("token", IDS, "", {"n": Parameter(None, 1, IDS_MAX)}, 0.0, "the last n ids, the newest first, each once"),
    "first_time": Reducer("nothing", NUMBER, "", {}, -1.0, "seconds since the first event"),
    "last_time": Reducer("nothing", NUMBER, "", {}, -1.0, "seconds since the last event"),
    "distinct": Reducer("token", NUMBER, "", {"bits": Parameter(8, 4, 14)}, 0.0,
                        "how many different ids, within 1.04 / sqrt(2^bits) of it (HyperLogLog)"),
    "top_n": Reducer("token", IDS, "half_life", {"n": Parameter(None, 1, IDS_MAX)}, 0.0,
                     "the n ids of most events, the first first (Space-Saving of 4 n)"),
    "lookup": Reducer("number", NUMBER, "", {}, 0.0, "the newest value"),
    "lookup_id": Reducer("token", IDS, "", {"n": Parameter(1, 1, 16)}, 0.0, "the newest id, or ids of a column of several"),
}


def parameters_of(reducer: Reducer) -> list[str]:
    """Every key that a definition with this reducer may have beside those that all have."""
    takes = {"number": ["value"], "token": ["value"], "ratio": ["value", "over"], "nothing": []}[reducer.takes]
    fades = {"both": ["window", "tiles", "half_life"], "half_life": ["half_life"], "": []}[reducer.fades]
    return [*takes, *fades, *reducer.parameters]


def state_of(name: str, *, window_ms: float = 0.0, tiles: int = TILES, half_life_ms: float = 0.0, ttl_ms: float = TTL_NONE,
             **given: float) -> State:
    """How a feature of reducer `name` is kept. window_ms, half_life_ms 0: without. `given` are the reducer's parameters."""
    reducer = REDUCERS[name]
    value = {key: given.get(key, parameter.default) for key, parameter in reducer.parameters.items()}
    assert None not in value.values() and not set(given) - set(value), f"{name} takes {list(value)}, not {list(given)}"
    half_life, tile_ms = half_life_ms or float("inf"), window_ms / tiles
    n, bits = int(value.get("n") or 0), int(value.get("bits") or 0)
    ring, faded = (tile_ms, tiles), (half_life, 0.0)
    code, own, p = {
        "count": lambda: _summed(window_ms, ring, faded, 1, ()),
        "sum": lambda: _summed(window_ms, ring, faded, 1, ()),
        "ratio": lambda: _summed(window_ms, ring, faded, 2, (value["prior"], value["weight"])),
        "mean": lambda: (kernels.MEAN, 3, (half_life,)),
        "variance": lambda: (kernels.VARIANCE, 3, (half_life,)),
        "last_n": lambda: (kernels.LAST_N, 2 * n, (n,)),
        "first_time": lambda: (kernels.FIRST_TIME, 1, ()),
        "last_time": lambda: (kernels.LAST_TIME, 0, ()),
        "distinct": lambda: (kernels.DISTINCT, (1 << bits) // 8, (bits,)),
        "top_n": lambda: (kernels.TOP_N, 8 * n, (n, 4 * n, half_life)),
        "lookup": lambda: (kernels.LOOKUP, 1, ()),
        "lookup_id": lambda: (kernels.LOOKUP_ID, n, (n,)),
    }[name]()
    numbers = np.zeros(kernels.PARAMS)
    numbers[: len(p)] = p
    numbers[kernels.TTL] = ttl_ms
    return State(code, numbers, 1 + own, n if reducer.makes == IDS else 0)


def _summed(window_ms, ring, faded, sums, more):  # type: ignore[no-untyped-def]
    """(code, words, p) of `sums` sums over a window's tiles, or with a half-life."""
    tiled = window_ms > 0
    code = ((kernels.DECAYED, kernels.TILED), (kernels.RATIO_DECAYED, kernels.RATIO_TILED))[sums - 1][tiled]
    return code, sums * (1 + ring[1] if tiled else 1), (*(ring if tiled else faded), *more)
