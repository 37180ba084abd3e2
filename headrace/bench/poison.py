"""What poison costs: featurize's own `eval` on calls with 1 % of bad events of every kind, beside calls without, in turns.

The feature shard is in this process and the dead letters go to a real broker, which the local stack starts for it: that they are flushed
before a call returns is what costs.
"""

from __future__ import annotations

import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from headrace import stack, state
from headrace.bench.result import Row
from headrace.config import Config
from headrace.features.frozen import Frozen
from headrace.features.shard import FeatureShard
from headrace.features.store import FeatureStore
from headrace.ports import some_free
from headrace.rpc.causes import Causes
from headrace.rpc.message import Arrays
from headrace.schemas.codec import Codec
from headrace.schemas.hashing import feature_key
from headrace.schemas.registry_store import SchemaStore
from headrace.streaming.featurize import Addresses, Featurize
from headrace.streaming.kafka import DeadLetters
from headrace.streaming.quarantine import Quarantine

CALL_ROWS = 1024  # flink.batch_rows
SHARE = 0.01
START_MS = 1_700_000_000_000
READY_S = 60.0


class BrokerFailed(Exception):
    """The broker of the bench did not start; the message is the stack's own."""


def measure(quick: bool) -> list[Row]:
    """Rows poison.1%, in events/s of all events; poison.1%.cpu, the same by the second of this process's processor time, librdkafka's
    threads included; poison.marks, in microseconds a call."""
    calls = 60 if quick else 400
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder, broker(Path(folder)) as bootstrap:
        letters = _Counted(bootstrap)
        shard = FeatureShard(FeatureStore(Path(folder) / "features"), half_life_s=604_800.0, ring_length=1 << 22)
        stage = _stage(shard, letters, Path(folder) / "marks")
        made = Calls(stage.interactions)
        seconds: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
        for number in range(-6, 2 * calls):  # the first ones warm up
            poisoned = number % 2 == 1
            columns = made.call(SHARE if poisoned else 0.0)
            started, cpu = time.perf_counter(), time.process_time()
            stage.eval(*columns)
            if number >= 0:
                seconds[poisoned].append((time.perf_counter() - started, time.process_time() - cpu))
        marks = _marks(Quarantine(Path(folder) / "other-marks"))
        shard.store.close()
    # Medians: a neighbour on the machine takes whole calls from one side or the other.
    wall, cpu_s = ({poisoned: float(np.median(np.array(spent)[:, column])) for poisoned, spent in seconds.items()} for column in (0, 1))
    note = f"median of {calls} calls of {CALL_ROWS} each, {letters.sent} dead letters flushed, {len(KINDS)} kinds of poison"
    of = "the same without poison"
    return [Row("poison.1%", CALL_ROWS / wall[True], "events/s", of, CALL_ROWS / wall[False], note),
            Row("poison.1%.cpu", CALL_ROWS / cpu_s[True], "events/s", of, CALL_ROWS / cpu_s[False], "by processor time of this process"),
            Row("poison.marks", marks, "us", "a whole call without poison", wall[False] * 1e6, f"marks of {CALL_ROWS} rows")]


class _Counted(DeadLetters):
    def __init__(self, bootstrap: str) -> None:
        super().__init__(bootstrap, Codec("dead-letters", SchemaStore()))
        self.sent = 0

    def send(self, *letter: Any) -> None:
        self.sent += 1
        super().send(*letter)


class _Local:
    """The feature client's two verbs on a shard in this process."""

    def __init__(self, shard: FeatureShard) -> None:
        self.shard, self._told = shard, set[str]()

    def names(self, names: Sequence[str]) -> None:
        new = [name for name in names if name not in self._told]
        self._told.update(new)
        self.shard.store.put_names((feature_key(*name.split("=", 1)) for name in new), new)

    def freeze_and_fold(self, causes: Causes, columns: Arrays) -> Frozen:
        return self.shard.freeze_and_fold(causes, columns)


class _Tally:
    """Stands in for Flink's counters."""

    def inc(self, n: int = 1) -> None:
        pass


