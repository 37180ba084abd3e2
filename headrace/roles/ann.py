"""The ann role: vectors folded from their topic, served by Flight."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector

from headrace.ann.service import Service
from headrace.config import Config
from headrace.models.spec import model_spec
from headrace.roles.stopping import stop_serving
from headrace.rpc.freshness import Hop
from headrace.rpc.health import Health
from headrace.rpc.owner import Owner
from headrace.rpc.server import Server

log = logging.getLogger(__name__)
RECORDS_A_HOLD = 64

Records = Sequence[Mapping[str, Any]]
Consume = Callable[[Callable[[Records], int], threading.Event], None]


def start(config: Config, index: int, consume: Consume) -> Callable[[], None]:
    """Serve at config.ann and run `consume(fold_many, stop)` in a thread: it reads `vectors` from the beginning and hands decoded records,
    in order, to fold_many until `stop` is set, and is called again a second after it raises. Returns the callable that stops all of it.
    There is one ann process; `index` is 0.
    """
    assert index == 0, "there is one ann process"
    model = config.model
    spec = model_spec(model.name, model.version, model.factors, model.optimizer, model.learning_rate, model.init_scale,
                      model.room)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    hop: Any = Hop("vector")
    registry.register(hop)
    service = Service(spec["tables"][0]["dim"], registry, hop)  # a vector is as wide as a row: the factors and the item's own part
    owner = Owner("ann")
    owner.start()
    host, port = config.ann.address.rsplit(":", 1)
    server = Server(host, int(port), service.verbs(), owner)
    stop = threading.Event()

    def fold_many(records: Records) -> int:
        parts = [records[at : at + RECORDS_A_HOLD] for at in range(0, len(records), RECORDS_A_HOLD)]  # searches come in between
        return sum(owner.call(partial(service.fold_many, part)) for part in parts)

    def read() -> None:
        while not stop.is_set():
            try:
                consume(fold_many, stop)
                return
            except Exception:
                log.exception("reading vectors failed; again in a second")
                stop.wait(1.0)

    reader = threading.Thread(target=read, name="vectors", daemon=True)
    reader.start()

    def missing() -> str:
        return "" if reader.is_alive() else "the reader of vectors has ended"

    health = Health(config.ann.http_port, missing, registry)

    def close() -> None:
        stop.set()
        reader.join(10)
        health.close()
        stop_serving(server, owner)

    return close
