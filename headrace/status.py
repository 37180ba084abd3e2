"""What `headrace status` shows of a running stack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
from rich.table import Table

from headrace import state
from headrace.processes import is_alive


def rows(data_dir: Path) -> list[dict[str, Any]] | None:
    """Name, pid, state, memory_mb (with all processes below it), address, restarts and log of each process; None when no stack runs."""
    found = state.read(data_dir)
    if found is None:
        return None
    every = {"supervisor": {**found["supervisor"], "state": found["state"], "address": "", "restarts": 0, "log": ""}, **found["processes"]}
    supervised = {row["pid"] for row in found["processes"].values()}
    return [{
        "name": name, "pid": row["pid"], "state": row["state"] if is_alive(row["pid"], row["started"]) else _dead(row["state"]),
        "memory_mb": round(_memory_mb(row["pid"], supervised)), "address": row["address"], "restarts": row["restarts"], "log": row["log"],
    } for name, row in every.items()]


def table(found: list[dict[str, Any]]) -> Table:
    """The rows for people, with the sum of memory."""
    shown = Table("process", "pid", "state", "memory MB", "address", "restarts", "log", box=None)
    for row in found:
        shown.add_row(row["name"], str(row["pid"]), row["state"], str(row["memory_mb"]), row["address"], str(row["restarts"]), row["log"])
    shown.add_row("all", "", "", str(sum(row["memory_mb"] for row in found)), "", "", "")
    return shown


def _dead(word: str) -> str:
    return word if word in ("restarting", "failed", "stopped") else "dead"


def _memory_mb(pid: int, supervised: set[int]) -> float:
    """Resident memory of `pid` and what it started, without children that have a row of their own."""
    try:
        process = psutil.Process(pid)
        below = [child for child in process.children(recursive=True) if not _belongs(child, supervised - {pid})]
        return sum(one.memory_info().rss for one in [process, *below]) / 1e6
    except psutil.Error:
        return 0.0


def _belongs(child: psutil.Process, others: set[int]) -> bool:
    try:
        return child.pid in others or any(parent.pid in others for parent in child.parents())
    except psutil.Error:
        return False
