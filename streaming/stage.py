"""A Python stage of a job: a vectorised UDF with side effects, so never deterministic: Flink may not evaluate it twice or move it."""

from __future__ import annotations

from pyflink.table.types import DataType
from pyflink.table.udf import ScalarFunction, udf


class Stage(ScalarFunction):
    """Base of the stages: `open` connects, `eval` takes pandas series of one Arrow batch and returns a frame of equal length."""

    def is_deterministic(self) -> bool:
        return False


def vectorised(stage: Stage, result: DataType, ship: bool = False):
    """The UDF of `stage`, whose rows are `result`; `ship`: with the rooms inside, for a cluster that has not installed them."""
    function: ScalarFunction = stage
    if ship:
        from headrace.streaming import shipped

        shipped.by_value()
        function = shipped.Shipped(stage, shipped.archive())
    return udf(function, result_type=result, func_type="pandas", deterministic=False)
