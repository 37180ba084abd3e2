"""Calls through rpc/ on loopback; of a bare Flight DoExchange that carries the same keys and values in the same run.

Both sides of both share one process here, so the figures are the shell's cost, not two processes' throughput.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import flight

from headrace.bench.result import Row
from headrace.rpc.client import Client
from headrace.rpc.owner import Owner
from headrace.rpc.server import Server

KEYS, DIM = 256, 9
WARM = 50


class Bare(flight.FlightServerBase):
    """Answers each batch of keys with a batch of values: no names, no checks, no owner."""

    def do_exchange(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        values = {n: pa.record_batch([pa.array(np.zeros(n * DIM, np.float32))], ["values"]) for n in (1, KEYS)}
        writer.begin(values[1].schema)
        while True:
            try:
                writer.write_batch(values[reader.read_chunk().data.num_rows])
            except (StopIteration, flight.FlightError):
                return


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
    values = {n: np.zeros((n, DIM), np.float32) for n in (1, KEYS)}
    owner = Owner("bench")
    owner.start()
    server = Server("127.0.0.1", 0, {"pull": lambda header, arrays: ({"sequence": 1}, {"values": values[len(arrays["keys"])]})}, owner)
    client = Client(server.address)
    try:
        keys = {n: np.arange(n, dtype=np.uint64) for n in (1, KEYS)}
        header = {"model": "fm", "table": "weights"}
        return {n: _times(lambda n=n: client.call("pull", header, {"keys": keys[n]}), calls) for n in (1, KEYS)}
    finally:
        client.close()
        server.shutdown()
        owner.stop()


def _bare(calls: int) -> dict[int, np.ndarray]:
    server = Bare("grpc://127.0.0.1:0")
    client = flight.FlightClient(f"grpc://127.0.0.1:{server.port}")
    writer, reader = client.do_exchange(flight.FlightDescriptor.for_command(b"pull"))
    try:
        keys = {n: pa.record_batch([pa.array(np.arange(n, dtype=np.uint64))], ["keys"]) for n in (1, KEYS)}
        writer.begin(keys[1].schema)

        def call(n: int) -> None:
            writer.write_batch(keys[n])
            reader.read_chunk()

        return {n: _times(lambda n=n: call(n), calls) for n in (1, KEYS)}
    finally:
        writer.close()
        client.close()
        server.shutdown()


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
