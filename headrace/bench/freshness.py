"""How long a click takes to reach each hop, under load: gradient, serving row, vector, recommendation.

On a stack of its own, strategy `eager`. Impressions and clicks of many users are sent at a rate: a quarter of the asked one while JVMs get
warm, then more, step by step, as long as the stack keeps up. Hops are measured at the highest rate that it kept up with. Among them are
200 probes, each a user and an item of its own: one impression, then one click. A probe's clock starts when its click is handed to the
producer. A hop is seen when its own answer changes: the exposure's cause is in the shards' rings, the replica's row of the user differs,
the index has the user's vector, and a recommendation explains itself with the new weight.
"""

from __future__ import annotations

import logging
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from headrace import submission
from headrace.access import given
from headrace.bench.result import Row
from headrace.clock import StackClock
from headrace.config import Config
from headrace.goals import GOALS_MS
from headrace.kafka import Producer, watermarks
from headrace.own_stack import own_stack
from headrace.ps.serving import ServingClient
from headrace.replay import Record
from headrace.rpc.client import Client
from headrace.rpc.errors import Refused
from headrace.schemas.codec import Codec
from headrace.schemas.hashing import feature_key
from headrace.schemas.registry import RegistryClient

RATE, PROBES = 5000, 200
RATE_QUICK, PROBES_QUICK = 500, 20
WINDOW_MS = 10_000
USERS, ITEMS = 2000, 3000
WARM_S, WARM_QUICK_S = 60.0, 12.0  # of load before the first click: JVMs compile for about a minute what they run
PROBE_EVERY_S, PROBE_S = 0.2, 20.0
PROBING_S = 240.0  # a stack that cannot keep up with any rate must not hold the bench for an hour
STEPS = (0.25, 0.375, 0.5, 0.75, 1.0)  # of the asked rate
STEP_S, BEHIND_S = 20.0, 1.0  # a rate is kept up with when after so long less than so much of it is on its way
DRAINED_S = 120.0
# Between two questions at a hop: asking costs the stack under test, a recommendation most (each explains itself).
POLL_S = {"gradient": 0.01, "serving_row": 0.01, "vector": 0.01, "recommendation": 0.02}
HOPS = tuple(POLL_S)

log = logging.getLogger(__name__)


def measure(quick: bool) -> list[Row]:
    """Rows HOP.p50 and HOP.p99 in ms, each of its goal for p99, the rate they were measured at of the asked one, the lag of the stream at
    the end and what was refused; --quick at a tenth of the rate, without steps, on JVMs that are cold."""
    rate, probes, warm_s = (RATE_QUICK, PROBES_QUICK, WARM_QUICK_S) if quick else (RATE, PROBES, WARM_S)
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        settings = {"samples": {"strategy": "eager", "window_ms": WINDOW_MS}}
        with own_stack(Path(folder) / "data", log.info, settings=settings) as config:
            submission.submit(config, ["features", "samples", "train", "vectors"])
            return _measured(config, rate, probes, warm_s, (1.0,) if quick else STEPS)


@dataclass
class Probe:
    """One click: its user, when it was sent (monotonic seconds), and the seconds to each hop."""

    user: str
    item: str
    sent: float = 0.0
    reached: dict[str, float] = field(default_factory=dict)


