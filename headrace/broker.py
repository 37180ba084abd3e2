"""A real Kafka on one node (KRaft: broker and controller in one JVM), its logs kept in DATA_DIR/kafka."""

from __future__ import annotations

import shutil
import subprocess
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path

from headrace import jars, java, kafka
from headrace.config import Config
from headrace.ports import answers, host_of, port_of

LOG4J = """\
status = warn
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{yyyy-MM-dd HH:mm:ss.SSS} %-5p %c{1} %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
logger.server.name = kafka.server
logger.server.level = info
"""


class BrokerFailed(Exception):
    """Kafka's data folder could not be formatted; the message holds what Java said last."""


def properties(config: Config, data: Path) -> dict[str, str]:
    """server.properties for one node: internal topics with one replica, no topic made by accident, groups without a waiting time."""
    host, port = host_of(config.kafka.bootstrap), port_of(config.kafka.bootstrap)
    controller = f"127.0.0.1:{config.kafka.controller_port}"
    one = ("offsets.topic.replication.factor", "transaction.state.log.replication.factor", "transaction.state.log.min.isr",
           "share.coordinator.state.topic.replication.factor", "share.coordinator.state.topic.min.isr")
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{controller}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{host}:{port},CONTROLLER://{controller}",
        "advertised.listeners": f"PLAINTEXT://{host}:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(data),
        "auto.create.topics.enable": "false",
        "group.initial.rebalance.delay.ms": "0",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.num.partitions": "4",
        "num.network.threads": "2",
        "num.io.threads": "4",
        "log.cleaner.dedupe.buffer.size": str(32 << 20),  # the default of 128 MB is a quarter of the heap
        "log.retention.check.interval.ms": "60000",
        # A broker that was killed may register again only when its last session has run out: by default that is 9 s.
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        **dict.fromkeys(one, "1"),
    }


def prepare(config: Config) -> list[str]:
    """Write the configuration, format the data folder when it is new, and return the command that runs the broker.

    Raises JarsError, JavaMissing and BrokerFailed.
    """
    home = (config.stack.data_dir / "kafka").resolve()
    data = home / "data"
    data.mkdir(parents=True, exist_ok=True)
    temporary = home / "tmp"  # what a JVM that is killed has unpacked of its libraries stays there, and is emptied at the next start
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    server = home / "server.properties"
    server.write_text("".join(f"{key}={value}\n" for key, value in properties(config, data).items()))
    log4j = home / "log4j2.properties"
    log4j.write_text(LOG4J)
    start = [str(java.executable()), f"-Djava.io.tmpdir={temporary}", f"-Dlog4j2.configurationFile={log4j}", "-cp", _classpath()]
    if not (data / "meta.properties").exists():
        _format(start, server)
    heap = [f"-Xmx{config.kafka.heap_mb}m", "-Xms128m", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:+ExitOnOutOfMemoryError"]
    return [start[0], *heap, *start[1:], "kafka.Kafka", str(server)]


def _classpath() -> str:
    return ":".join(str(path) for path in jars.paths(jars.folder(java.inherited()), "kafka"))


def _format(start: list[str], server: Path) -> None:
    cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    # With "=": an id may begin with a dash, and as an argument of its own it would be taken for an option, once in 64 folders.
    command = [start[0], "-XX:TieredStopAtLevel=1", *start[1:], "kafka.tools.StorageTool", "format", f"--cluster-id={cluster}",
               "-c", str(server)]
    done = subprocess.run(command, env=java.environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise BrokerFailed(f"Kafka's folder could not be formatted: {(done.stderr or done.stdout).strip()[-400:]}")


def ready(config: Config) -> str:
    """"" when the broker answers, else what is missing."""
    if not answers(config.kafka.bootstrap):
        return f"nobody listens at {config.kafka.bootstrap}"
    try:
        kafka.reach(config.kafka.bootstrap, 2.0)
        return ""
    except kafka.KafkaUnavailable as error:
        return str(error)
