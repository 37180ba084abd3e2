"""Serving shards and their copies: who is asked, who is left, and that no query fails while a copy of each shard answers."""

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from headrace.ps import serving
from headrace.ps.service import replica_verbs
from headrace.ps.serving import ServingClient
from headrace.rpc.errors import Refused, Unavailable
from headrace.rpc.freshness import Newest
from tests.ps.replica_process import KEYS, filled, rows
from tests.ps.worlds import served


@contextlib.contextmanager
def client_of(*addresses, **more):
    client = ServingClient(addresses, **more)
    try:
        yield client
    finally:
        client.close()


@contextlib.contextmanager
def process(port=0):
    """(address, process) of a replica that a signal may reach."""
    command = [sys.executable, "-m", "tests.ps.replica_process", str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        try:
            yield f"127.0.0.1:{json.loads(run.stdout.readline())}", run
        finally:
            run.kill()
            run.stdin.close()


@contextlib.contextmanager
def asked(*verbs, shards=1, **more):
    """(client, servers) of processes that answer these verbs; the first is asked first."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(served(one))[0] for one in verbs]
        client = stack.enter_context(client_of(*(one.address for one in servers), shards=shards, **{"patience_s": 5.0, **more}))
        client._first = [0] * shards
        yield client, servers


def counted(verbs, calls):
    """`verbs` whose pulls are counted under `calls`."""
    calls.setdefault("pull", 0)

    def pull(header, arrays):
        calls["pull"] += 1
        return verbs["pull"](header, arrays)

    return {**verbs, "pull": pull}


def answering(more=None, **header):
    """Verbs of a replica that says `header`; `more` is called before."""
    verbs = replica_verbs(filled())

    def pull(asked, arrays):
        if more is not None:
            more()
        answer, found = verbs["pull"](asked, arrays)
        return {**answer, **header}, found

    return {"pull": pull, "stats": verbs["stats"]}


def right(client, keys=KEYS, deadline_s=2.0):
    found = client.pull("fm", "weights", keys, deadline_s)
    places = {key: at for at, key in enumerate(KEYS.tolist())}
    assert (found.values == rows()[[places[key] for key in keys.tolist()]]).all()
    return found


@pytest.mark.parametrize("shards", [1, 2, 3, 5])
def test_rows_come_from_the_shards_that_hold_them_in_the_order_of_the_keys(shards):
    with asked(*(replica_verbs(filled((i % shards, shards))) for i in range(2 * shards)), shards=shards) as (client, servers):
        rng = np.random.default_rng(shards)
        for _ in range(5):
            right(client, rng.permutation(KEYS)[: rng.integers(1, 300)])
        assert client.pull("fm", "weights", KEYS[:0]).values.shape == (0, 3)
        client.reach()
        with client_of(servers[0].address) as other, (contextlib.nullcontext() if shards == 1 else pytest.raises(Refused, match="slots")):
            other.pull("fm", "weights", KEYS)


def test_an_answer_is_as_old_as_its_oldest_part_and_has_seen_what_one_has():
    low = answering(sequence=7, age_ms=50, newest=[1, 0, 3, 900])
    high = answering(sequence=9, age_ms=20, newest=[1, 1, 2, 950])
    with asked(low, high, shards=2) as (client, _):
        found = right(client)
    assert (found.sequence, found.age_ms, found.newest, found.version) == (7, 50, Newest(1, 1, 2, 950), 0)


def test_parts_of_two_versions_are_asked_for_again_and_never_given_out():
    turns, changing = iter([3, 4, 3]), answering()

    def pull(header, arrays):
        answer, found = changing["pull"](header, arrays)
        return {**answer, "version": next(turns)}, found

    with asked(answering(version=4), {"pull": pull}, shards=2) as (client, _):
        assert right(client).version == 4 and next(turns) == 3
    with asked(answering(version=1), answering(version=2), shards=2) as (client, _), pytest.raises(Unavailable, match="versions 1, 2"):
        client.pull("fm", "weights", KEYS, 0.1)


def test_the_copy_that_answered_last_is_asked_first_and_another_only_when_it_fails(monkeypatch):
    monkeypatch.setattr(serving, "LEFT_S", 0.0)
    calls, again = [{}, {}], {}
    with asked(*(counted(replica_verbs(filled()), one) for one in calls)) as (client, servers):
        for _ in range(10):
            right(client)
        assert [one["pull"] for one in calls] == [10, 0]
        servers[0].shutdown()
        for _ in range(5):
            right(client)
        with served(counted(replica_verbs(filled()), again), servers[0].port):
            for _ in range(5):
                right(client)
        assert [one["pull"] for one in calls] == [10, 10] and again["pull"] == 0


def test_a_copy_that_has_not_fetched_all_rows_is_used_only_when_there_is_no_other():
    lacking, calls = filled(), [{}, {}]
    lacking.gaps.add(("fm", "weights", 0))
    with asked(*(counted(replica_verbs(each), one) for each, one in zip((lacking, filled()), calls, strict=True))) as (client, servers):
        for _ in range(8):
            right(client)
        assert [one["pull"] for one in calls] == [1, 8]
        servers[1].shutdown()
        right(client)
        assert calls[0]["pull"] == 2


def test_what_is_refused_is_not_asked_elsewhere():
    calls = [{}, {}]
    with asked(*(counted(replica_verbs(filled()), one) for one in calls)) as (client, _), pytest.raises(Refused, match="no table"):
        client.pull("fm", "nothing", KEYS, 5.0)
    assert [one["pull"] for one in calls] == [1, 0]


def test_nobody_there_is_said_when_the_deadline_is_over():
    with client_of("127.0.0.1:1", "127.0.0.1:2") as client:
        with pytest.raises(Unavailable):
            client.pull("fm", "weights", KEYS, 0.3)
        with pytest.raises(Unavailable):
            client.reach()


def test_a_slow_copy_is_left_for_another_and_waited_for_when_there_is_none(monkeypatch):
    monkeypatch.setattr(serving, "LEFT_S", 60.0)
    slow, go, answered_late = threading.Event(), threading.Event(), []

    def wait():
        slow.set()
        answered_late.append(not go.wait(20))

    with asked(answering(wait), answering(), timeout_s=60.0, patience_s=0.1) as (client, _):
        right(client)
        assert slow.is_set() and not answered_late
        right(client)
        go.set()
    with asked(answering(lambda: time.sleep(0.6))) as (client, _):
        right(client, deadline_s=0.0)


class Asking:
    """Threads that ask without a pause, and what failed."""

    def __init__(self, client, threads=4):
        self.client, self.failed, self.answers = client, [], 0
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._work) for _ in range(threads)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.end()

    def end(self):
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _work(self):
        while not self._over.is_set():
            try:
                right(self.client, deadline_s=5.0)
                self.answers += 1
            except Exception as error:
                self.failed.append(error)

    def more(self, count=50):
        """Return once so many answers more have come. No time is judged."""
        wanted = self.answers + count
        while self.answers < wanted and not self.failed:
            time.sleep(0.01)


def test_no_query_fails_while_a_copy_is_killed_stopped_and_comes_back(monkeypatch):
    monkeypatch.setattr(serving, "LEFT_S", 0.2)
    calls = {}
    with contextlib.ExitStack() as stack:
        address, run = stack.enter_context(process())
        server, _ = stack.enter_context(served(counted(replica_verbs(filled()), calls)))
        client = stack.enter_context(client_of(address, server.address))
        asking = stack.enter_context(Asking(client))
        client._first = [0]
        asking.more()
        run.send_signal(signal.SIGKILL)
        run.wait()
        asking.more()
        assert calls["pull"] > 0, "the other one answers"
        _, again = stack.enter_context(process(int(address.rpartition(":")[2])))
        server.shutdown()  # the one that came back is the only one now
        asking.more()
        until = calls["pull"]
        asking.more()
        assert calls["pull"] == until
        stack.enter_context(served(replica_verbs(filled()), server.port))
        again.send_signal(signal.SIGSTOP)  # it neither answers nor refuses
        asking.more()
        asking.end()
        assert asking.failed == []
