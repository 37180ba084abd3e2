"""The loop around a writer: read, take, commit when it is time, until told to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from headrace.lake.manifest import Manifest
from headrace.lake.source import Source
from headrace.lake.writer import Writer


@dataclass(frozen=True)
class When:
    """A commit is due after `commit_s` seconds, `rows_max` rows or `bytes_max` bytes, whichever is first."""

    commit_s: float
    rows_max: int
    bytes_max: int

    def due(self, writer: Writer, waited_s: float) -> bool:
        pending = writer.pending
        return writer.moved and (waited_s >= self.commit_s or pending.rows >= self.rows_max or pending.bytes >= self.bytes_max)


def follow(writer: Writer, source: Source, stop: threading.Event, when: When, clock_s: Callable[[], float],
           told: Callable[[Manifest], None] = lambda made: None) -> None:
    """Write what the topic has and gets until `stop` is set, then commit what was read. Raises what source and writer raise."""
    began = clock_s()
    for batch in source.batches(dict(writer.positions), stop):
        writer.take(batch)
        if not writer.moved:
            began = clock_s()  # the time to a commit runs from its first record
        elif when.due(writer, clock_s() - began):
            made = writer.commit()
            began = clock_s()
            if made is not None:
                told(made)
    made = writer.commit()
    if made is not None:
        told(made)
