"""The roles as the stack starts them: two shards and a replica in this process, weights over a list instead of Kafka."""

import socket
import time
import urllib.error
import urllib.request

import numpy as np

from headrace.config import Config
from headrace.ps.client import ParameterClient
from headrace.roles import ps, replica
from tests.ps import worlds


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return answer.read().decode()


def test_pushes_reach_the_replica(tmp_path):
    a, b, c, *http = free_ports(6)
    config = Config()
    config.stack.data_dir = tmp_path
    config.ps.addresses, config.ps.http_ports = [f"127.0.0.1:{a}", f"127.0.0.1:{b}"], http[:2]
    config.replica.addresses, config.replica.http_ports = [f"127.0.0.1:{c}"], [http[2]]
    config.ps.publish_ms, config.ps.rows_max, config.ps.snapshot_s = 10, 5000, 0.1
    topic = []

    def consume(fold, stop):
        at = 0
        while not stop.is_set():
            batch = topic[at:]
            fold(batch)
            at += len(batch)
            stop.wait(0.01)

    stops = [ps.start(config, i, [worlds.spec()], lambda topic_name, key, record: topic.append(record)) for i in range(2)]
    stops.append(replica.start(config, 0, [worlds.spec()], consume))
    rng = np.random.default_rng(0)
    client, serving = ParameterClient(config.ps.addresses, 5.0), ParameterClient(config.replica.addresses, 5.0)
    try:
        for i in range(20):
            assert client.push("fm", "click", worlds.causes([i]), lambda index: worlds.push_of(rng)).applied == 2
        keys = np.arange(300, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        want, until = client.pull("fm", "weights", keys)[0], time.monotonic() + 10
        while not (serving.pull("fm", "weights", keys)[0] == want).all() and time.monotonic() < until:
            time.sleep(0.02)
        assert (serving.pull("fm", "weights", keys)[0] == want).all()
        while "true" not in (ready := ready_of(http[2])) and time.monotonic() < until:
            time.sleep(0.02)
        assert "true" in ready
        assert "headrace_ps_pushes_total 20.0" in get(http[0], "/metrics")
        assert 'headrace_replica_rows{model="fm",table="weights"}' in get(http[2], "/metrics")
        while not list((tmp_path / "ps" / "0" / "snapshots").glob("[0-9]*")) and time.monotonic() < until:
            time.sleep(0.02)
        assert list((tmp_path / "ps" / "0" / "snapshots").glob("[0-9]*"))
    finally:
        client.close()
        serving.close()
        for stop in reversed(stops):
            stop()


def ready_of(port):
    try:
        return get(port, "/ready")
    except urllib.error.HTTPError as error:
        with error:
            return error.read().decode()
