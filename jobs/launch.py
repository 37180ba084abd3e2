"""What the four job files share: configuration to addresses and settings, pinned plans, and how a job is launched.

A file run by `flink run -py` (or plain python) leaves target and jars to its launcher; `headrace jobs submit` sends several jobs to the
session cluster of the configuration from one client, which saves a JVM's start for each.

SQL operators cannot be given uids, so the plan of each job as it is configured by default is pinned in plans/NAME.json with a digest of
its statements: a job whose statements have that digest runs the pinned plan, and so restores a savepoint of an earlier release even when
Flink's planner has changed. Other configurations are planned afresh.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyflink.table import PlanReference, TableEnvironment
from pyflink.table.compiled_plan import CompiledPlan

from headrace import secrets
from headrace.config import Config, load
from headrace.kafka import topic_source
from headrace.streaming import ingest, secured
from headrace.streaming.environment import Settings, environment
from headrace.streaming.featurize import Addresses
from headrace.streaming.positions import Standing
from headrace.streaming.tables import Connection

PLANS = Path(__file__).parent / "plans"


@dataclass(frozen=True)
class Job:
    """A job not yet planned: DDL by connection, views, INSERTs, the Python functions that they name, options of Flink beside all jobs'."""

    name: str
    tables: Callable[[Connection], list[str]]
    inserts: list[str]
    views: list[str] = field(default_factory=list)
    functions: dict[str, Any] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """sha256 of all statements, without addresses."""
        text = "\n".join([*self.tables(Connection("", "")), *self.views, *self.inserts])
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def plan_file(self) -> Path:
        return PLANS / f"{self.name}.json"


def addresses(config: Config) -> Addresses:
    """What Python workers connect to."""
    kafka, registry = secrets.there(config)
    return Addresses(kafka, registry, config.features.address, tuple(config.ps.reachable), *secrets.calls(config))


def marks(config: Config) -> str:
    """Where workers leave marks of what they touch: flink.marks_dir, else the stack's data folder; of a cluster elsewhere its own /tmp."""
    chosen = config.flink.marks_dir
    return str(chosen) if chosen or config.flink.external else str((config.stack.data_dir / "marks").resolve())


def standing(config: Config, name: str, topic: str, into: str) -> Standing:
    """How far job `name` has come in `topic`, which it turns into `into`."""
    rows = settings(name, config).bundle_rows
    return Standing(f"headrace-{name}-done", topic, into, rows)


def connection(config: Config) -> Connection:
    """What Flink's connectors connect to."""
    kafka, registry = secrets.there(config)
    return Connection(config.kafka.bootstrap, config.registry.url, secured.connector(kafka, config.kafka.connector_properties),
                      secured.registry(registry, config.registry.connector_properties))


def source(config: Config, topic: str) -> int:
    """The topic's source number; it must exist, since its uuid names the causes."""
    return topic_source(config.kafka.cluster, topic)


def settings(name: str, config: Config, *, target: str = "", jars: tuple[Path, ...] = (), savepoint: str = "") -> Settings:
    """How job `name` runs under `config`."""
    flink, rows, wait_ms, checkpoint_ms = config.flink, config.flink.batch_rows, config.flink.bundle_time_ms, config.flink.checkpoint_ms
    if name.startswith("train"):
        rows = flink.train_batch_rows
    elif name.startswith("ingest-"):
        rows, wait_ms, checkpoint_ms = ingest.BATCH_ROWS, max(wait_ms, ingest.BUNDLE_MS), ingest.CHECKPOINT_MS
    return Settings(name, sys.executable, target, flink.parallelism, jars, wait_ms, max(rows, flink.batch_rows), rows, checkpoint_ms,
                    savepoint)


def declare(env: TableEnvironment, job: Job, where: Connection) -> None:
    """Options, functions, tables and views of `job` on `env`."""
    for key, value in job.options.items():
        env.get_config().set(key, value)
    for name, function in job.functions.items():
        env.create_temporary_function(name, function)
    for statement in [*job.tables(where), *job.views]:
        env.execute_sql(statement)


def compiled(env: TableEnvironment, job: Job) -> CompiledPlan:
    """The pinned plan when it is of these statements, else a fresh one; after `declare`."""
    if job.plan_file.exists():
        pinned = json.loads(job.plan_file.read_text())
        if pinned["statements"] == job.digest:
            return _owned(env, env.load_plan(PlanReference.from_json_string(json.dumps(pinned["plan"]))))
    return fresh(env, job)


def fresh(env: TableEnvironment, job: Job) -> CompiledPlan:
    """The plan that this Flink makes now."""
    statements = env.create_statement_set()
    for insert in job.inserts:
        statements.add_insert_sql(insert)
    return _owned(env, statements.compile_plan())


def _owned(env: TableEnvironment, plan: CompiledPlan) -> CompiledPlan:
    """PyFlink 2.3 hands a plan the Java environment instead of its own, and the plan cannot be executed."""
    return CompiledPlan(plan._j_compiled_plan, env)


def pin(job: Job, config: Config, jars: tuple[Path, ...]) -> Path:
    """Write plans/NAME.json anew: when a job's statements were changed on purpose, with a note on what becomes of old savepoints."""
    env = environment(settings(job.name, config, jars=jars))
    declare(env, job, connection(config))
    plan = json.loads(fresh(env, job).as_json_string())
    PLANS.mkdir(exist_ok=True)
    job.plan_file.write_text(json.dumps({"statements": job.digest, "plan": plan}, indent=1) + "\n")
    return job.plan_file


def submit(job: Job, config: Config, *, target: str = "", jars: tuple[Path, ...] = (), savepoint: str = "") -> str:
    """Submit `job`; its Flink job id."""
    env = environment(settings(job.name, config, target=target, jars=jars, savepoint=savepoint))
    declare(env, job, connection(config))
    client = compiled(env, job).execute().get_job_client()
    assert client is not None, "a streaming INSERT always has a job client"
    return str(client.get_job_id())


def run(make: Callable[[Config], Job]) -> None:
    """Entry point of a job file."""
    config = load()
    job = make(config)
    print(f"{job.name}: submitted as {submit(job, config)}")
