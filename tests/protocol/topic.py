"""A topic: partitions that keep what they got, in order."""

from __future__ import annotations

from typing import Generic, TypeVar

R = TypeVar("R")


class Topic(Generic[R]):
    """Readers keep their positions themselves."""

    def __init__(self, partitions: int) -> None:
        self.partitions: list[list[R]] = [[] for _ in range(partitions)]

    def write(self, partition: int, record: R) -> None:
        self.partitions[partition].append(record)

    def unread(self, positions: list[int]) -> list[int]:
        """Partitions in which something stands behind the positions."""
        return [p for p, position in enumerate(positions) if position < len(self.partitions[p])]

    def read(self, partition: int, position: int, records_max: int) -> list[R]:
        return self.partitions[partition][position : position + records_max]

    def __iter__(self):
        return (record for partition in self.partitions for record in partition)
