"""What runs: the stack's own processes from its state file, and everything else that the configuration names by a question to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx

from headrace import access, status
from headrace.config import Config
from headrace.engine.console.figures import Point, Process, Processes
from headrace.ports import answers, host_of
from headrace.ps.versions import VersionError, chosen
from headrace.versions import told

ANSWERS, SILENT = "answers", "does not answer"


class ProcessesLook:
    """Of the stack of `config`; `kafka` says "" or why the cluster does not answer."""

    def __init__(self, config: Config, kafka: Callable[[], str], timeout_s: float = 1.0) -> None:
        self._config, self._kafka = config, kafka
        self._http = httpx.Client(timeout=timeout_s, trust_env=False)

    def __call__(self) -> tuple[Processes, Point]:
        found = status.rows(self._config.stack.data_dir)
        rows = [Process(one["name"], one["state"], one["address"], one["memory_mb"], one["restarts"]) for one in found or []]
        known = {one.name for one in rows}
        rows += [self._asked(name, address, page) for name, address, page in elsewhere(self._config) if name not in known]
        return Processes(rows, found is not None, self._serving()), {"memory_mb": sum(one.memory_mb or 0 for one in rows)}

    def close(self) -> None:
        self._http.close()

    def _serving(self) -> str:
        """"" while live serves and nobody holds it there."""
        folder, model = self._config.stack.data_dir / "versions", self._config.model.name
        try:
            choice = chosen(folder / model)
        except VersionError:
            return told(folder, model)
        return told(folder, model) if choice.version or choice.pinned else ""

    def _asked(self, name: str, address: str, page: str) -> Process:
        if name == "kafka":
            problem = self._kafka()
            return Process(name, SILENT if problem else ANSWERS, address, note=problem)
        if page:
            try:
                status_code = self._http.get(page).status_code
            except httpx.HTTPError as error:
                return Process(name, SILENT, address, note=f"{page}: {type(error).__name__}")
            said = status_code < 500  # one that asks who we are is there
            return Process(name, ANSWERS if said else SILENT, address, note="" if said else f"{page}: {status_code}")
        return Process(name, ANSWERS if answers(address) else SILENT, address)


def elsewhere(config: Config) -> Iterator[tuple[str, str, str]]:
    """(name, address, page to ask) of everything that a stack of `config` is made of."""
    yield "kafka", config.kafka.bootstrap, ""
    yield "registry", config.registry.url, f"{config.registry.url}/{'subjects' if config.registry.external else 'healthz'}"
    for index, (address, port) in enumerate(zip(config.ps.addresses, config.ps.http_ports, strict=False)):
        yield f"ps-{index}", address, health(address, port)
    for index, (address, port) in enumerate(zip(config.ps.standbys, config.ps.standby_http_ports, strict=False)):
        yield f"ps-{index}-standby", address, health(address, port)
    for name in ("features", "ann"):
        body = getattr(config, name)
        yield name, body.address, health(body.address, body.http_port)
    for index, (address, port) in enumerate(zip(config.features.replicas, config.features.replica_http_ports, strict=False)):
        yield f"features-replica-{index}", address, health(address, port)
    for name, address, port in zip(config.replica.names, config.replica.addresses, config.replica.http_ports, strict=False):
        yield name, address, health(address, port)
    yield "engine", config.engine.url, ""
    yield ("flink" if config.flink.external else "flink-jobmanager"), config.flink.url, f"{config.flink.url}/overview"


def health(address: str, port: int, path: str = "healthz") -> str:
    """The health page beside a Flight address. They listen on loopback: of another host's only the Flight port can be asked."""
    host = host_of(address)
    return f"http://127.0.0.1:{port}/{path}" if access.loopback(f"http://{host}") else ""
