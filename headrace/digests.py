"""Whether the replicas of the configured stack hold what its training shards serve (ps/digest.py)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from headrace.config import Config
from headrace.ps.digest import compared
from headrace.rpc.client import Client
from headrace.serve import specs

CALL_S = 10.0


def digests(config: Config, wait_s: float) -> list[dict[str, Any]]:
    """Of each served table, by process: rows, digest, differing (how many slots are not as training has them), still (False: it changed
    while it was asked). "training" is all shards together. While some differ it is asked again for `wait_s`: blocks may be on their way.

    Raises RpcError for a process that does not answer.
    """
    found = []
    with _clients(config.ps.addresses) as shards, _clients(config.replica.addresses) as replicas:
        for spec in specs([config.model]):
            for table in (table.name for table in spec.tables if table.served):
                ends = time.monotonic() + wait_s
                trained, held, differ = compared(shards, replicas, spec.model, table, partial(_again, ends))
                rows = zip(["training", *config.replica.names], [trained, *held], [[], *differ], strict=True)
                found += [{"model": spec.model, "table": table, "process": name, "rows": int(one.rows.sum()), "digest": str(one),
                           "differing": len(slots), "still": one.still} for name, one, slots in rows]
    return found


def _again(ends: float) -> bool:
    time.sleep(0.1)
    return time.monotonic() < ends


@contextmanager
def _clients(addresses: list[str]) -> Iterator[list[Client]]:
    with ExitStack() as stack:
        clients = [Client(address, CALL_S) for address in addresses]
        for client in clients:
            stack.callback(client.close)
        yield clients
