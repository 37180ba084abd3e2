"""The children of the local stack under a configuration: what each runs, how it says that it is ready, which wave it belongs to."""

from __future__ import annotations

import sys
from pathlib import Path

import httpx

from headrace import access, broker, flink, java
from headrace.config import PREFIX, Config, ConfigError
from headrace.ports import any_free
from headrace.processes import Child

PARTS = ("kafka", "registry", "ps", "features", "ann", "replica", "engine", "watch", "lake", "flink")


class UnknownPart(Exception):
    """--only names a part that the stack does not have."""


def chosen(only: str) -> tuple[str, ...]:
    """The parts named in "a,b", all for "". Raises UnknownPart."""
    names = tuple(name.strip() for name in only.split(",") if name.strip()) or PARTS
    for name in names:
        if name not in PARTS:
            raise UnknownPart(f"{name!r} is no part of the stack; the parts are {', '.join(PARTS)}")
    return names


def children(config: Config, parts: tuple[str, ...], settings: Path) -> list[Child]:
    """In the order in which they are stopped from behind: who writes to Kafka goes before it. External parts are left out.

    `settings`: the file with `config` that the roles read. Raises what broker.prepare and flink.prepare raise, and ConfigError for an
    engine that may not serve where it is asked to.
    """
    if "engine" in parts:
        access.check(config.engine)  # here too: its process would die, and be started again, many times
    access.check_services(config)
    for section, body in (("ps", config.ps), ("replica", config.replica)):
        if len(body.addresses) != len(body.http_ports):
            raise ConfigError(f"{section}.addresses has {len(body.addresses)} entries and {section}.http_ports {len(body.http_ports)}: one"
                              " of each a process")
    if "ps" in parts and len(config.ps.standbys) != len(config.ps.standby_http_ports):
        raise ConfigError(f"ps.standbys has {len(config.ps.standbys)} entries and ps.standby_http_ports"
                          f" {len(config.ps.standby_http_ports)}: one of each a shard")
    own = config.features
    if len(own.replicas) != len(own.replica_http_ports):
        raise ConfigError(f"features.replicas has {len(own.replicas)} entries and features.replica_http_ports"
                          f" {len(own.replica_http_ports)}: one of each a process")
    made: list[Child] = []
    if "kafka" in parts and not config.kafka.external:
        made.append(Child("kafka", broker.prepare(config), java.environment(), lambda: broker.ready(config), 0, config.kafka.bootstrap))
    if "registry" in parts and not config.registry.external:
        made.append(_role(settings, "registry", 0, config.registry.url, config.registry.url, 0))
    for index, (address, port) in enumerate(zip(config.ps.addresses, config.ps.http_ports, strict=True) if "ps" in parts else ()):
        made.append(_role(settings, "ps", index, address, _local(port), 1, f"ps-{index}"))
    shards = len(config.ps.addresses)
    for index, (address, port) in enumerate(zip(config.ps.standbys, config.ps.standby_http_ports, strict=True) if "ps" in parts else ()):
        made.append(_role(settings, "ps", shards + index, address, _local(port), 1, f"ps-{index}-standby"))
    for name in ("features", "ann"):
        if name in parts:
            body = getattr(config, name)
            made.append(_role(settings, name, 0, body.address, _local(body.http_port), 1))
    for index, (address, port) in enumerate(zip(own.replicas, own.replica_http_ports, strict=True) if "features" in parts else ()):
        made.append(_role(settings, "features_replica", index, address, _local(port), 1, f"features-replica-{index}"))
    serving = zip(config.replica.addresses, config.replica.http_ports, config.replica.names, strict=True) if "replica" in parts else ()
    for index, (address, port, name) in enumerate(serving):
        made.append(_role(settings, "replica", index, address, _local(port), 1, name))
    if "engine" in parts:
        made.append(_role(settings, "engine", 0, config.engine.url, config.engine.url, 1))
    if "watch" in parts and config.watch.enabled:
        made.append(_role(settings, "watch", 0, _local(config.watch.http_port), _local(config.watch.http_port), 1))
    if "lake" in parts and config.lake.enabled:
        made.append(_role(settings, "lake", 0, _local(config.lake.http_port), _local(config.lake.http_port), 1))
    if "flink" in parts and not config.flink.external:
        manager, task = flink.prepare(config, any_free())
        env = java.environment(**flink.client_environment(config), OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
        made.append(Child("flink-jobmanager", manager, env, lambda: flink.jobmanager_ready(config), 1, config.flink.url))
        made.append(Child("flink-taskmanager", task, env, lambda: flink.taskmanager_ready(config), 1))
    return made


def _role(settings: Path, role: str, index: int, address: str, health: str, wave: int, name: str = "") -> Child:
    command = [sys.executable, "-m", "headrace", "serve", role, "--index", str(index), "--config", str(settings)]
    return Child(name or role, command, _environment(), lambda: _ready(health), wave, address)


def _environment() -> dict[str, str]:
    """Without the caller's HEADRACE_SECTION__KEY: the settings file holds them already, with the addresses that were really taken."""
    env = {name: value for name, value in java.inherited().items() if not (name.startswith(PREFIX) and "__" in name)}
    # One thread a kernel: parallelism is processes here, and BLAS threads make small products slower. Fewer arenas: less memory at rest.
    return {**env, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2", "PYTHONUNBUFFERED": "1"}


def _local(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def _ready(health: str) -> str:
    """"" when HEALTH/ready says yes, else what is missing."""
    try:
        answer = httpx.get(f"{health}/ready", timeout=1.0, verify=False)  # our own child, whose certificate may name another host
    except httpx.HTTPError:
        return f"nobody answers at {health}"
    return "" if answer.status_code == 200 else answer.text[:200]
