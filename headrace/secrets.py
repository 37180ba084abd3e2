"""The folder of secrets that Flink's hosts read, and how Kafka and the registry are reached from there."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from headrace.config import Config, ConfigError
from headrace.schemas.access import KAFKA_JAAS, KAFKA_PASSWORD, REGISTRY_PASSWORD, RPC_TOKEN, Cluster, Registry, jaas, properties_text
from headrace.streaming.secured import SHADED

SECRETS, LOGIN = "headrace-secrets.properties", "headrace-login.conf"
T = TypeVar("T", Cluster, Registry)


def local(config: Config) -> Path:
    """This machine's own folder, of the local cluster and of the client that submits to any."""
    return (config.stack.data_dir / "secrets").resolve()


def folder(config: Config) -> str:
    """Where Flink's hosts have it: of the local cluster DATA_DIR/secrets, of another flink.secrets_dir. Raises ConfigError."""
    if not config.flink.external:
        return str(local(config))
    if not config.flink.secrets_dir:
        raise ConfigError("Flink is elsewhere, and what its jobs connect to is reached with files: `headrace connect secrets FOLDER` writes"
                          " them; put the folder on every Flink host, and its place there into flink.secrets_dir")
    return config.flink.secrets_dir.rstrip("/")


def needed(config: Config) -> bool:
    """Whether Kafka, the registry or our own services ask for anything that lies in files."""
    parts = (config.kafka, config.registry)
    called = config.rpc.access
    return any(part.username or part.tls_ca or part.tls_cert for part in parts) or bool(called.token or called.ca)


def there(config: Config) -> tuple[Cluster, Registry]:
    """How Flink's hosts reach both: passwords by a file, PEM files in the folder of secrets."""
    kafka, registry = config.kafka.cluster, config.registry.access
    if not needed(config):
        return kafka, registry
    where = folder(config)
    return _moved(kafka, where, "kafka"), _moved(registry, where, "registry")


def calls(config: Config) -> tuple[str, str]:
    """(file of secrets, PEM of the authority) with which Flink's hosts call our services; "" for what is not asked for."""
    called = config.rpc.access
    where = folder(config) if called.token or called.ca else ""
    return f"{where}/{SECRETS}" if called.token else "", f"{where}/rpc-ca.pem" if called.ca else ""


def _moved(reached: T, where: str, name: str) -> T:
    ca, cert, key = (f"{where}/{name}-{kind}.pem" if getattr(reached, kind) else "" for kind in ("ca", "cert", "key"))
    return replace(reached.by_file(f"{where}/{SECRETS}"), ca=ca, cert=cert, key=key)


def write(config: Config, into: Path) -> list[Path]:
    """Write what Flink's hosts need, for its owner alone; the files. Raises ConfigError for a password or PEM file that is not there.

    Java takes one file with a key and its certificates: NAME-cert.pem holds both.
    """
    kafka, registry = config.kafka.cluster, config.registry.access
    into.mkdir(mode=0o700, parents=True, exist_ok=True)
    into.chmod(0o700)
    values: dict[str, str] = {}
    made: list[Path] = []
    if kafka.username:
        values |= {KAFKA_PASSWORD: kafka.password, KAFKA_JAAS: jaas(kafka.mechanism, kafka.username, kafka.password, SHADED)}
    if registry.username:
        values[REGISTRY_PASSWORD] = registry.password
        login = jaas("PLAIN", registry.username, registry.password)
        made.append(_private(into / LOGIN, f"KafkaClient {{\n  {login}\n}};\n"))
    called = config.rpc.access
    if called.token:
        values[RPC_TOKEN] = called.token
    if called.ca:
        made.append(Path(shutil.copyfile(called.ca, into / "rpc-ca.pem")))
    if values:
        made.append(_private(into / SECRETS, properties_text(values)))
    for name, reached in (("kafka", kafka), ("registry", registry)):
        if reached.ca:
            made.append(Path(shutil.copyfile(reached.ca, into / f"{name}-ca.pem")))
        if reached.cert:
            texts = [Path(file).read_text() for file in (reached.key, reached.cert) if file]
            made.append(_private(into / f"{name}-cert.pem", "".join(texts)))
            if reached.key:
                made.append(_private(into / f"{name}-key.pem", texts[0]))
    return made


def _private(path: Path, text: str) -> Path:
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(text, encoding="utf-8")
    return path
