"""A Python stage of a job: a vectorised UDF with side effects, so never deterministic: Flink may not evaluate it twice or move it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import numpy as np
from pyflink.table.types import DataType
from pyflink.table.udf import ScalarFunction, udf

from headrace.rpc.errors import Refused, TooOld, Unavailable, UnknownVerb
from headrace.schemas.access import Cluster
from headrace.schemas.codec import Codec
from headrace.schemas.errors import Malformed, RegistryUnavailable, SchemaRefused
from headrace.streaming.kafka import NotSent, Sender
from headrace.streaming.positions import Message, Positions, Standing, Unread
from headrace.streaming.quarantine import Quarantine, folder_of

log = logging.getLogger(__name__)
# No record's fault: the job restarts, or stops.
WORLD = (Unavailable, TooOld, UnknownVerb, Refused, RegistryUnavailable, SchemaRefused, NotSent, Unread, MemoryError, OSError)


class Stage(ScalarFunction):
    """Base of the stages: `open` connects, `eval` takes pandas series of one Arrow batch and returns a frame of equal length.

    `marks`: the folder on the workers' hosts that outlives a dead worker (streaming/quarantine.py); "" is a temporary one. `standing`: what
    it reads and writes, and who holds how far it came (streaming/positions.py); None relies on checkpoints alone.
    """

    world: tuple[type[BaseException], ...] = WORLD

    def __init__(self, marks: str = "", standing: Standing | None = None) -> None:
        self.marks = marks
        self.standing = standing
        self.positions: Positions | None = None
        self.quarantine = Quarantine(world=self.world)

    def is_deterministic(self) -> bool:
        return False

    def guard(self, name: str) -> None:
        """In `open`: find what died before under `name`, and leave marks from now on."""
        self.quarantine = Quarantine(folder_of(self.marks, name), self.world)

    def stand(self, where: Cluster | str) -> None:
        """In `open`: find where the stage stood, and keep that from now on."""
        if self.standing is not None:
            self.positions, self._sender = Positions(where, self.standing), Sender(where)

    def catch_up(self, partition: np.ndarray, offset: np.ndarray) -> None:
        """Before the work on records at partition int[n], offset int64[n]: do what a checkpoint passed over, and send what comes of it."""
        if self.positions is None or self.standing is None:
            return
        for messages in self.positions.missed(partition, offset):
            for key, value in self.again(messages):
                self._sender.send(self.standing.into, key, value)
            self._sender.flush()

    def passed(self, partition: np.ndarray, offset: np.ndarray) -> None:
        """After the work on these records."""
        if self.positions is not None:
            self.positions.passed(partition, offset)

    def again(self, messages: list[Message]) -> Iterable[tuple[bytes | None, bytes]]:
        """The stage's work on records of its topic as Kafka has them: (key, value) of what the sink would write."""
        raise AssertionError(f"{type(self).__name__} is given no standing: it does not read its topic by itself")

    def decoded(self, codec: Codec, messages: list[Message]) -> list[dict[str, Any]]:
        """Their records; one that does not decode is said and left out: it is of a topic of ours, where the job's own source would fail."""
        records = []
        for message in messages:
            try:
                records.append(codec.decode(message.value))
            except Malformed as error:
                log.error("%s, partition %d offset %d is left out: %s", codec.name, message.partition, message.offset, error)
        return records

    def close(self) -> None:
        self.quarantine.close()
        if self.positions is not None:
            self.positions.close()


def vectorised(stage: Stage, result: DataType, ship: bool = False):
    """The UDF of `stage`, whose rows are `result`; `ship`: with the rooms inside, for a cluster that has not installed them."""
    function: ScalarFunction = stage
    if ship:
        from headrace.streaming import shipped

        shipped.by_value()
        function = shipped.Shipped(stage, shipped.archive())
    return udf(function, result_type=result, func_type="pandas", deterministic=False)