class Load:
    """Sends `rate` interactions a second, two impressions and a click of one of them at a time, until stopped. The rate may be changed."""

    def __init__(self, config: Config, rate: float) -> None:
        self._producer = Producer(config.kafka.cluster, linger_ms=2)
        self._codec = Codec("interactions", RegistryClient(config.registry.access))
        self.rate, self.sent = rate, 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._random = np.random.default_rng(1)
        self._thread = threading.Thread(target=self._work, name="load", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(10)
        self._producer.flush()

    def send(self, user: str, item: str, action: str, request: str | None = None) -> None:
        """One interaction of now."""
        record: Record = {
            "event_id": uuid.uuid4().hex, "request_id": request, "scene": "bench", "user_id": user, "item_id": item, "action": action,
            "value": 1.0, "position": None, "ts_ms": time.time_ns() // 1_000_000, "context": {}, "exposure": None}
        with self._lock:
            self._producer.send("interactions", user.encode(), self._codec.encode(record))
            self.sent += 1

    def _work(self) -> None:
        due, began, last = 0.0, self.sent, time.monotonic()
        while not self._stop.is_set():
            now = time.monotonic()
            due, last = due + (now - last) * self.rate, now
            while self.sent - began < due:
                users, items = self._random.integers(0, USERS, 16).tolist(), self._random.zipf(1.3, 32).tolist()
                for n, user in enumerate(users):
                    first, second = f"i{items[2 * n] % ITEMS}", f"i{items[2 * n + 1] % ITEMS}"
                    request = f"r{self.sent}"
                    self.send(f"u{user}", first, "impression", request)
                    self.send(f"u{user}", second, "impression", request)
                    self.send(f"u{user}", first, "click", request)
            self._stop.wait(0.005)


def _measured(config: Config, asked: int, count: int, warm_s: float, steps: tuple[float, ...]) -> list[Row]:
    load = Load(config, asked * steps[0])
    with closing(StackClock(**given(config.engine))) as clock:
        clock.set("now", time.time_ns() // 1_000_000)
    load.start()
    try:
        with closing(Hops(config)) as hops:
            time.sleep(warm_s)
            _highest(config, load, hops, [asked * step for step in steps[1:]])
            began, sent = time.monotonic(), load.sent
            ends, probes = time.monotonic() + PROBING_S, list[Probe]()
            while len(probes) < count and time.monotonic() < ends:
                probes.append(_probe(hops, load, len(probes)))
            rate = (load.sent - sent) / (time.monotonic() - began)
            lag, letters = _lag(config), _high(config, "dead-letters")
    finally:
        load.stop()
    rows = []
    for hop in HOPS:
        took = np.array([probe.reached[hop] * 1000 for probe in probes if hop in probe.reached])
        lost = len(probes) - len(took)
        note = f"{len(took)} of {len(probes)} clicks" + (f", {lost} not within {PROBE_S:.0f} s" if lost else "")
        for name, quantile in (("p50", 0.5), ("p99", 0.99)):
            value = float(np.quantile(took, quantile)) if len(took) else float("inf")
            rows.append(Row(f"{hop}.{name}", value, "ms", "goal for p99", float(GOALS_MS[hop]), f"{note}; {rate:.0f} interactions/s"))
    rows.append(Row("rate", rate, "interactions/s", "goal", float(asked), "sent while clicks were timed; lag says if the stack kept up"))
    rows.append(Row("lag", float(lag), "interactions", note="sent and not yet in enriched, when the last click was through"))
    rows.append(Row("letters", float(letters), "dead letters", note=f"of {load.sent} interactions; late ones, where the stack lags"))
    return rows


def _highest(config: Config, load: Load, hops: Hops, rates: list[float]) -> None:
    """Raise the load to each of `rates` in turn while the stack keeps up; back to the one before, once nothing waits, when it does not."""
    for rate in rates:
        before, load.rate = load.rate, rate
        time.sleep(STEP_S)
        if _lag(config) <= BEHIND_S * rate and "gradient" in _probe(hops, load, 0, BEHIND_S).reached:
            continue
        log.info("%.0f interactions/s are too many: %d wait", rate, _lag(config))
        load.rate = 0.0
        ends = time.monotonic() + DRAINED_S
        while "gradient" not in _probe(hops, load, 0, BEHIND_S).reached and time.monotonic() < ends:
            time.sleep(1.0)
        load.rate = before
        time.sleep(BEHIND_S)
        return


class Hops:
    """By hop, a question whose answer changes with a click: nothing else touches the probe's user. One connection a server."""

    def __init__(self, config: Config) -> None:
        self._model, self._engine = config.model.name, config.engine.url
        self._shards = [Client(address) for address in config.ps.reachable]
        self._serving, self._ann = ServingClient(config.replica.addresses, config.replica.shards), Client(config.ann.address)
        self._http = httpx.Client(timeout=10.0, trust_env=False)

    def of(self, user: str) -> dict[str, Callable[[], Any]]:
        key = np.array([feature_key("user_id", user)], np.uint64)
        owner = next(client for client in self._shards if self._owns(client, key))
        return {"gradient": lambda: self._weights(owner, key), "serving_row": lambda: self._served(key),
                "vector": lambda: self._vector(user), "recommendation": lambda: self._recommendation(user)}

    def close(self) -> None:
        for client in (*self._shards, self._ann):
            client.close()
        self._serving.close()
        self._http.close()

    def _weights(self, client: Client, key: np.ndarray) -> bytes:
        return client.call("pull", {"model": self._model, "table": "weights"}, {"keys": key})[1]["values"].tobytes()

    def _served(self, key: np.ndarray) -> bytes:
        return self._serving.pull(self._model, "weights", key).values.tobytes()

    def _owns(self, client: Client, key: np.ndarray) -> bool:
        try:
            self._weights(client, key)
        except Refused:
            return False
        return True

    def _vector(self, user: str) -> bool:
        return bool(self._ann.call("nearest", {"space": "item", "of": "user", "id": user, "k": 1})[0]["found"])

    def _recommendation(self, user: str) -> float | None:
        answer = self._http.get(f"{self._engine}/recommend", params={"user": user, "n": 1, "explain": 1, "preview": 1}).json()
        slots = answer["items"][0]["explain"]["slots"] if answer.get("items") else []
        return next((slot["linear"] for slot in slots if slot["slot"] == "user_id"), None)


def _probe(hops: Hops, load: Load, number: int, wait_s: float = PROBE_S) -> Probe:
    """An impression, some time for it to be enriched and vectors to settle, a click, and the hops as they change within `wait_s`."""
    probe = Probe(f"probe-{number}-{uuid.uuid4().hex[:6]}", f"i{number % ITEMS}")
    questions = hops.of(probe.user)
    request = f"request-{probe.user}"
    load.send(probe.user, probe.item, "impression", request)
    time.sleep(PROBE_EVERY_S)
    before = {hop: ask() for hop, ask in questions.items()}
    probe.sent = time.monotonic()
    load.send(probe.user, probe.item, "click", request)
    threads = [threading.Thread(target=_watch, args=(probe, hop, ask, before[hop], wait_s)) for hop, ask in questions.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return probe


def _watch(probe: Probe, hop: str, ask: Callable[[], Any], before: Any, wait_s: float) -> None:
    """Note when `ask` answers otherwise than `before`, for `wait_s` seconds."""
    while time.monotonic() - probe.sent < wait_s:
        if ask() != before:
            probe.reached[hop] = time.monotonic() - probe.sent
            return
        time.sleep(POLL_S[hop])


def _lag(config: Config) -> int:
    """Records of interactions that are not yet in enriched; both hold the heartbeats too."""
    return max(0, _high(config, "interactions") - _high(config, "enriched"))


def _high(config: Config, topic: str) -> int:
    return sum(high for _, high in watermarks(config.kafka.cluster, topic).values())
