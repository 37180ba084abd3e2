"""The part of Flink's REST API that headrace asks: which jobs run, why one failed, stop with a savepoint."""

from __future__ import annotations

import re
import time
from typing import Any

import httpx

_COLLECTING, _HEAP = "Status.JVM.GarbageCollector.All.TimeMsPerSecond", "Status.JVM.Memory.Heap.Max"
TERMINAL = {"FINISHED", "FAILED", "CANCELED"}


class FlinkUnavailable(Exception):
    """Nobody answers at the REST address: look at `headrace status` and flink-jobmanager.log."""


class FlinkRefused(Exception):
    """Flink answered, and said no; the message is its own."""


class FlinkRest:
    """A session cluster at `url` (http://host:port)."""

    def __init__(self, url: str, timeout_s: float = 10.0) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.Client(timeout=timeout_s)

    def jobs(self) -> list[dict[str, Any]]:
        """Overview of all jobs that the cluster remembers: jid, name, state, start-time."""
        return self._call("GET", "/jobs/overview")["jobs"]

    def overview(self) -> dict[str, Any]:
        """The cluster's version, TaskManagers and slots."""
        return self._call("GET", "/overview")

    def alive(self, name: str | None = None) -> list[dict[str, Any]]:
        """The jobs that have not ended, of `name` or all, the one that began first first."""
        return sorted((job for job in self.jobs() if job["state"] not in TERMINAL and name in (None, job["name"])),
                      key=lambda job: job["start-time"])

    def running(self) -> dict[str, dict[str, Any]]:
        """The newest job of each name that has not ended."""
        return {job["name"]: job for job in self.alive()}

    def states(self) -> dict[str, str]:
        """The state of each name's newest job: of one that has not ended, where there is one."""
        jobs = sorted(self.jobs(), key=lambda job: (job["state"] not in TERMINAL, job["start-time"]))
        return {job["name"]: job["state"] for job in jobs}

    def collecting(self) -> tuple[float, int]:
        """(share of its time that the TaskManager of most garbage collection spent in it over the last minute, bytes of its heap); (0, 0)
        when there is none, or it has not said."""
        worst = 0.0, 0
        for manager in self._call("GET", "/taskmanagers")["taskmanagers"]:
            try:
                said: Any = self._call("GET", f"/taskmanagers/{manager['id']}/metrics?get={_COLLECTING},{_HEAP}")
            except FlinkRefused:  # it has just gone
                continue
            values = {one["id"]: float(one["value"]) for one in said}
            worst = max(worst, (values.get(_COLLECTING, 0.0) / 1000, int(values.get(_HEAP, 0))))
        return worst

    def ready(self, job: str) -> bool:
        """Every task of the job runs."""
        vertices = self._call("GET", f"/jobs/{job}")["vertices"]
        return bool(vertices) and all(vertex["status"] == "RUNNING" for vertex in vertices)

    def failure(self, job: str) -> tuple[str, str]:
        """(the Python cause or the root Java cause in a line or some, the whole trace) of the newest failure; empty when there was none."""
        entries = self._call("GET", f"/jobs/{job}/exceptions").get("exceptionHistory", {}).get("entries", [])
        trace = entries[0].get("stacktrace", "") if entries else ""
        return python_cause(trace) or root_cause(trace), trace

    def checkpoint(self, job: str) -> str:
        """Path of the newest completed checkpoint, "" when there is none."""
        latest = self._call("GET", f"/jobs/{job}/checkpoints").get("latest", {}).get("completed") or {}
        return latest.get("external_path", "")

    def state(self, job: str) -> tuple[int, int]:
        """(number, bytes of the whole state) of the newest completed checkpoint, (-1, 0) when there is none."""
        latest = self._call("GET", f"/jobs/{job}/checkpoints").get("latest", {}).get("completed") or {}
        return latest.get("id", -1), latest.get("state_size", 0)

    def stop(self, job: str, folder: str, deadline_s: float = 60.0) -> str:
        """Stop with a savepoint in `folder`; its path."""
        trigger = self._call("POST", f"/jobs/{job}/stop", {"targetDirectory": folder, "drain": False})["request-id"]
        until = time.monotonic() + deadline_s
        while time.monotonic() < until:
            answer = self._call("GET", f"/jobs/{job}/savepoints/{trigger}")
            if answer["status"]["id"] == "COMPLETED":
                operation = answer["operation"]
                if "failure-cause" in operation:
                    raise FlinkRefused(root_cause(operation["failure-cause"].get("stack-trace", "")) or "the savepoint failed")
                return operation["location"]
            time.sleep(0.2)
        raise FlinkRefused(f"the savepoint of job {job} was not complete after {deadline_s:.0f} s")

    def cancel(self, job: str) -> None:
        self._call("PATCH", f"/jobs/{job}?mode=cancel")

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            response = self._http.request(method, self.url + path, json=body)
        except httpx.TransportError as error:
            raise FlinkUnavailable(f"Flink's REST API does not answer at {self.url}: {error}; is the stack up? (headrace status)") from None
        if response.status_code >= 400:
            told = "json" in response.headers.get("content-type", "")
            errors = response.json().get("errors", [response.text]) if told else [response.text]
            raise FlinkRefused(f"{method} {path}: {root_cause(str(errors[-1]))}")
        return response.json() if response.content else {}


def python_cause(trace: str) -> str:
    """The last Python traceback in a Java trace, as Python prints it; "" when there is none."""
    start = trace.rfind("Traceback (most recent call last):")
    if start < 0:
        return ""
    kept: list[str] = []
    for line in trace[start:].splitlines():
        if re.match(r"\s*at [\w.$/]+\(", line) or line.lstrip().startswith("Caused by:"):
            break
        kept.append(line)
    return "\n".join(kept).strip()


def root_cause(trace: str) -> str:
    """The innermost "Caused by" line of a Java trace, or its first line."""
    causes = [line.removeprefix("Caused by: ").strip() for line in trace.splitlines() if line.startswith("Caused by: ")]
    return causes[-1] if causes else trace.strip().split("\n")[0]
