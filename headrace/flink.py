"""A standalone Flink from the apache-flink wheel: its configuration, its folder of jars, and the commands of its two processes.

The JVMs are started directly, not by the wheel's scripts: one process each, which a supervisor can watch, and a second earlier.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from headrace import jars, java, secrets
from headrace.config import Config
from headrace.ports import answers, host_of, port_of
from headrace.streaming.secured import LOGIN_OPTION

JOBMANAGER = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
TASKMANAGER = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
LOG4J = """\
status = warn
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{yyyy-MM-dd HH:mm:ss.SSS} %-5p %c{1} %x - %m%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
logger.pekko.name = org.apache.pekko
logger.pekko.level = warn
logger.kafka.name = org.apache.kafka
logger.kafka.level = warn
logger.python.name = PythonWorker
logger.python.level = all
"""


class FlinkMissing(Exception):
    """The apache-flink package is not installed: run `make setup`, or `pip install 'headrace[local]'`."""


@dataclass(frozen=True)
class Memory:
    """How a TaskManager's megabytes are divided; Python workers live outside of it."""

    heap_mb: int
    managed_mb: int
    network_mb: int = 64
    framework_heap_mb: int = 96
    framework_off_heap_mb: int = 64
    metaspace_mb: int = 256
    overhead_mb: int = 128


def memory(taskmanager_mb: int) -> Memory:
    """A fifth for RocksDB state (managed), what is fixed (metaspace, network, overhead), and the rest for the heap."""
    managed = taskmanager_mb // 5
    fixed = Memory(0, managed)
    heap = taskmanager_mb - managed - fixed.network_mb - fixed.framework_off_heap_mb - fixed.metaspace_mb - fixed.overhead_mb
    return Memory(max(heap, 256) - fixed.framework_heap_mb, managed)


def wheel() -> Path:
    """The pyflink folder, which holds bin/, lib/, opt/ and plugins/. Raises FlinkMissing."""
    found = importlib.util.find_spec("pyflink")
    if found is None or not found.origin:
        raise FlinkMissing("Flink comes with the package apache-flink, which is not installed: run `make setup`")
    return Path(found.origin).parent


def home(config: Config) -> Path:
    return (config.stack.data_dir / "flink").resolve()


def settings(config: Config, rpc_port: int) -> dict[str, str | float]:
    """config.yaml of both processes."""
    room = memory(config.flink.taskmanager_mb)
    return {
        "jobmanager.rpc.address": "127.0.0.1",
        "jobmanager.rpc.port": rpc_port,
        "jobmanager.bind-host": "127.0.0.1",
        "jobmanager.memory.process.size": f"{config.flink.jobmanager_mb}m",
        "rest.address": host_of(config.flink.url),
        "rest.bind-address": host_of(config.flink.url),
        "rest.port": port_of(config.flink.url),
        "taskmanager.host": "127.0.0.1",
        "taskmanager.bind-host": "127.0.0.1",
        # A TaskManager that comes back under the same name replaces the dead one at once, without waiting for its heartbeats to fail.
        "taskmanager.resource-id": "taskmanager",
        "taskmanager.numberOfTaskSlots": config.flink.slots,
        "taskmanager.cpu.cores": float(config.flink.slots),
        "taskmanager.memory.task.heap.size": f"{room.heap_mb}m",
        "taskmanager.memory.task.off-heap.size": "0m",
        "taskmanager.memory.framework.heap.size": f"{room.framework_heap_mb}m",
        "taskmanager.memory.framework.off-heap.size": f"{room.framework_off_heap_mb}m",
        "taskmanager.memory.network.min": f"{room.network_mb}m",
        "taskmanager.memory.network.max": f"{room.network_mb}m",
        "taskmanager.memory.managed.size": f"{room.managed_mb}m",
        "taskmanager.memory.jvm-metaspace.size": f"{room.metaspace_mb}m",
        "taskmanager.memory.jvm-overhead.min": f"{room.overhead_mb}m",
        "taskmanager.memory.jvm-overhead.max": f"{room.overhead_mb}m",
        "parallelism.default": config.flink.parallelism,
        # Both start together: the default pause after a JobManager that is not there yet is 10 s.
        "cluster.registration.error-delay": "300 ms",
        "cluster.registration.max-timeout": "2 s",
        "heartbeat.interval": "2 s",
        "heartbeat.timeout": "20 s",
        "state.backend.type": config.flink.state_backend,
        "execution.checkpointing.incremental": config.flink.state_backend == "rocksdb",
        "execution.checkpointing.storage": "filesystem",
        "execution.checkpointing.dir": f"file://{home(config)}/checkpoints",
        "execution.checkpointing.savepoint-dir": f"file://{home(config)}/savepoints",
        "execution.checkpointing.interval": f"{config.flink.checkpoint_ms} ms",
        "execution.checkpointing.mode": "AT_LEAST_ONCE",
        "restart-strategy.type": "exponential-delay",
        "restart-strategy.exponential-delay.initial-backoff": "200 ms",
        "restart-strategy.exponential-delay.max-backoff": "10 s",
        "io.tmp.dirs": f"{home(config)}/tmp",
        "web.tmpdir": f"{home(config)}/tmp",
        "python.executable": sys.executable,
        "python.client.executable": sys.executable,
        "python.fn-execution.bundle.time": config.flink.bundle_time_ms,
        "python.fn-execution.arrow.batch.size": config.flink.batch_rows,
    }


