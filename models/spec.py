"""What a model asks of the parameter server: its tables, as the JSON of ps/spec.py's ModelSpec."""

from __future__ import annotations

from typing import Any


def model_spec(name: str, version: int, factors: int, optimizer: str, learning_rate: float, init_scale: float) -> dict[str, Any]:
    """Tables of model `name` ("fm" or "lr"): `weights` float32 (w and `factors` factors; lr: w alone), `counts` and `metrics` int64 sums.

    Only `weights` is published to serving. Raises KeyError for an unknown model.
    """
    dim = {"fm": 1 + factors, "lr": 1}[name]
    sums = {"dtype": "int64", "dim": 1, "optimizer": "sum", "params": {}, "init_scale": 0.0, "served": False}
    weights = {"name": "weights", "dtype": "float32", "dim": dim, "optimizer": optimizer,
               "params": {"learning_rate": learning_rate}, "init_scale": init_scale if dim > 1 else 0.0, "served": True}
    return {"model": name, "version": version, "tables": [weights, {"name": "counts", **sums}, {"name": "metrics", **sums}]}
