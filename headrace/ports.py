"""Addresses on this machine: is a port free, and if a default one is taken, which is the next."""

from __future__ import annotations

import random
import socket
from typing import Any
from urllib.parse import urlsplit

from headrace.config import Config

# Every address that the local stack listens on, as (section, key); lists are taken entry by entry.
LISTENED = (
    ("kafka", "bootstrap"), ("kafka", "controller_port"), ("registry", "url"), ("features", "address"), ("features", "http_port"),
    ("ps", "addresses"), ("ps", "http_ports"), ("replica", "address"), ("replica", "http_port"), ("ann", "address"), ("ann", "http_port"),
    ("engine", "url"), ("watch", "http_port"), ("flink", "url"),
)
UNCLAIMED = (20000, 32000)  # Linux gives 32768 and above to clients


class PortTaken(Exception):
    """An address that was configured on purpose is in use: stop what listens there, or configure another."""


def port_of(address: int | str) -> int:
    """The port of a number, "host:port" or a URL."""
    if isinstance(address, int):
        return address
    return urlsplit(address if "//" in address else f"//{address}").port or 80


def host_of(address: int | str) -> str:
    return "127.0.0.1" if isinstance(address, int) else urlsplit(address if "//" in address else f"//{address}").hostname or "127.0.0.1"


def moved(address: Any, port: int) -> Any:
    """`address` with another port, in the form it had."""
    return port if isinstance(address, int) else address.replace(f":{port_of(address)}", f":{port}", 1)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def answers(address: int | str, timeout_s: float = 0.3) -> bool:
    """Somebody accepts connections there."""
    try:
        with socket.create_connection((host_of(address), port_of(address)), timeout_s):
            return True
    except OSError:
        return False


def any_free() -> int:
    """A port that nobody listens on now, and that the system gives to no client: it is free still when who listens there comes back."""
    while not is_free(port := random.randrange(*UNCLAIMED)):
        pass
    return port


def addresses(config: Config) -> dict[str, dict[str, Any]]:
    """Every address of `config`, as a configuration overlay: who knows the data folder of a running stack needs nothing else."""
    found: dict[str, dict[str, Any]] = {}
    for section, key in LISTENED:
        found.setdefault(section, {})[key] = getattr(getattr(config, section), key)
    return found


def plan(config: Config) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """(the addresses that must change, as a configuration overlay; a sentence for each).

    A default port that is taken becomes the next free one. One that was configured is not moved: raises PortTaken.
    """
    overlay: dict[str, dict[str, Any]] = {}
    said: list[str] = []
    used: set[int] = set()
    for section, key in LISTENED:
        body, default = getattr(config, section), getattr(getattr(Config(), section), key)
        if getattr(body, "external", False):
            continue
        value = getattr(body, key)
        many = value if isinstance(value, list) else [value]
        found = [_settle(f"{section}.{key}", address, address in (default if isinstance(default, list) else [default]), used, said)
                 for address in many]
        if found != many:
            overlay.setdefault(section, {})[key] = found if isinstance(value, list) else found[0]
    return overlay, said


def _settle(name: str, address: Any, default: bool, used: set[int], said: list[str]) -> Any:
    port = port_of(address)
    if not is_free(port) or port in used:
        if not default:
            raise PortTaken(f"{name} is {address}, and something else listens there: stop it, or configure another port")
        while not is_free(port) or port in used:
            port += 1
        said.append(f"{name}: port {port_of(address)} is taken, so {port}")
    used.add(port)
    return moved(address, port)
