"""The processes of `headrace bench ps.sync`: shards, replicas and registry under the supervisor, and a broker that can be stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace import broker, java, stack, state
from headrace.config import Config, Model, Ps, Replica
from headrace.own_stack import running
from headrace.ports import some_free
from headrace.processes import Child, Process

READY_S = 120.0
DIM = 16


class NotReady(Exception):
    """A process of the bench did not come up; the message is the stack's own."""


class Broker:
    """A real broker with its topics. Used by one thread, with which it dies."""

    def __init__(self, config: Config) -> None:
        child = Child("kafka", broker.prepare(config), java.environment(), lambda: broker.ready(config), 0, config.kafka.bootstrap)
        self._process = Process(child, "bench", config.stack.data_dir / "logs" / "kafka.log")
        self.start()

    def start(self) -> None:
        """Return when it answers. Raises NotReady."""
        self._process.start()
        ends = time.monotonic() + READY_S
        while self._process.child.ready():
            if self._process.returncode() is not None or time.monotonic() > ends:
                raise NotReady(f"the broker: {self._process.child.ready()}\n{self._process.last_words()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """SIGTERM, and wait until it has ended."""
        self._process.stop()


@contextmanager
def processes(folder: Path) -> Iterator[tuple[Config, Broker]]:
    """Two shards and two replicas of a model of rows of 16, with the addresses that they took. Raises NotReady and what a start raises."""
    kafka_port, controller_port, *replicas = some_free(6)
    serving = Replica(addresses=[f"127.0.0.1:{port}" for port in replicas[:2]], http_ports=replicas[2:])
    config = Config(model=Model(factors=DIM - 1), replica=serving, ps=Ps(snapshot_s=20.0))
    config.stack.data_dir = folder / "data"
    config.kafka.bootstrap, config.kafka.controller_port = f"127.0.0.1:{kafka_port}", controller_port
    kafka = Broker(config)
    stop, failed = threading.Event(), list[BaseException]()

    def run() -> None:
        try:
            stack.up(config, lambda _: None, ("registry", "ps", "replica"), stop)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="bench-stack")
    try:
        stack.topics(config, lambda _: None)
        thread.start()
        ends = time.monotonic() + READY_S
        while (state.read(config.stack.data_dir) or {}).get("state") != "ready":
            if failed or time.monotonic() > ends:
                raise NotReady(str(failed[0]) if failed else f"shards and replicas were not ready within {READY_S:.0f} s")
            time.sleep(0.05)
        yield running(config), kafka
    finally:
        stop.set()
        if thread.ident is not None:
            thread.join()
        kafka.stop()
