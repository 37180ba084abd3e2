"""What a model asks of the parameter server: its tables, as the JSON of ps/spec.py's ModelSpec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COUNTS_SHARE = 4  # of the model's memory, one part in so many is the counts'


def model_spec(name: str, version: int, factors: int, optimizer: str, learning_rate: float, init_scale: float,
               room: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Tables of model `name` ("fm" or "lr"): `weights` float32 (w and `factors` factors; lr: w alone), `counts` and `metrics` int64 sums.

    Only `weights` is published to serving. `room`: clip_value, clip_norm, weight_bound, admission, admit_after, ttl_s, bytes_max and
    encoding of ps/spec.py's TableSpec for `weights`; `counts`, a row a feature too, goes with ttl_s, and a quarter of bytes_max is its.
    Raises KeyError for an unknown model.
    """
    room = dict(room or {})
    ttl_s, bytes_max = room.get("ttl_s", 0), room.pop("bytes_max", 0)
    dim = {"fm": 1 + factors, "lr": 1}[name]
    sums = {"dtype": "int64", "dim": 1, "optimizer": "sum", "params": {}, "init_scale": 0.0, "served": False}
    weights = {"name": "weights", "dtype": "float32", "dim": dim, "optimizer": optimizer,
               "params": {"learning_rate": learning_rate}, "init_scale": init_scale if dim > 1 else 0.0, "served": True,
               "bytes_max": bytes_max - bytes_max // COUNTS_SHARE, **room}
    counts = {"name": "counts", **sums, "ttl_s": ttl_s, "bytes_max": bytes_max // COUNTS_SHARE}
    return {"model": name, "version": version, "tables": [weights, counts, {"name": "metrics", **sums}]}
