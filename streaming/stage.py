"""A Python stage of a job: a vectorised UDF with side effects, so never deterministic: Flink may not evaluate it twice or move it."""

from __future__ import annotations

from pyflink.table.types import DataType
from pyflink.table.udf import ScalarFunction, udf

from headrace.rpc.errors import Refused, TooOld, Unavailable, UnknownVerb
from headrace.schemas.errors import RegistryUnavailable, SchemaRefused
from headrace.streaming.kafka import DeadLettersLost
from headrace.streaming.quarantine import Quarantine, folder_of

# No record's fault: the job restarts, or stops.
WORLD = (Unavailable, TooOld, UnknownVerb, Refused, RegistryUnavailable, SchemaRefused, DeadLettersLost, MemoryError, OSError)


class Stage(ScalarFunction):
    """Base of the stages: `open` connects, `eval` takes pandas series of one Arrow batch and returns a frame of equal length.

    `marks`: the folder on the workers' hosts that outlives a dead worker (streaming/quarantine.py); "" is a temporary one.
    """

    world: tuple[type[BaseException], ...] = WORLD

    def __init__(self, marks: str = "") -> None:
        self.marks = marks
        self.quarantine = Quarantine(world=self.world)

    def is_deterministic(self) -> bool:
        return False

    def guard(self, name: str) -> None:
        """In `open`: find what died before under `name`, and leave marks from now on."""
        self.quarantine = Quarantine(folder_of(self.marks, name), self.world)

    def close(self) -> None:
        self.quarantine.close()


def vectorised(stage: Stage, result: DataType, ship: bool = False):
    """The UDF of `stage`, whose rows are `result`; `ship`: with the rooms inside, for a cluster that has not installed them."""
    function: ScalarFunction = stage
    if ship:
        from headrace.streaming import shipped

        shipped.by_value()
        function = shipped.Shipped(stage, shipped.archive())
    return udf(function, result_type=result, func_type="pandas", deterministic=False)
