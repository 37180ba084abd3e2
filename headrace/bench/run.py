"""Runs a bench of the catalog and times it."""

from __future__ import annotations

import importlib
import os
import time
from pathlib import Path

from headrace.bench.catalog import CATALOG, Entry
from headrace.bench.result import Result


class UnknownBench(Exception):
    """No bench of that name: `headrace bench --list`."""


class BenchNeeds(Exception):
    """Something that the bench needs is not installed; the message says what to install."""


def run(name: str, quick: bool = False, catalog: dict[str, Entry] = CATALOG, data: Path | None = None) -> Result:
    """Measure bench `name`; `quick` with smaller sizes, within 50 s; `data`: a folder for a bench that takes one.

    Raises UnknownBench, BenchNeeds.
    """
    entry = catalog.get(name)
    if entry is None:
        raise UnknownBench(f"unknown bench {name!r}; known: {', '.join(catalog)}")
    if data is not None and not entry.data:
        raise UnknownBench(f"bench {name} takes no --data; those that do: {', '.join(n for n, e in catalog.items() if e.data)}")
    started = time.monotonic()
    try:
        module = importlib.import_module(f"headrace.bench.{entry.module}")
        rows = module.measure(quick, data) if entry.data else module.measure(quick)
    except ModuleNotFoundError as error:
        raise BenchNeeds(f"bench {name} needs {entry.needs}: {error.name} is missing; pip install '{entry.needs}'") from None
    return Result(name, time.monotonic() - started, rows, len(os.sched_getaffinity(0)), quick)
