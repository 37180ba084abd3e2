"""Client and server over loopback: answers, error codes without tracebacks, restarts, deadlines."""

import threading
import time

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import flight

from headrace.rpc.client import Client
from headrace.rpc.errors import Internal, Refused, Unavailable, UnknownVerb
from headrace.rpc.owner import Owner
from headrace.rpc.server import Server


def refuse(header, arrays):
    raise Refused("too much")


@pytest.fixture
def served():
    owner = Owner()
    owner.start()
    seen = []
    verbs = {"echo": lambda header, arrays: (header, arrays), "refuse": refuse, "fail": lambda header, arrays: 1 / 0,
             "odd": lambda header, arrays: ({}, {"x": np.array([object()])})}
    server = Server("127.0.0.1", 0, verbs, owner)
    client = Client(server.address, timeout_s=5)
    yield server, client, owner, seen
    client.close()
    server.shutdown()
    owner.stop()


def test_header_and_arrays_come_back_read_only(served):
    header, arrays = served[1].call("echo", {"model": "fm"}, {"keys": np.arange(5, dtype=np.uint64)})
    assert header == {"model": "fm"} and arrays["keys"].tolist() == [0, 1, 2, 3, 4]
    assert not arrays["keys"].flags.writeable


def test_errors_have_codes_and_the_stream_goes_on(served):
    client = served[1]
    with pytest.raises(Refused, match="too much"):
        client.call("refuse")
    with pytest.raises(UnknownVerb, match="'nope'; known: echo"):
        client.call("nope")
    with pytest.raises(Internal) as caught:
        client.call("fail")
    assert "ZeroDivision" not in str(caught.value) and "number" not in str(caught.value)
    with pytest.raises(Internal):
        client.call("odd")  # what it answers cannot travel
    assert client.call("echo", {"a": 1})[0] == {"a": 1}


def test_one_thread_has_servers_work_at_the_same_time_and_failures_leave_the_clients_usable():
    """Each of two verbs waits until the other has begun: called one after the other, neither would end."""
    met, clients, owners, servers = threading.Barrier(2), [], [], []

    def meet(header, arrays):
        met.wait(10)
        return header, arrays

    for _ in range(2):
        owner = Owner()
        owner.start()
        owners.append(owner)
        servers.append(Server("127.0.0.1", 0, {"meet": meet, "refuse": refuse}, owner))
        clients.append(Client(servers[-1].address, timeout_s=20))
    finish = [client.begin("meet", {"n": n}) for n, client in enumerate(clients)]
    assert [one()[0] for one in finish] == [{"n": 0}, {"n": 1}]
    broken = [client.begin("refuse") for client in clients]
    for one in broken:
        with pytest.raises(Refused):
            one()
    finish = [client.begin("meet") for client in clients]  # the locks were given back
    assert len([one() for one in finish]) == 2
    servers[0].shutdown()
    owners[0].stop()
    with pytest.raises(Unavailable):
        clients[0].call("meet")
    with pytest.raises(Unavailable):
        clients[0].begin("meet")()
    for client in clients:
        client.close()
    servers[1].shutdown()
    owners[1].stop()


def test_a_foreign_message_is_refused_with_a_code(served):
    raw = flight.FlightClient(f"grpc://{served[0].address}")
    writer, reader = raw.do_exchange(flight.FlightDescriptor.for_command(b"echo"))
    with writer:
        writer.begin(pa.schema([("x", pa.int64())]))
        writer.write_with_metadata(pa.record_batch([pa.array([1])], names=["x"]), b"{}")
        assert b'"bad_message"' in reader.read_chunk().app_metadata.to_pybytes()
    raw.close()


def test_verbs_run_one_at_a_time_and_timed_work_between_them():
    owner, inside, seen = Owner(), [], []

    def alone(header=None, arrays=None):
        inside.append(1)
        time.sleep(0.0005)
        seen.append((len(inside), header is None))
        inside.pop()
        return {}, {}

    owner.every(0.002, alone)
    owner.start()
    server = Server("127.0.0.1", 0, {"one": alone, "other": alone}, owner)

    def work(verb):
        client = Client(server.address)
        for _ in range(40):
            client.call(verb)
        client.close()

    threads = [threading.Thread(target=work, args=(verb,)) for verb in ("one", "other") * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    server.shutdown()
    owner.stop()
    assert {together for together, _ in seen} == {1}
    assert sum(timed for _, timed in seen) >= 5


def test_many_clients_at_once(served):
    failed = []

    def work(seed):
        client = Client(served[0].address)
        for i in range(50):
            sent = np.full(7, seed * 1000 + i, np.int64)
            if client.call("echo", {"i": i}, {"x": sent})[1]["x"].tolist() != sent.tolist():
                failed.append(seed)
        client.close()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_a_server_that_died_and_came_back_is_found_again():
    owner = Owner()
    owner.start()
    verbs = {"echo": lambda header, arrays: (header, arrays)}
    server = Server("127.0.0.1", 0, verbs, owner)
    port = server.port
    client = Client(server.address)
    client.call("echo")
    server.shutdown()
    with pytest.raises(Unavailable, match=f"127.0.0.1:{port}"):
        client.call("echo")
    again = Server("127.0.0.1", port, verbs, owner)
    assert client.call_until(10, "echo", {"back": True})[0] == {"back": True}
    client.close()
    again.shutdown()
    owner.stop()
