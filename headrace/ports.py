"""Addresses on this machine: is a port free, and if a default one is taken, which is the next."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from headrace.config import Config

# Every address that the local stack listens on, as (section, key); lists are taken entry by entry.
LISTENED = (
    ("kafka", "bootstrap"), ("kafka", "controller_port"), ("registry", "url"), ("features", "address"), ("features", "http_port"),
    ("features", "replicas"), ("features", "replica_http_ports"),
    ("ps", "addresses"), ("ps", "http_ports"), ("ps", "standbys"), ("ps", "standby_http_ports"), ("replica", "addresses"),
    ("replica", "http_ports"), ("ann", "address"), ("ann", "http_port"), ("engine", "url"), ("watch", "http_port"), ("lake", "http_port"),
    ("flink", "url"),
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
    return some_free(1)[0]


def some_free(number: int) -> list[int]:
    """Such ports, no two of them the same: who asks `any_free` for several before anybody listens may get one twice."""
    found: dict[int, None] = {}
    while len(found) < number:
        if is_free(port := random.randrange(*UNCLAIMED)):
            found[port] = None
    return list(found)


class Claims:
    """Ports that a stack has chosen and does not listen on yet, kept from other stacks of this user until `release` or the process's end.

    A service takes seconds to listen, and is away while it restarts: without a claim two stacks that start together choose the same ports,
    and each talks to the other's services. A claim is the lock on a file of the port's number.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or Path(tempfile.gettempdir()) / f"headrace-ports-{os.getuid()}"
        self._held: list[IO[bytes]] = []

    def take(self, port: int) -> bool:
        """Whether `port` is claimed now; False: another stack has it."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        path = self._folder / str(port)
        while True:
            file = path.open("wb")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                return False
            if _still(path, file):
                self._held.append(file)
                return True
            file.close()  # it was released, and its file removed, while this one waited to open it

    def release(self) -> None:
        while self._held:
            file = self._held.pop()
            Path(file.name).unlink(missing_ok=True)
            file.close()


def _still(path: Path, file: IO[bytes]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def addresses(config: Config) -> dict[str, dict[str, Any]]:
    """Every address of `config`, as a configuration overlay: who knows the data folder of a running stack needs nothing else."""
    found: dict[str, dict[str, Any]] = {}
    for section, key in LISTENED:
        found.setdefault(section, {})[key] = getattr(getattr(config, section), key)
    return found


def plan(config: Config, claims: Claims | None = None, parts: Sequence[str] = ()) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """(the addresses that must change, as a configuration overlay; a sentence for each), of `parts` alone: others may run elsewhere.

    A default port that is taken becomes the next free one. One that was configured is not moved: raises PortTaken. With `claims` the ports
    are kept from other stacks; without, nobody is kept from them when this returns.
    """
    if claims is None:
        claims = Claims()
        try:
            return plan(config, claims, parts)
        finally:
            claims.release()
    overlay: dict[str, dict[str, Any]] = {}
    said: list[str] = []
    chosen: dict[tuple[str, str, int], Any] = {}
    wanted = list(_wanted(config, parts))
    for place, address, default in sorted(wanted, key=lambda one: one[2]):  # what may not move first: the others go round it
        chosen[place] = _settle(".".join(place[:2]), address, default, claims, said)
    for section, key in dict.fromkeys(place[:2] for place, _, _ in wanted):
        value = getattr(getattr(config, section), key)
        found = [address for place, address in sorted(chosen.items(), key=lambda one: one[0]) if place[:2] == (section, key)]
        if found != (value if isinstance(value, list) else [value]):
            overlay.setdefault(section, {})[key] = found if isinstance(value, list) else found[0]
    return overlay, said


def _wanted(config: Config, parts: Sequence[str]) -> Iterator[tuple[tuple[str, str, int], Any, bool]]:
    """((section, key, number in its list), address, whether it is a default one) of what `parts` listen on."""
    for section, key in LISTENED:
        body, default = getattr(config, section), getattr(getattr(Config(), section), key)
        if getattr(body, "external", False) or (parts and section not in parts):
            continue
        value = getattr(body, key)
        for number, address in enumerate(value if isinstance(value, list) else [value]):
            yield (section, key, number), address, address in (default if isinstance(default, list) else [default])


def _settle(name: str, address: Any, default: bool, claims: Claims, said: list[str]) -> Any:
    port = port_of(address)
    if not (is_free(port) and claims.take(port)):
        if not default:
            raise PortTaken(f"{name} is {address}, and something else listens there: stop it, or configure another port")
        while not (is_free(port) and claims.take(port)):
            port += 1
        said.append(f"{name}: port {port_of(address)} is taken, so {port}")
    return moved(address, port)
