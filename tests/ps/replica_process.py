"""A serving replica in a process of its own, with rows that anybody can compute: `python -m tests.ps.replica_process PORT`."""

from __future__ import annotations

import json
import sys

import numpy as np

from headrace.ps.replica import Replica
from headrace.ps.service import replica_verbs
from headrace.rpc.owner import Owner
from headrace.rpc.server import Server
from tests.ps import worlds

KEYS = np.arange(300, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)


def rows():
    return np.arange(3 * len(KEYS), dtype=np.float32).reshape(len(KEYS), 3)


def filled(serving=(0, 1)):
    """A replica that holds `rows`, and lacks nothing."""
    made = Replica([worlds.spec()], 1, 5000, lambda: 1000, serving=serving)
    made.held["fm", "weights"].table.put(KEYS, rows())
    made.gaps.clear()
    return made


if __name__ == "__main__":
    owner = Owner("replica")
    server = Server("127.0.0.1", int(sys.argv[1]), replica_verbs(filled()), owner)
    owner.start()
    print(json.dumps(server.port), flush=True)
    sys.stdin.read()  # the test's end closes it
