"""Calls through rpc/ on loopback; of a bare Flight DoExchange that carries the same keys and values in the same run.

The servers are processes of their own: two threads of one process would measure the interpreter's lock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import flight

from headrace.bench.result import Row
from headrace.bench.rpc_server import DIM, KEYS
from headrace.bench.serving import serving
from headrace.rpc.client import Client

WARM = 50
SERVER = "headrace.bench.rpc_server"


def measure(quick: bool) -> list[Row]:
    """Rows pull.256.p50, pull.256.p99, call.1.p50, in milliseconds."""
    calls = 1000 if quick else 10_000
    bare, shell = _bare(calls), _shell(calls)
    note = f"{calls} calls, one at a time; values of {DIM} float32"
    of = "bare Flight DoExchange"
    return [
        Row("pull.256.p50", _quantile(shell[KEYS], 50), "ms", of, _quantile(bare[KEYS], 50), note),
        Row("pull.256.p99", _quantile(shell[KEYS], 99), "ms", of, _quantile(bare[KEYS], 99), note),
        Row("call.1.p50", _quantile(shell[1], 50), "ms", of, _quantile(bare[1], 50), note),
    ]


def _shell(calls: int) -> dict[int, np.ndarray]:
    keys = {n: np.arange(n, dtype=np.uint64) for n in (1, KEYS)}
    header = {"model": "fm", "table": "weights"}
    with serving(SERVER, "shell") as address:
        client = Client(address)
        try:
            return {n: _times(partial(client.call, "pull", header, {"keys": keys[n]}), calls) for n in (1, KEYS)}
        finally:
            client.close()


def _bare(calls: int) -> dict[int, np.ndarray]:
    keys = {n: pa.record_batch([pa.array(np.arange(n, dtype=np.uint64))], ["keys"]) for n in (1, KEYS)}
    with serving(SERVER, "bare") as address, flight.FlightClient(f"grpc://{address}") as client:
        writer, reader = client.do_exchange(flight.FlightDescriptor.for_command(b"pull"))
        writer.begin(keys[1].schema)

        def call(n: int) -> None:
            writer.write_batch(keys[n])
            reader.read_chunk()

        try:
            return {n: _times(partial(call, n), calls) for n in (1, KEYS)}
        finally:
            writer.close()


def _times(call: Callable[[], Any], calls: int) -> np.ndarray:
    """Seconds of each call after some that warm up."""
    for _ in range(WARM):
        call()
    seconds = np.empty(calls)
    for i in range(calls):
        started = time.perf_counter()
        call()
        seconds[i] = time.perf_counter() - started
    return seconds


def _quantile(seconds: np.ndarray, percent: int) -> float:
    return float(np.percentile(seconds, percent)) * 1000
