"""What the four job files share: configuration to addresses and settings, and how a job is launched.

A file run by `flink run -py` (or plain python) leaves target and jars to its launcher; `headrace jobs submit` sends several jobs to the
session cluster of the configuration from one client, which saves a JVM's start for each.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from pyflink.table import StatementSet, TableEnvironment

from headrace.config import Config, load
from headrace.kafka import topic_source
from headrace.streaming.environment import Settings, environment
from headrace.streaming.featurize import Addresses
from headrace.streaming.tables import Connection

Build = Callable[[TableEnvironment, Config], StatementSet]


def addresses(config: Config) -> Addresses:
    """What Python workers connect to."""
    return Addresses(config.kafka.bootstrap, config.registry.url, config.features.address, tuple(config.ps.addresses))


def connection(config: Config) -> Connection:
    """What Flink's connectors connect to."""
    return Connection(config.kafka.bootstrap, config.registry.url)


def source(config: Config, topic: str) -> int:
    """The topic's source number; it must exist, since its uuid names the causes."""
    return topic_source(config.kafka.bootstrap, topic)


def settings(name: str, config: Config, *, target: str = "", jars: tuple[Path, ...] = (), savepoint: str = "") -> Settings:
    """How job `name` runs under `config`."""
    rows = config.flink.train_batch_rows if name == "train" else config.flink.batch_rows
    flink = config.flink
    return Settings(name, sys.executable, target, flink.parallelism, jars, flink.bundle_time_ms, rows, flink.checkpoint_ms, savepoint)


def submit(name: str, build: Build, config: Config, **where) -> str:
    """Submit one job; its Flink job id."""
    env = environment(settings(name, config, **where))
    client = build(env, config).execute().get_job_client()
    assert client is not None, "a streaming INSERT always has a job client"
    return str(client.get_job_id())


def run(name: str, build: Build) -> None:
    """Entry point of a job file."""
    config = load()
    print(f"{name}: submitted as {submit(name, build, config)}")