def prepare(config: Config, rpc_port: int) -> tuple[list[str], list[str]]:
    """Write conf/ and lib/; the commands of the JobManager and of the TaskManager. Raises FlinkMissing, JavaMissing, JarsError."""
    where = home(config)
    for folder in ("conf", "lib", "log", "pid", "tmp", "checkpoints", "savepoints"):
        (where / folder).mkdir(parents=True, exist_ok=True)
    # What a JVM unpacks of its libraries, clients too, lies in the stack's folder; one that is killed leaves it there.
    options = [*_module_options().split(), f"-Djava.io.tmpdir={where}/tmp", *_secrets(config)]
    values = {**settings(config, rpc_port), "env.java.opts.all": " ".join(options)}
    # A JSON scalar is a YAML scalar, so no YAML writer is needed.
    (where / "conf" / "config.yaml").write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in values.items()))
    (where / "conf" / "log4j-console.properties").write_text(LOG4J)
    for name in ("log4j-cli.properties", "log4j.properties"):  # of clients: a person reads along
        (where / "conf" / name).write_text(LOG4J.replace("rootLogger.level = info", "rootLogger.level = error"))
    classpath = ":".join(str(path) for path in _link(where / "lib"))
    room = memory(config.flink.taskmanager_mb)
    # The JobManager has no hot code: the second compiler would be a third of what it costs in its first minutes.
    manager = ["-Xms96m", f"-Xmx{max(config.flink.jobmanager_mb - 384, 192)}m", "-XX:MaxMetaspaceSize=256m", "-XX:+UseSerialGC",
               "-XX:TieredStopAtLevel=1"]
    task_heap = room.heap_mb + room.framework_heap_mb
    # The whole heap from the start: in one that G1 keeps small it marks all the time. More of its bookkeeping in pauses (some 60 ms), less
    # beside them: a fifth less processor. ParallelGC takes a tenth less still, but stops for 0.6 s every half minute under `eager`.
    task = [f"-Xms{task_heap}m", f"-Xmx{task_heap}m", f"-XX:MaxDirectMemorySize={room.framework_off_heap_mb + room.network_mb}m",
            f"-XX:MaxMetaspaceSize={room.metaspace_mb}m", "-XX:+ExitOnOutOfMemoryError", "-XX:+UseG1GC",
            "-XX:G1RSetUpdatingPauseTimePercent=40",
            # An Arrow batch of a thousand rows is larger than half a region of 1 MB: as a "humongous" object each began a concurrent cycle.
            "-XX:G1HeapRegionSize=4m"]
    common = [*options, f"-Dlog4j.configurationFile=file:{where}/conf/log4j-console.properties",
              "-cp", classpath]
    end = ["--configDir", str(where / "conf")]
    return [str(java.executable()), *manager, *common, JOBMANAGER, *end], [str(java.executable()), *task, *common, TASKMANAGER, *end]


