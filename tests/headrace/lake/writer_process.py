"""A writer in a process of its own, over a topic in a file, until killed: python -m tests.headrace.lake.writer_process TOPIC LAKE."""

import sys
import threading
import time
from pathlib import Path

import pandas  # noqa: F401 - Arrow imports it at its first list, which is half a second of a short life

from headrace.lake.follow import When, follow
from headrace.lake.place import Place
from headrace.lake.store import at
from headrace.lake.writer import Writer
from tests.headrace.lake.worlds import RING, FileTopic


class Followed(FileTopic):
    """Read again and again, a few records at a time."""

    def batches(self, start, stop):
        for batch in super().batches(start, stop):
            if not batch:
                time.sleep(0.002)
                self.load()
            yield batch


def main(topic, lake):
    source, store = Followed(Path(topic)), at(Place(lake))
    source.load()
    with store.held():
        made = Writer(store, source.topic(), source.marks(), source.marks, ring_length=RING, now_ms=lambda: 1)
        print("goes on", made.totals.rows, flush=True)
        follow(made, source, threading.Event(), When(0.01, 40, 1 << 30), time.monotonic, lambda one: print("commit", flush=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
