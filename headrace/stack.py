"""The local stack: kafka, its topics, the registry, the roles and Flink, under one supervisor and one data folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx

from headrace import kafka, ports, state, warmed
from headrace.children import PARTS, children
from headrace.config import Config, show
from headrace.processes import Process, is_alive, start_time
from headrace.schemas.codec import schema_text
from headrace.schemas.registry import RegistryClient
from headrace.schemas.topics import settings as topic_settings
from headrace.supervisor import Supervisor

READY_S = 120.0

Say = Callable[[str], None]


class ExternalUnavailable(Exception):
    """An external Flink of the configuration does not answer: look at it, or let the stack start its own."""


def up(config: Config, say: Say, parts: tuple[str, ...] = PARTS, stop: threading.Event | None = None) -> None:
    """Start the stack on config.stack.data_dir, keep it alive until SIGINT, SIGTERM or `stop`, then stop it in order.

    Raises AlreadyUp, PortTaken, ChildFailed, KafkaUnavailable, JarsError and the like; nothing runs afterwards.
    """
    stop = stop or threading.Event()
    began = time.monotonic()
    data = config.stack.data_dir.resolve()
    claims = ports.Claims()
    with state.hold(data):
        state.read(data)  # removes what a killed supervisor left
        overlay, sentences = ports.plan(config, claims, parts)
        for sentence in sentences:
            say(sentence)
        config = _settled(config, data, overlay)
        (data / "run").mkdir(exist_ok=True)
        settings = data / "run" / "headrace.toml"
        settings.write_text(show(config))
        board = _Board(data, ports.addresses(config))
        recovery = _Recovery(data)
        supervisor = Supervisor(board.run, data / "logs", config.stack.restarts_max, board.post, say, recovery.came_back)
        before = _catch(stop)
        try:
            board.post([])
            supervisor.guard(state.file_of(data))
            if set(parts) - {"kafka", "registry"}:
                warmed.ensure(say)
            _check_external(config, parts)
            between = {}
            if "kafka" in parts and config.kafka.external:
                topics(config, say)  # with a registry that is external too there is no wave 0 to wait for
            elif "kafka" in parts:
                between = {0: lambda: topics(config, say)}
            supervisor.start(children(config, parts, settings), between, stop, READY_S)
            if not stop.is_set():
                # Said before it is ready: `up --detach` then shows it.
                say(f"up after {time.monotonic() - began:.1f} s, data in {data}")
                board.become("ready")
            supervisor.watch(stop)
        finally:
            board.become("stopping")
            recovery.stop()
            supervisor.stop()
            state.remove(data)
            claims.release()
            for number, handler in before.items():
                signal.signal(number, handler)
    say("down")


def topics(config: Config, say: Say) -> None:
    """Create the topics of the configured models."""
    models: list[str] = [model.name for model in config.trained]
    created = kafka.ensure_topics(config.kafka.cluster, topic_settings(models, config.kafka.partitions))
    say(f"topics: {len(created)} created" if created else "topics: all there")


def down(data_dir: Path, deadline_s: float = 90.0) -> bool:
    """Stop the stack that runs on `data_dir` and wait until it has; False when none runs."""
    found = state.read(data_dir)
    if found is None:
        return False
    pid, started = found["supervisor"]["pid"], found["supervisor"]["started"]
    os.kill(pid, signal.SIGTERM)
    ends = time.monotonic() + deadline_s
    while is_alive(pid, started) and time.monotonic() < ends:
        time.sleep(0.1)
    if is_alive(pid, started):
        os.kill(pid, signal.SIGKILL)  # its children die with it, and its guard ends theirs
    while state.file_of(data_dir).exists() and time.monotonic() < ends + 10:
        time.sleep(0.1)
    return True


class _Recovery:
    """A JobManager that comes back has forgotten its jobs: they are submitted again from a process of their own."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._client: subprocess.Popen[bytes] | None = None

    def came_back(self, name: str) -> None:
        if name == "flink-jobmanager":
            self.stop()
            with (self._data / "logs" / "jobs-recover.log").open("ab") as log:
                self._client = subprocess.Popen([sys.executable, "-m", "headrace", "jobs", "recover", "--insist"], cwd=self._data / "run",
                                                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    def stop(self) -> None:
        if self._client is not None and self._client.poll() is None:
            os.killpg(self._client.pid, signal.SIGTERM)  # with the Java client that it may have begun: it would submit what the next does
            self._client.wait(30)


class _Board:
    """Keeps stack.json in step with the processes."""

    def __init__(self, data: Path, addresses: dict[str, dict[str, Any]]) -> None:
        self.run = uuid.uuid4().hex
        self._data, self._processes = data, list[Process]()
        self._state: dict[str, Any] = {
            "run": self.run, "state": "starting", "config": addresses,
            "supervisor": {"pid": os.getpid(), "started": start_time(os.getpid())}}

    def post(self, processes: list[Process]) -> None:
        self._processes = processes
        rows = {p.child.name: {"pid": p.popen.pid if p.popen else 0, "started": p.started, "state": p.state, "address": p.child.address,
                               "restarts": p.restarts, "log": str(p.log)} for p in processes}
        state.write(self._data, {**self._state, "processes": rows})

    def become(self, word: str) -> None:
        self._state["state"] = word
        self.post(self._processes)


def _settled(config: Config, data: Path, overlay: dict[str, dict[str, Any]]) -> Config:
    """`config` with the addresses that are free and absolute paths: its processes run in other folders."""
    body = config.model_dump()
    for section, values in overlay.items():
        body[section].update(values)
    for values in body.values():
        values |= {key: value.resolve() for key, value in values.items() if isinstance(value, Path)}
    body["stack"]["data_dir"] = data
    return Config(**body)


def _check_external(config: Config, parts: tuple[str, ...]) -> None:
    if "kafka" in parts and config.kafka.external:
        kafka.reach(config.kafka.cluster)
    if "registry" in parts and config.registry.external:
        with closing(RegistryClient(config.registry.access)) as client:
            for topic in topic_settings([model.name for model in config.trained], config.kafka.partitions):
                client.register(f"{topic.name}-value", schema_text(topic.schema))  # for producers who take the newest
    if "flink" in parts and config.flink.external:
        try:
            httpx.get(config.flink.url + "/overview", timeout=5).raise_for_status()
        except httpx.HTTPError as error:
            raise ExternalUnavailable(f"flink.url is {config.flink.url}, which does not answer ({error}): is it up?") from None


def _catch(stop: threading.Event) -> dict[int, Any]:
    """SIGINT, SIGTERM and SIGHUP set `stop`; the handlers before. Only the main thread may."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