def _secrets(config: Config) -> list[str]:
    """Write the folder of secrets, where one is needed; the option that has a JVM read the registry's user: clients plan with it too."""
    if not secrets.needed(config):
        return []
    where = secrets.local(config)
    secrets.write(config, where)
    return [f"-D{LOGIN_OPTION}={where / secrets.LOGIN}"] if config.registry.username else []


def client_environment(config: Config) -> dict[str, str]:
    """Variables that make a Flink client or process use the local stack's folders; the jars and conf/ are made when they are missing."""
    where = home(config)
    if not (where / "conf" / "config.yaml").exists():
        prepare(config, 6123)  # a client of an external cluster: only conf/ and lib/ matter, the RPC port is not used
    # Without FLINK_HOME pyflink points FLINK_LIB_DIR at the wheel's own lib/, which lacks the connectors.
    return {
        "FLINK_HOME": str(wheel()),
        "_python_worker_execution_mode": "process",  # else PyFlink may have workers call back into the client, which ends
        "FLINK_CONF_DIR": str(where / "conf"), "FLINK_LIB_DIR": str(where / "lib"), "FLINK_LOG_DIR": str(where / "log"),
        "FLINK_PID_DIR": str(where / "pid"), "FLINK_PLUGINS_DIR": str(wheel() / "plugins"), "FLINK_OPT_DIR": str(wheel() / "opt"),
    }


def _module_options() -> str:
    """The JVM's --add-opens and --add-exports, as the wheel's own configuration lists them, of modules that our Java has: it warns of
    others at each start."""
    import yaml

    listed = str(yaml.safe_load((wheel() / "conf" / "config.yaml").read_text())["env"]["java"]["opts"]["all"]).split()
    had = java.modules()
    return " ".join(one for one in listed if not had or one.partition("=")[2].partition("/")[0] in had)


def _link(lib: Path) -> list[Path]:
    """Fill `lib` with links: the wheel's jars, flink-python (a Python job needs its operators), the connectors; flink-dist last."""
    connectors = jars.paths(jars.folder(java.inherited()), "flink")
    wanted = {path.name: path for path in [*(wheel() / "lib").glob("*.jar"), *(wheel() / "opt").glob("flink-python-*.jar"), *connectors]}
    for old in lib.iterdir():
        if old.name not in wanted or os.readlink(old) != str(wanted[old.name]):
            old.unlink()
    for name, path in wanted.items():
        if not (lib / name).exists():
            (lib / name).symlink_to(path)
    return sorted((lib / name for name in wanted), key=lambda path: (path.name.startswith("flink-dist"), path.name))


def jobmanager_ready(config: Config) -> str:
    """"" when REST answers, else what is missing."""
    return "" if _ask(config, "/overview") is not None else f"nobody answers at {config.flink.url}"


def taskmanager_ready(config: Config) -> str:
    """"" when the TaskManager's slots are registered, else what is missing."""
    found = (_ask(config, "/taskmanagers") or {}).get("taskmanagers", [])
    # The JobManager goes on counting a killed TaskManager for a while: it counts here when its own port answers.
    slots = sum(one["slotsNumber"] for one in found if answers(one["path"].split("@")[-1].split("/")[0]))
    return "" if slots >= config.flink.slots else "its slots are not registered"


def _ask(config: Config, path: str) -> dict[str, Any] | None:
    try:
        answer = httpx.get(config.flink.url + path, timeout=1.0)
        return answer.json() if answer.status_code == 200 else None
    except (httpx.HTTPError, ValueError):
        return None
