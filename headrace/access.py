"""How this machine's own commands reach the engine, and what an engine needs before it may be reached by others."""

from __future__ import annotations

import ipaddress
import ssl
from typing import Any
from urllib.parse import urlsplit

from headrace.config import Config, ConfigError, Engine


def loopback(url: str) -> bool:
    """Whether nobody but this machine reaches the host of `url`."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check(engine: Engine) -> None:
    """Raises ConfigError unless the engine may serve at its address: others than loopback need keys and TLS, and files that are there."""
    scheme = urlsplit(engine.url).scheme
    if scheme not in ("http", "https"):
        raise ConfigError(f"engine.url is {engine.url!r}: write http://HOST:PORT, or https:// with engine.tls_cert and engine.tls_key")
    if scheme == "https" and not (engine.tls_cert and engine.tls_key):
        raise ConfigError(f"engine.url is {engine.url}: https needs engine.tls_cert and engine.tls_key, two files of PEM")
    if scheme == "http" and (engine.tls_cert or engine.tls_key):
        raise ConfigError(f"engine.url is {engine.url} and engine.tls_cert is set: write https://")
    if not loopback(engine.url):
        missing = [flag for flag, there in (("https:// in engine.url, engine.tls_cert and engine.tls_key", scheme == "https"),
                                            ("engine.keys_file (headrace keys create)", engine.keys_file is not None)) if not there]
        if missing:
            raise ConfigError(f"engine.url is {engine.url}, which others than this machine can reach: that needs {' and '.join(missing)}")
    for name in ("keys_file", "tls_cert", "tls_key"):
        path = getattr(engine, name)
        if path is not None and not path.is_file():
            raise ConfigError(f"engine.{name} is {path}, and there is no such file")


def check_services(config: Config) -> None:
    """Raises ConfigError for a service of ours that others could reach without a token or in the clear."""
    if config.rpc.access.safe:
        return
    addresses = {"features.address": config.features.address, "ann.address": config.ann.address,
                 **{f"ps.addresses[{i}]": one for i, one in enumerate(config.ps.addresses)},
                 **{f"features.replicas[{i}]": one for i, one in enumerate(config.features.replicas)},
                 **{f"ps.standbys[{i}]": one for i, one in enumerate(config.ps.standbys)},
                 **{f"replica.addresses[{i}]": one for i, one in enumerate(config.replica.addresses)}}
    for name, address in addresses.items():
        if not loopback(f"//{address}"):
            raise ConfigError(f"{name} is {address}, which others than this machine can reach: that needs rpc.token_file, rpc.tls_cert"
                              " and rpc.tls_key")


def key(engine: Engine) -> str | None:
    """What our own commands send. Raises ConfigError."""
    if engine.key_file is None:
        return None
    try:
        return engine.key_file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"engine.key_file {engine.key_file} cannot be read: {error}") from None


def trust(engine: Engine) -> ssl.SSLContext | bool:
    """httpx's `verify` for the engine. Raises ConfigError."""
    if engine.tls_ca is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(engine.tls_ca))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"engine.tls_ca {engine.tls_ca} cannot be used: {error}") from None


def given(engine: Engine) -> dict[str, Any]:
    """Arguments of headrace.Client and of StackClock for the engine that is configured."""
    return {"url": engine.url, "key": key(engine), "verify": trust(engine)}
