"""The real stack for the tests of this folder, started and stopped by the product's own commands, on ports and a folder of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace import ports
from headrace.config import Config, load, show


def with_free_ports(config: Config) -> Config:
    """`config` with every address moved to a port that nobody listens on; all are held until all are found, so that none comes twice."""
    holders: list[socket.socket] = []

    def free() -> int:
        holder = socket.socket()
        holder.bind(("127.0.0.1", 0))
        holders.append(holder)
        return int(holder.getsockname()[1])

    body = config.model_dump()
    for section, key in ports.LISTENED:
        value = body[section][key]
        body[section][key] = [ports.moved(one, free()) for one in value] if isinstance(value, list) else ports.moved(value, free())
    for holder in holders:
        holder.close()
    return Config(**body)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Config]:
    """The configuration of a running stack."""
    folder = tmp_path_factory.mktemp("stack")
    config = with_free_ports(Config())
    config.stack.data_dir = folder / "data"
    file = folder / "headrace.toml"
    file.write_text(show(config))
    yield from _running(config, file)


def _running(config: Config, file: Path) -> Iterator[Config]:
    started = _headrace("up", "--detach", "--config", str(file))
    try:
        assert started.returncode == 0, started.stdout + started.stderr
        yield load(file, environ={})
    finally:
        stopped = _headrace("down", "--config", str(file))
        assert stopped.returncode == 0, stopped.stderr


def _headrace(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "headrace", *arguments], capture_output=True, text=True, check=False)