def _stage(shard: FeatureShard, letters: DeadLetters, marks: Path) -> Featurize:
    """Featurize as its `open` would make it, without a registry and a feature service."""
    stage: Any = Featurize(Addresses("", "", ""), 1, 65536)
    registry = SchemaStore()
    stage.prepare(Codec("interactions", registry), Codec("enriched", registry))
    stage.features = _Local(shard)
    stage.dead_letters, stage.clamped, stage.retries = letters, _Tally(), _Tally()
    stage.scorer, stage.quarantine = None, Quarantine(marks, stage.world)
    return stage


class Calls:
    """Makes calls of a stream of one partition, each event its own."""

    def __init__(self, codec: Codec) -> None:
        self._codec, self._next, self._random = codec, 0, np.random.default_rng(1)

    def call(self, share: float) -> tuple[pd.Series, ...]:
        """(key, value, partition, offset, append_ms) of the next CALL_ROWS events, `share` of them bad."""
        offsets = np.arange(self._next, self._next + CALL_ROWS)
        self._next += CALL_ROWS
        users, items = self._random.integers(0, 5000, CALL_ROWS).tolist(), self._random.integers(0, 2000, CALL_ROWS).tolist()
        bad = set(self._random.choice(CALL_ROWS, round(share * CALL_ROWS), replace=False).tolist())
        keys, values = [], []
        for row, offset in enumerate(offsets.tolist()):
            user = f"user-{users[row]}"
            event = {"event_id": f"event-{offset}", "user_id": user, "item_id": f"item-{items[row]}",
                     "action": "click" if offset % 5 == 4 else "impression", "ts_ms": START_MS + offset,
                     "context": {"user.age": str(users[row] % 60), "item.genre": "Drama|War", "hour": str(offset // 3600 % 24)}}
            keys.append(user.encode())
            values.append(KINDS[offset % len(KINDS)](self._codec, event) if row in bad else self._codec.encode(event))
        return (pd.Series(keys, dtype=object), pd.Series(values, dtype=object), pd.Series(np.zeros(CALL_ROWS, np.int32)),
                pd.Series(offsets), pd.Series(START_MS + offsets))


Event = dict[str, Any]
KINDS: tuple[Callable[[Codec, Event], bytes | None], ...] = (
    lambda codec, event: None, lambda codec, event: b"", lambda codec, event: b'{"user_id": "u"}',
    lambda codec, event: codec.encode(event)[:-4], lambda codec, event: codec.encode(event) + b"\x00",
    lambda codec, event: codec.encode(event)[:1] + struct.pack(">I", 4711) + codec.encode(event)[5:],
    lambda codec, event: codec.encode(event).replace(b"user-", b"\xffser-"),
    lambda codec, event: codec.encode({**event, "value": float("nan")}), lambda codec, event: codec.encode({**event, "item_id": ""}),
    lambda codec, event: codec.encode({**event, "ts_ms": event["ts_ms"] * 1000}),
    lambda codec, event: codec.encode({**event, "user_id": "another"}), lambda codec, event: codec.encode({**event, "item_id": "item\n"}),
    lambda codec, event: codec.encode({**event, "context": {str(n): "x" for n in range(70)}}),
)


def _marks(quarantine: Quarantine) -> float:
    """Microseconds of a call whose work is nothing."""
    where, offset, times = np.zeros(CALL_ROWS, np.int64), np.arange(CALL_ROWS), []
    for _ in range(300):
        started = time.perf_counter()
        quarantine.run(where, offset, lambda rows: None, lambda row, why: None)
        times.append(time.perf_counter() - started)
    quarantine.close()
    return float(np.median(times)) * 1e6


@contextmanager
def broker(folder: Path) -> Iterator[str]:
    """The address of a broker of the local stack with its topics, which ends with the block. Raises BrokerFailed."""
    config, (port, controller_port) = Config(), some_free(2)
    config.stack.data_dir = folder / "data"
    config.kafka.bootstrap, config.kafka.controller_port = f"127.0.0.1:{port}", controller_port
    stop, failed = threading.Event(), list[Exception]()

    def run() -> None:
        try:
            stack.up(config, lambda _: None, ("kafka",), stop)
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="bench-broker")
    thread.start()
    try:
        ends = time.monotonic() + READY_S
        while (state.read(config.stack.data_dir) or {}).get("state") != "ready":
            if failed or time.monotonic() > ends:
                raise BrokerFailed(str(failed[0]) if failed else f"the broker was not ready within {READY_S:.0f} s")
            time.sleep(0.05)
        yield config.kafka.bootstrap
    finally:
        stop.set()
        thread.join()
