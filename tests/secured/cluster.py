"""A real KRaft broker that asks who one is and speaks TLS alone, and a registry that does: what a company has."""

from __future__ import annotations

import base64
import datetime
import secrets as random_secrets
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn
from confluent_kafka.admin import AdminClient, ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion

from headrace import broker, java, kafka
from headrace.config import Config
from headrace.ports import any_free, some_free
from headrace.schemas.registry_service import app
from headrace.schemas.registry_store import SchemaStore
from tests.secured.certificates import Authority, Pem

USER, MECHANISMS = "alice", ("PLAIN", "SCRAM-SHA-512")


class Secured(NamedTuple):
    """`kafka` takes SASL_SSL, `expired` too with a certificate that has run out, `mutual` asks for a client's certificate instead."""

    kafka: str
    expired: str
    mutual: str
    pem: Pem
    password: Path


def password_of() -> str:
    """A secret with the characters that quoting gets wrong."""
    return 'p"\\ä;{$}=' + random_secrets.token_hex(8)


@contextmanager
def secured_broker(folder: Path) -> Iterator[Secured]:
    """The broker, running; ended by its process."""
    authority = Authority(folder)
    good, expired = authority.signed("broker"), authority.signed("expired", datetime.timedelta(days=-1))
    secret = password_of()
    file = folder / "password"
    file.write_text(secret + "\n", encoding="utf-8")
    names = "SECURE", "EXPIRED", "MUTUAL", "CONTROLLER"
    at = {name: f"127.0.0.1:{port}" for name, port in zip(names, some_free(4), strict=True)}
    config = Config()
    config.stack.data_dir = folder
    config.kafka.bootstrap, config.kafka.controller_port = at["SECURE"], int(at["CONTROLLER"].rsplit(":", 1)[1])
    values = broker.properties(config, folder / "kafka" / "data") | _listeners(at, good, expired, secret)
    home = folder / "kafka"
    (home / "data").mkdir(parents=True)
    server = home / "server.properties"
    server.write_text("".join(f"{name}={_escaped(value)}\n" for name, value in values.items()), encoding="ascii")
    (home / "log4j2.properties").write_text(broker.LOG4J)
    start = [str(java.executable()), f"-Dlog4j2.configurationFile={home / 'log4j2.properties'}", "-cp", broker._classpath()]
    formatted = subprocess.run([*start, "kafka.tools.StorageTool", "format", "--cluster-id=headrace-test-secured0", "-c", str(server)],
                               env=java.environment(), capture_output=True, text=True, check=False)
    assert formatted.returncode == 0, formatted.stdout + formatted.stderr
    with (folder / "kafka.log").open("wb") as log:
        process = subprocess.Popen([start[0], "-Xmx512m", *start[1:], "kafka.Kafka", str(server)], env=java.environment(), stdout=log,
                                   stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    made = Secured(at["SECURE"], at["EXPIRED"], at["MUTUAL"], good, file)
    try:
        _await(made, process, folder / "kafka.log")
        yield made
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def settings(made: Secured, mechanism: str = "PLAIN") -> dict[str, Any]:
    """The section [kafka] for it."""
    return {"external": True, "bootstrap": made.kafka, "security": "SASL_SSL", "mechanism": mechanism, "username": USER,
            "password_file": made.password, "tls_ca": made.pem.ca}


def _listeners(at: dict[str, str], good: Pem, expired: Pem, secret: str) -> dict[str, str]:
    plain = f"org.apache.kafka.common.security.plain.PlainLoginModule required username={_quoted(USER)} password={_quoted(secret)}" \
            f" user_{USER}={_quoted(secret)};"
    found = {
        "listeners": ",".join(f"{name}://{where}" for name, where in at.items()),
        "advertised.listeners": ",".join(f"{name}://{where}" for name, where in at.items() if name != "CONTROLLER"),
        "listener.security.protocol.map": "SECURE:SASL_SSL,EXPIRED:SASL_SSL,MUTUAL:SSL,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "SECURE", "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "sasl.enabled.mechanisms": ",".join(MECHANISMS),
        "ssl.keystore.type": "PEM", "ssl.keystore.location": str(good.both),
        "ssl.truststore.type": "PEM", "ssl.truststore.location": str(good.ca),
        "listener.name.expired.ssl.keystore.type": "PEM", "listener.name.expired.ssl.keystore.location": str(expired.both),
        "listener.name.mutual.ssl.client.auth": "required",
    }
    for name in ("secure", "expired"):
        found[f"listener.name.{name}.plain.sasl.jaas.config"] = plain
        found[f"listener.name.{name}.scram-sha-512.sasl.jaas.config"] = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    return found


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _escaped(text: str) -> str:
    return "".join(one if 32 <= ord(one) < 127 and one != "\\" else f"\\u{ord(one):04x}" for one in text)


def _await(made: Secured, process: subprocess.Popen[bytes], log: Path) -> None:
    config, ends = Config(kafka=settings(made)), time.monotonic() + 60
    while True:
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            kafka.reach(config.kafka.cluster, 2.0)
            return _scram(config)
        except kafka.KafkaUnavailable as error:
            assert time.monotonic() < ends, f"{error}\n{log.read_text()[-2000:]}"
            time.sleep(0.2)


def _scram(config: Config) -> None:
    """The same user and password for SCRAM."""
    where = config.kafka.cluster
    change = UserScramCredentialUpsertion(where.username, ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096),
                                          where.password.encode())
    admin = AdminClient(where.librdkafka())  # kept alive until the answer is there
    for done in admin.alter_user_scram_credentials([change]).values():
        done.result(20)


class _Asks:
    """Basic authentication in front of an ASGI application."""

    def __init__(self, inner: Any, user: str, password: str) -> None:
        self._inner = inner
        self._wanted = b"Basic " + base64.b64encode(f"{user}:{password}".encode())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and dict(scope["headers"]).get(b"authorization") != self._wanted:
            await send({"type": "http.response.start", "status": 401, "headers": [(b"content-type", b"application/json")]})
            await send({"type": "http.response.body", "body": b'{"error_code": 401, "message": "Unauthorized"}'})
            return
        await self._inner(scope, receive, send)


@contextmanager
def secured_registry(folder: Path, pem: Pem, user: str, password: str) -> Iterator[str]:
    """Our registry's own code behind TLS and a password; its URL."""
    url = f"https://127.0.0.1:{any_free()}"
    store = SchemaStore(folder / "schemas.jsonl")
    server = uvicorn.Server(uvicorn.Config(_Asks(app(None, store), user, password), host="127.0.0.1", port=int(url.rsplit(":", 1)[1]),
                                           log_level="warning", ssl_certfile=str(pem.cert), ssl_keyfile=str(pem.key)))
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the registry did not start"
            time.sleep(0.01)
        yield url
    finally:
        server.should_exit = True
        thread.join(10)
