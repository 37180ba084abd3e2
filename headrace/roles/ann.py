"""The ann role: vectors folded from their topic, served by Flight."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry

from headrace.ann.service import Service
from headrace.config import Config
from headrace.models.spec import model_spec
from headrace.rpc.health import Health
from headrace.rpc.owner import Owner
from headrace.rpc.server import Server

log = logging.getLogger(__name__)
RECORDS_A_HOLD = 64

Records = Sequence[Mapping[str, Any]]
Consume = Callable[[Callable[[Records], int], threading.Event], None]


def start(config: Config, index: int, consume: Consume, registry: CollectorRegistry = REGISTRY) -> Callable[[], None]:
    """Serve at config.ann and run `consume(fold_many, stop)` in a thread: it reads `vectors` from the beginning and hands decoded records,
    in order, to fold_many until `stop` is set. Returns the callable that stops all of it. There is one ann process; `index` is 0.
    """
    assert index == 0, "there is one ann process"
    model = config.model
    spec = model_spec(model.name, model.version, model.factors, model.optimizer, model.learning_rate, model.init_scale)
    service = Service(spec["tables"][0]["dim"], registry)  # a vector is as wide as a row: the factors and the item's own part
    owner = Owner("ann")
    owner.start()
    host, port = config.ann.address.rsplit(":", 1)
    server = Server(host, int(port), service.verbs(), owner)
    stop, failure = threading.Event(), []

    def fold_many(records: Records) -> int:
        parts = [records[at : at + RECORDS_A_HOLD] for at in range(0, len(records), RECORDS_A_HOLD)]  # searches come in between
        return sum(owner.call(lambda part=part: service.fold_many(part)) for part in parts)

    def read() -> None:
        try:
            consume(fold_many, stop)
        except Exception as error:
            log.exception("reading vectors failed")
            failure.append(f"reading vectors failed: {error}")

    reader = threading.Thread(target=read, name="vectors", daemon=True)
    reader.start()

    def missing() -> str:
        return failure[0] if failure else "" if reader.is_alive() or stop.is_set() else "the reader of vectors has ended"

    health = Health(config.ann.http_port, missing, registry)

    def close() -> None:
        stop.set()
        reader.join(10)
        health.close()
        ended = threading.Thread(target=server.shutdown, name="shutdown", daemon=True)
        ended.start()
        ended.join(2)  # Flight waits for every stream that a client keeps open; the process need not
        owner.stop()

    return close
