"""The image's and the compose file's own entry points, run as processes: no Docker daemon is needed, and no container has been run here.

What compose gives its services is kept: commands, environment, order, health checks. All share one loopback there, as they do here.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from headrace import __version__
from headrace.config import Config, tomllib
from headrace.flink_rest import FlinkRest
from headrace.ports import port_of
from tests.end_to_end.conftest import addresses, environment, with_free_ports

TOP = Path(__file__).parents[2]
SERVICES = yaml.safe_load((TOP / "compose.yaml").read_text())["services"]
OURS = [name for name in SERVICES if name != "ports"]
RUN_S = 180


def test_every_service_shares_the_network_of_the_ports_and_waits_by_health():
    for name in OURS:
        service = SERVICES[name]
        assert service["network_mode"] == "service:ports" and service["image"] == f"headrace:{__version__}"
        for other, how in service["depends_on"].items():
            checked = "disable" not in SERVICES[other].get("healthcheck", {"disable": True})
            assert how["condition"] == ("service_healthy" if checked else "service_started"), f"{name} waits for {other}"
    assert {other for name in OURS for other in SERVICES[name]["depends_on"]} >= {"kafka", "registry", "flink", "headrace"}


def test_what_is_published_is_forwarded_to_the_default_ports_and_to_the_host_alone():
    config = Config()
    forwarded = {}
    for line in (TOP / "docker" / "forward").read_text().splitlines():
        if line.startswith("for pair in"):
            forwarded = dict(pair.split(":") for pair in line.removeprefix("for pair in ").split(";")[0].split())
    wanted = {str(port_of(address)) for address in (config.engine.url, config.flink.url, config.kafka.bootstrap, config.registry.url)}
    assert set(forwarded.values()) == wanted
    published = [one.split(":") for one in SERVICES["ports"]["ports"]]
    assert all(host == "127.0.0.1" and forwarded[inside] == outside for host, outside, inside in published)


@pytest.mark.parametrize("file", ["Dockerfile", ".devcontainer/Dockerfile"])
def test_the_linter_has_nothing_to_say(file):
    linter = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if linter is None and not os.environ.get("CI"):
        pytest.skip("hadolint is not installed: make setup")
    assert linter is not None
    done = subprocess.run([linter, str(TOP / file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_image_copies_every_room():
    copied = {line.split()[1] for line in (TOP / "Dockerfile").read_text().splitlines() if line.startswith("COPY ")}
    rooms = set(tomllib.loads((TOP / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"].values())
    assert {room.split("/")[0] for room in rooms} <= copied
    ignored = (TOP / ".dockerignore").read_text().split()
    assert not copied & set(ignored)


class Compose:
    """Starts services in their order, each when what it waits for is healthy."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.moved = addresses(with_free_ports(Config()))
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def environment(self, name: str) -> dict[str, str]:
        given = {key: str(value).replace("/data", str(self.folder)) for key, value in SERVICES[name].get("environment", {}).items()}
        return environment(**{**self.moved, **given})

    def command(self, words: list[str]) -> list[str]:
        assert words[0] == "headrace", words
        return [sys.executable, "-m", "headrace", *words[1:]]

    def start(self, name: str) -> None:
        for other, how in SERVICES[name]["depends_on"].items():
            if how["condition"] == "service_healthy":
                self.await_health(other)
        where = self.folder / name
        where.mkdir(exist_ok=True)
        with (self.folder / f"{name}.log").open("wb") as log:
            self.running[name] = subprocess.Popen(
                self.command(SERVICES[name]["command"]), env=self.environment(name), cwd=where, stdout=log, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL, start_new_session=True)

    def await_health(self, name: str) -> None:
        test, ends = SERVICES[name]["healthcheck"]["test"], time.monotonic() + RUN_S
        assert test[0] == "CMD"
        while True:
            done = subprocess.run(self.command(test[1:]), env=self.environment(name), cwd=self.folder, capture_output=True, text=True,
                                  check=False)
            if done.returncode == 0:
                return
            assert self.running[name].poll() is None, f"{name} ended: {self.log(name)}"
            assert time.monotonic() < ends, f"{name} is not healthy: {done.stdout}{done.stderr}{self.log(name)}"

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()[-2000:]

    def down(self) -> None:
        for process in reversed(self.running.values()):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()


def test_the_services_start_in_their_order_become_healthy_and_the_jobs_run(tmp_path):
    compose = Compose(tmp_path)
    try:
        for name in OURS:
            compose.start(name)
        assert compose.running["jobs"].wait(RUN_S) == 0, compose.log("jobs")
        for name in ("kafka", "registry", "flink", "headrace"):
            compose.await_health(name)
            assert compose.running[name].poll() is None
        url = json.loads((tmp_path / "flink" / "stack.json").read_text())["config"]["flink"]["url"]
        assert set(FlinkRest(url).running()) == {"features", "samples", "train", "vectors"}
    finally:
        compose.down()
