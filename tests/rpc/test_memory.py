"""Calls reuse the memory of the calls before them."""

import resource
import sys

import numpy as np
import pytest

from headrace.rpc.client import Client
from headrace.rpc.owner import Owner
from headrace.rpc.server import Server


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's settings")
def test_a_call_touches_few_fresh_pages():
    owner = Owner()
    owner.start()
    server = Server("127.0.0.1", 0, {"echo": lambda header, arrays: (header, arrays)}, owner)
    client, sent = Client(server.address), np.ones(1 << 18, np.float32)  # 256 pages, copied several times on each side

    def calls(count):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(count):
            client.call("echo", {}, {"x": sent})
        return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / count

    calls(50)
    faults = calls(100)
    client.close()
    server.shutdown()
    owner.stop()
    assert faults < 50
