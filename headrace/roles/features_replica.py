"""A replica of the feature shard as a role: it copies the rows, follows the blocks, and answers readers (docs/features.md)."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial

from prometheus_client import Gauge, ProcessCollector

from headrace.config import Config
from headrace.feature_set import feature_set_of
from headrace.features.follower import Follower, Replica
from headrace.features.replica_service import ReplicaService
from headrace.features.warm import compile_kernels
from headrace.roles.features import settings
from headrace.roles.stopping import stop_serving
from headrace.rpc.client import Client
from headrace.rpc.errors import RpcError, Unavailable
from headrace.rpc.health import Health
from headrace.rpc.owner import Owner
from headrace.rpc.server import Server

log = logging.getLogger(__name__)
CALL_S, POLL_S, RETRY_S, LASTING_S = 10.0, 0.01, 0.5, 5.0
TURN = 1  # blocks that are done before a reader comes in between
STALE_S = 10.0  # without a word from the shard it is told; it goes on answering


class Following:
    """Keeps `follower` at the shard's newest block, on a thread of its own; what it changes it changes in `owner`'s turns."""

    def __init__(self, follower: Follower, owner: Owner) -> None:
        self._follower, self._owner = follower, owner
        self._stop = threading.Event()
        self._heard_s = time.monotonic()
        self._trouble = "it begins"
        self._thread = threading.Thread(target=self._run, name="following", daemon=True)
        self._thread.start()

    @property
    def silent_s(self) -> float:
        """Seconds since the shard answered."""
        return time.monotonic() - self._heard_s

    def missing(self) -> str:
        replica = self._follower.replica
        if replica is None:
            return self._trouble or "the rows of the feature shard are being copied"
        if replica.failed:
            return replica.failed
        return f"nothing was heard of the feature shard for {self.silent_s:.0f} s: {self._trouble}" if self.silent_s > STALE_S else ""

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(CALL_S)

    def _run(self) -> None:
        pause_s = 0.0
        while not self._stop.wait(pause_s):
            try:
                pause_s = 0.0 if self._step() else POLL_S
                self._heard_s, self._trouble = time.monotonic(), ""
            except Unavailable as error:
                self._trouble, pause_s = str(error), RETRY_S
            except RpcError as error:
                self._tell(str(error))
                pause_s = LASTING_S
            except Exception as error:
                log.exception("following the feature shard failed; again in some seconds")
                self._trouble, pause_s = str(error), LASTING_S

    def _tell(self, trouble: str) -> None:
        if trouble != self._trouble:
            log.error("%s", trouble)
        self._trouble = trouble

    def _step(self) -> bool:
        """Whether there may be more at once."""
        replica = self._follower.replica
        if replica is None:
            self._follower.copy(self._stop.is_set)
            return True
        records = self._follower.poll()
        if records is None:
            log.warning("the shard has not what comes after block %d: its rows are copied anew", replica.memory.number - 1)
            self._owner.call(self._drop)
            return True
        for at in range(0, len(records), TURN):
            self._owner.call(partial(replica.follow, records[at : at + TURN]))
        return bool(records)

    def _drop(self) -> None:
        replica, self._follower.replica = self._follower.replica, None
        assert replica is not None
        replica.store.close()


def start(config: Config, index: int = 0, **_: object) -> Callable[[], None]:
    """Serve reads at config.features.replicas[index] from DATA_DIR/features-replica-INDEX; returns what stops it. While the shard is away
    it answers with what it has. Raises OSError when a port or the folder is taken, ConfigError for definitions that are wrong."""
    feature_set = feature_set_of(config)
    compile_kernels(feature_set, follows=True)
    folder, client = config.stack.data_dir / f"features-replica-{index}", Client(config.features.address, CALL_S)
    try:
        follower = Follower(folder, client.call, feature_set,
                            lambda store: Replica(store, **settings(config), feature_set=feature_set))
    except Exception as error:
        raise OSError(f"the replica at {folder} cannot be opened: {error}; without the folder it copies all anew") from error
    owner, service = Owner("features-replica"), ReplicaService(follower)
    host, port = config.features.replicas[index].rsplit(":", 1)
    server = Server(host, int(port), service.verbs(), owner)
    owner.start()
    following = Following(follower, owner)
    ProcessCollector(registry=service.registry)
    for name, said, value in (("behind", "Blocks of the shard that it has not done yet.", lambda: follower.behind),
                              ("silent_seconds", "Since the shard answered.", lambda: following.silent_s)):
        Gauge(f"headrace_features_replica_{name}", said, registry=service.registry).set_function(value)
    health = Health(config.features.replica_http_ports[index], following.missing, service.registry)

    def stop() -> None:
        following.stop()
        health.close()
        stop_serving(server, owner)
        client.close()
        if follower.replica is not None:
            follower.replica.close()

    return stop
