"""The other side of bench rpc, a process of its own: `python -m headrace.bench.rpc_server bare|shell` says its port and ends with stdin."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import flight

from headrace.rpc.owner import Owner
from headrace.rpc.server import Server

KEYS, DIM = 256, 9


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


def shell() -> tuple[Server, Owner]:
    """The product's server with one verb."""
    values = {n: np.zeros((n, DIM), np.float32) for n in (1, KEYS)}
    owner = Owner("bench")
    owner.start()
    return Server("127.0.0.1", 0, {"pull": lambda header, arrays: ({"sequence": 1}, {"values": values[len(arrays["keys"])]})}, owner), owner


def main(kind: str) -> None:
    """Serve until standard input ends."""
    server, owner = shell() if kind == "shell" else (Bare("grpc://127.0.0.1:0"), None)
    print(server.port, flush=True)
    sys.stdin.read()
    server.shutdown()
    if owner is not None:
        owner.stop()


if __name__ == "__main__":
    main(sys.argv[1])
