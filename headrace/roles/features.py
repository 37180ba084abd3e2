"""The feature service as a role: the store, its owner, the Flight server, health."""

from __future__ import annotations

import logging
from collections.abc import Callable

from headrace.config import Config
from headrace.connections import ConfigError
from headrace.feature_set import feature_set_of
from headrace.features.block_log import LogError
from headrace.features.definitions import DefinitionError
from headrace.features.service import FeatureService
from headrace.features.shard import FeatureShard
from headrace.features.store import FeatureStore
from headrace.features.warm import compile_kernels
from headrace.rpc.health import Health
from headrace.rpc.owner import Owner
from headrace.rpc.server import Server

log = logging.getLogger(__name__)
SWEEP_S, SWEPT = 0.05, 128  # 2,500 rows a second are looked at, in 1 % of the time


def start(config: Config, index: int = 0, **_: object) -> Callable[[], None]:
    """Serve at config.features.address from DATA_DIR/features; returns what stops it. Raises OSError when a port or the folder is taken,
    ConfigError for definitions that are wrong, or were changed under their version."""
    feature_set = feature_set_of(config)
    compile_kernels(feature_set)
    try:
        store = FeatureStore(config.stack.data_dir / "features")
    except Exception as error:
        raise OSError(f"the feature store at {config.stack.data_dir / 'features'} cannot be opened: {error}") from error
    try:
        shard = FeatureShard(store, half_life_s=config.features.half_life_s, ring_length=config.features.ring_length,
                             log_bytes=config.features.log_bytes, rows_bytes=config.features.rows_bytes, feature_set=feature_set,
                             idle_s=config.features.idle_s)
    except (DefinitionError, LogError) as error:
        store.close()
        raise ConfigError(str(error)) from None
    owner = Owner("features")
    service = FeatureService(shard, owner.give_way)
    owner.every(SWEEP_S, lambda: shard.sweep(SWEPT))
    host, port = config.features.address.rsplit(":", 1)
    try:
        server = Server(host, int(port), service.verbs(), owner)
        health = Health(config.features.http_port, lambda: shard.failed, service.registry)
    except Exception as error:
        store.close()
        raise OSError(f"the feature service cannot serve at {config.features.address}: {error}") from error
    owner.start()
    log.info("features at %s, sequence %d, %s", config.features.address, shard.sequence, feature_set.name)

    def stop() -> None:
        health.close()
        server.shutdown()
        owner.stop()
        shard.close()

    return stop
