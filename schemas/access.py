"""How a Kafka cluster and a schema registry are reached: addresses, TLS, and who asks.

A password is in no repr and in no pickle: what travels to a Flink worker names a file there (`secrets`), which is read when it connects.
That file is a Java properties file, so that Kafka's own FileConfigProvider reads it too (KIP-297).
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

KAFKA_PASSWORD, KAFKA_JAAS, REGISTRY_PASSWORD, RPC_TOKEN = "kafka.password", "kafka.jaas", "registry.password", "rpc.token"


class SecretsMissing(Exception):
    """A file of secrets is not there, or lacks a name: `headrace connect secrets FOLDER` writes it; put it on every Flink host."""


@dataclass(frozen=True)
class _Reached:
    """What Kafka and a registry have in common. `ca`, `cert`, `key`: paths of PEM files; "" for the system's authorities, or none."""

    username: str = field(default="", kw_only=True)
    password: str = field(default="", kw_only=True, repr=False)
    secrets: str = field(default="", kw_only=True)
    ca: str = field(default="", kw_only=True)
    cert: str = field(default="", kw_only=True)
    key: str = field(default="", kw_only=True)

    def __getstate__(self) -> dict[str, Any]:
        assert not self.password, "a password must not travel: send by_file(...)"
        return dict(self.__dict__)

    def _secret(self, name: str) -> str:
        return self.password or (secret(self.secrets, name) if self.secrets else "")


@dataclass(frozen=True)
class Cluster(_Reached):
    """A Kafka cluster. `protocol`, `mechanism`: Kafka's security.protocol and sasl.mechanism; `properties` go to librdkafka unchanged."""

    bootstrap: str
    protocol: str = "PLAINTEXT"
    mechanism: str = ""
    properties: dict[str, str] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        return self.bootstrap

    def by_file(self, secrets: str) -> Cluster:
        """The same for a process that finds the password in the file `secrets`."""
        return replace(self, password="", secrets=secrets if self.username else "")

    def librdkafka(self) -> dict[str, str]:
        """Settings of confluent_kafka's clients. Raises SecretsMissing."""
        found = {"bootstrap.servers": self.bootstrap}
        if self.protocol != "PLAINTEXT":
            found["security.protocol"] = self.protocol
        if self.protocol.startswith("SASL"):
            found |= {"sasl.mechanism": self.mechanism, "sasl.username": self.username, "sasl.password": self._secret(KAFKA_PASSWORD)}
        files = {"ssl.ca.location": self.ca, "ssl.certificate.location": self.cert, "ssl.key.location": self.key}
        return found | {name: path for name, path in files.items() if path} | self.properties


@dataclass(frozen=True)
class Registry(_Reached):
    """A Confluent-compatible schema registry at `url`; with `username` it is asked with HTTP basic authentication."""

    url: str

    def __str__(self) -> str:
        return self.url

    def by_file(self, secrets: str) -> Registry:
        """The same for a process that finds the password in the file `secrets`."""
        return replace(self, password="", secrets=secrets if self.username else "")

    def httpx(self) -> dict[str, Any]:
        """`auth` and `verify` of an httpx client. Raises SecretsMissing, OSError and ssl.SSLError for a file that cannot be used."""
        found: dict[str, Any] = {}
        if self.username:
            found["auth"] = (self.username, self._secret(REGISTRY_PASSWORD))
        if self.ca or self.cert:
            context = ssl.create_default_context(cafile=self.ca or None)
            if self.cert:
                context.load_cert_chain(self.cert, self.key or None)
            found["verify"] = context
        return found


def jaas(mechanism: str, username: str, password: str, package: str = "org.apache.kafka") -> str:
    """The value of sasl.jaas.config for a Java client; `package`: where its Kafka classes are."""
    module = "plain.PlainLoginModule" if mechanism == "PLAIN" else "scram.ScramLoginModule"
    return f"{package}.common.security.{module} required username={_quoted(username)} password={_quoted(password)};"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def properties_text(values: dict[str, str]) -> str:
    """A Java properties file; everything but letters and digits is escaped."""
    return "".join(f"{name}={''.join(_escaped(one) for one in value)}\n" for name, value in values.items())


def _escaped(one: str) -> str:
    if one.isascii() and one.isalnum():
        return one
    data = one.encode("utf-16-be")
    return "".join(f"\\u{data[i]:02x}{data[i + 1]:02x}" for i in range(0, len(data), 2))


def secret(file: str, name: str) -> str:
    """The value of `name` in a file that `properties_text` made. Raises SecretsMissing."""
    try:
        lines = Path(file).read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SecretsMissing(f"{file} cannot be read ({error}): `headrace connect secrets FOLDER` writes it") from None
    for line in lines:
        if line.startswith(f"{name}="):
            return line.split("=", 1)[1].encode("ascii").decode("unicode_escape").encode("utf-16", "surrogatepass").decode("utf-16")
    raise SecretsMissing(f"{file} has no {name}: `headrace connect secrets FOLDER` writes it anew")
