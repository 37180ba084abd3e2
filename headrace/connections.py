"""Sections of the configuration about what is connected to: Kafka, the registry, and calls between our own processes.

Passwords are in files, or in the environment of the process that starts (headrace/java.py copies it); never in a value that is shown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from headrace import java
from headrace.rpc.access import Access
from headrace.schemas.access import Cluster
from headrace.schemas.access import Registry as Reached

PREFIX = "HEADRACE_"


class ConfigError(Exception):
    """The configuration cannot be used; the message says which key of which file, and what to write instead."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True)


_SECRET = ("password", "secret", "jaas", "token", "user.info", "key.pem", "keystore.key")
_OWN_KAFKA = ("bootstrap.servers", "group.id", "enable.auto.commit", "isolation.level", "acks", "enable.idempotence", "partitioner",
              "auto.offset.reset", "security.protocol", "sasl.mechanism", "sasl.username", "config.providers")


def _unreserved(given: dict[str, str], own: tuple[str, ...], instead: str) -> dict[str, str]:
    for name in given:
        if any(word in name.lower() for word in _SECRET):
            raise ValueError(f"{name} holds a secret, and these go where people read them: use {instead}")
        if name in own or name.startswith("config.providers"):
            raise ValueError(f"{name} is set by headrace itself, from the other keys of this section")
    return given


def _password(section: str, username: str, file: Path | None) -> str:
    """The password of a section with a user: of its file, or of HEADRACE_SECTION_PASSWORD. Raises ConfigError."""
    if not username:
        return ""
    variable, environ = f"{PREFIX}{section.upper()}_PASSWORD", java.inherited()
    if file is None:
        if variable not in environ:
            raise ConfigError(f"{section}.username is {username!r}, and there is no password: write it into a file and name that as"
                              f" {section}.password_file, or set {variable}")
        return environ[variable]
    try:
        return file.read_text(encoding="utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{section}.password_file {file} cannot be read: {error}") from None


def _tls(section: str, body: Kafka | Registry | Rpc) -> dict[str, str]:
    """ca, cert and key as absolute paths. Raises ConfigError for one that is not there."""
    found: dict[str, str] = {}
    for name in ("ca", "cert", "key"):
        path: Path | None = getattr(body, f"tls_{name}")
        if path is not None and not path.is_file():
            raise ConfigError(f"{section}.tls_{name} is {path}, and there is no such file")
        found[name] = str(path.resolve()) if path is not None else ""
    return found


class Kafka(Section):
    """Kafka; `external` true: an existing cluster at `bootstrap`, the stack starts none."""

    bootstrap: str = "127.0.0.1:19092"
    controller_port: int = 19093
    external: bool = False
    partitions: int = Field(4, ge=1, description="Partitions of topics that headrace creates.")
    heap_mb: int = 512
    security: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="Kafka's security.protocol, of an external cluster.")
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    username: str = ""
    password_file: Path | None = Field(None, description="File with the password alone; or set HEADRACE_KAFKA_PASSWORD.")
    tls_ca: Path | None = Field(None, description="PEM of the authority that signed the brokers' certificates; by default the system's.")
    tls_cert: Path | None = Field(None, description="PEM of our own certificate and its chain, where brokers ask for one (mutual TLS).")
    tls_key: Path | None = Field(None, description="PEM of its private key.")
    client_properties: dict[str, str] = Field({}, description="Settings for librdkafka, as they are; no passwords.")
    connector_properties: dict[str, str] = Field({}, description="Settings for the Java clients of Flink's connectors, as they are; no"
                                                                 " passwords.")

    @field_validator("client_properties", "connector_properties")
    @classmethod
    def _free(cls, given: dict[str, str]) -> dict[str, str]:
        return _unreserved(given, _OWN_KAFKA, "kafka.username and kafka.password_file")

    @property
    def cluster(self) -> Cluster:
        """How it is reached, the password with it. Raises ConfigError."""
        if self.security.startswith("SASL") and not self.username:
            raise ConfigError(f"kafka.security is {self.security}: that needs kafka.username and kafka.password_file")
        password = _password("kafka", self.username, self.password_file)
        return Cluster(self.bootstrap, self.security, self.mechanism if self.username else "", self.client_properties,
                       username=self.username, password=password, **_tls("kafka", self))


class Registry(Section):
    """Schema registry; `external` true: an existing Confluent-compatible one at `url`."""

    url: str = "http://127.0.0.1:19081"
    external: bool = False
    username: str = Field("", description="Of HTTP basic authentication.")
    password_file: Path | None = Field(None, description="File with the password alone; or set HEADRACE_REGISTRY_PASSWORD.")
    tls_ca: Path | None = Field(None, description="PEM of the authority that signed its certificate; by default the system's.")
    tls_cert: Path | None = Field(None, description="PEM of our own certificate and its chain, where it asks for one (mutual TLS).")
    tls_key: Path | None = Field(None, description="PEM of its private key.")
    connector_properties: dict[str, str] = Field({}, description="Settings for the registry client of Flink's avro-confluent format, as"
                                                                 " they are; no passwords.")

    @field_validator("connector_properties")
    @classmethod
    def _free(cls, given: dict[str, str]) -> dict[str, str]:
        return _unreserved(given, (), "registry.username and registry.password_file")

    @property
    def access(self) -> Reached:
        """How it is reached, the password with it. Raises ConfigError."""
        password = _password("registry", self.username, self.password_file)
        return Reached(self.url, username=self.username, password=password, **_tls("registry", self))


class Rpc(Section):
    """Calls between our own processes: on loopback nothing is needed; other addresses need a token and TLS, the same on all hosts."""

    token_file: Path | None = Field(None, description="File with the token alone; or set HEADRACE_RPC_TOKEN.")
    tls_ca: Path | None = Field(None, description="PEM of the authority that signed the servers' certificates; with it calls go over TLS.")
    tls_cert: Path | None = Field(None, description="PEM of this host's certificate and its chain.")
    tls_key: Path | None = Field(None, description="PEM of its private key.")

    @property
    def access(self) -> Access:
        """What clients and servers follow, the token with it. Raises ConfigError."""
        token = java.inherited().get(f"{PREFIX}RPC_TOKEN", "")
        if self.token_file is not None:
            try:
                token = self.token_file.read_text(encoding="ascii").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"rpc.token_file {self.token_file} cannot be read: {error}") from None
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError("rpc.tls_cert and rpc.tls_key belong together: set both")
        if self.tls_cert is not None and self.tls_ca is None:
            raise ConfigError("rpc.tls_cert is set: our own clients need rpc.tls_ca, the authority that signed it")
        return Access(token, **_tls("rpc", self))
