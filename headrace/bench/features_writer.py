"""Updates at a steady rate into a feature service, from a process of its own: `python -m headrace.bench.features_writer ADDRESS RATE
USERS ITEMS SOURCE` folds what came in 20 ms in one call, as the features job's bundles do, says when it has begun, and at stdin's end the
rate that it reached."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from headrace.bench.features_events import World, at, feature_set
from headrace.config import Flink
from headrace.features.client import FeatureClient

EVENTS = 1 << 16  # made beforehand and taken again


class Rate:
    """Events/s that were folded; 0 before the block has ended."""

    reached = 0.0


@contextmanager
def writing(address: str, rate: int, users: int, items: int, source: int) -> Iterator[Rate]:
    """While the block runs, `rate` events/s are folded at `address`, or as many as it takes, of a `source` of which none was yet."""
    found = Rate()
    command = [sys.executable, "-m", "headrace.bench.features_writer", address, str(rate), str(users), str(items), str(source)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdin is not None
        try:
            process.stdout.readline()
            yield found
        finally:
            process.stdin.close()
            found.reached = float(process.stdout.readline() or 0)
            process.wait(60)


def main(address: str, rate: int, users: int, items: int, source: int) -> None:
    """Fold until standard input ends."""
    flink, events = Flink(), World(users, items, seed=3).some(EVENTS)
    client, over = FeatureClient(address, feature_set=feature_set()), threading.Event()
    threading.Thread(target=_until_stdin_ends, args=(over,), daemon=True).start()
    rows = min(flink.batch_rows, max(1, rate * flink.bundle_time_ms // 1000))
    folded, began = 0, time.perf_counter()
    print("begun", flush=True)
    while not over.is_set():
        start = folded % (EVENTS - rows)
        client.freeze_and_fold(*at(events, slice(start, start + rows), folded, source))
        folded += rows
        ahead = folded / rate - (time.perf_counter() - began)
        if ahead > 0:
            time.sleep(ahead)
        elif ahead < -1:  # who is behind has larger bundles
            rows = min(flink.batch_rows, 2 * rows)
    print(folded / (time.perf_counter() - began), flush=True)
    client.close()


def _until_stdin_ends(over: threading.Event) -> None:
    sys.stdin.read()
    over.set()


if __name__ == "__main__":
    main(sys.argv[1], *(int(one) for one in sys.argv[2:6]))
