"""A Flink table environment: where the job goes, which jars travel with it, how Python workers are fed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pyflink.common import Configuration
from pyflink.table import EnvironmentSettings, TableEnvironment

NEVER_MS = (1 << 63) - 1  # what Flink takes for no interval; the cluster's own configuration has one


@dataclass(frozen=True)
class Settings:
    """How a job runs. A stage is called with at most `batch_rows` at once, and Flink hands it at most `bundle_rows` before it waits.

    `target`: REST address host:port of a session cluster; "" leaves the target to whoever launches (flink run). `checkpoint_ms`: 0 for a
    job without checkpoints."""

    name: str
    python: str
    target: str = ""
    parallelism: int = 1
    jars: Sequence[Path] = ()
    bundle_time_ms: int = 20
    bundle_rows: int = 1024
    batch_rows: int = 1024
    checkpoint_ms: int = 5000
    savepoint: str = ""


def environment(settings: Settings) -> TableEnvironment:
    """A streaming table environment under `settings`.

    They are given when it is made: PyFlink decides then whether workers run in the client's process, which they must not on a cluster.
    """
    configuration = Configuration()
    for key, value in options(settings).items():
        configuration.set_string(key, value)
    return TableEnvironment.create(EnvironmentSettings.new_instance().in_streaming_mode().with_configuration(configuration).build())


def options(settings: Settings) -> dict[str, str]:
    """Flink's options of a job."""
    values = {
        "pipeline.name": settings.name,
        "parallelism.default": str(settings.parallelism),
        "table.local-time-zone": "UTC",
        "pipeline.auto-watermark-interval": "20 ms",
        "execution.checkpointing.interval": f"{settings.checkpoint_ms or NEVER_MS} ms",
        "execution.checkpointing.mode": "AT_LEAST_ONCE",
        "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        "execution.checkpointing.max-concurrent-checkpoints": "1",
        "execution.checkpointing.unaligned.enabled": "false",
        "restart-strategy.type": "exponential-delay",
        "restart-strategy.exponential-delay.initial-backoff": "200 ms",
        "restart-strategy.exponential-delay.max-backoff": "10 s",
        "restart-strategy.exponential-delay.attempts-before-reset-backoff": "30",
        "python.executable": settings.python,
        "python.client.executable": settings.python,
        "python.fn-execution.bundle.time": str(settings.bundle_time_ms),
        "python.fn-execution.bundle.size": str(settings.bundle_rows),
        "python.fn-execution.arrow.batch.size": str(settings.batch_rows),
        "table.exec.source.idle-timeout": "0 ms",
        "table.exec.sink.not-null-enforcer": "ERROR",
        "execution.buffer-timeout.interval": "10 ms",  # of each shuffle, of which the samples job has four in a row
        # Chained operators hand rows on instead of copying each deeply. What keeps rows stands behind a shuffle, where each row is a new
        # object (tests/streaming/test_plans.py), and Python stages copy what they forward.
        "pipeline.object-reuse": "true",
        "table.plan.compile.catalog-objects": "IDENTIFIER",
        "table.plan.restore.catalog-objects": "IDENTIFIER",
    }
    if settings.target:
        host, port = settings.target.rsplit(":", 1)
        values |= {"execution.target": "remote", "rest.address": host, "rest.port": port, "execution.attached": "false"}
    if settings.jars:
        values["pipeline.jars"] = ";".join(f"file://{jar}" for jar in settings.jars)
    if settings.savepoint:
        values["execution.state-recovery.path"] = settings.savepoint
    return values
