"""Two serving replicas of a real stack, and one of features, of which one is killed while the engine is asked: no request fails, and no
score changes."""

from __future__ import annotations

import json
import os
import signal
import threading

import httpx
import numpy as np
import pytest

from headrace.ann.client import AnnClient
from headrace.config import Config
from headrace.features.client import FeatureClient
from headrace.features.events import EventBatch
from headrace.ps.client import ParameterClient
from headrace.rpc.causes import Causes
from headrace.schemas.hashing import feature_key
from headrace.verify import counts
from tests.end_to_end.conftest import running, towards
from tests.end_to_end.outside import until

ITEMS = [f"i{n}" for n in range(40)]
PARTS = ("kafka", "registry", "ps", "features", "ann", "replica", "engine")


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    replica = {"addresses": ["127.0.0.1:19110", "127.0.0.1:19111"], "http_ports": [19160, 19161]}
    features = {"replicas": ["127.0.0.1:19140"], "replica_http_ports": [19180]}
    yield from running(tmp_path_factory.mktemp("replicas"), *PARTS, config=Config(replica=replica, features=features))


@pytest.fixture(scope="module")
def learnt(stack):
    """Weights of the items, and vectors of them and of a user."""
    rng = np.random.default_rng(1)
    keys = np.array(sorted(feature_key("item_id", item) for item in ITEMS), np.uint64)
    grads = rng.normal(size=(len(keys), 1 + stack.model.factors)).astype(np.float32)
    client = ParameterClient(stack.ps.addresses)
    causes = Causes(np.ones(1, np.int32), np.zeros(1, np.int32), np.zeros(1, np.int64))
    client.push(stack.model.name, stack.samples.target, causes, lambda index: {"weights": (keys, grads)})
    client.close()
    vectors = AnnClient(stack.ann.address)
    vectors.upsert("item", ITEMS, rng.normal(size=(len(ITEMS), 1 + stack.model.factors)).astype(np.float32), np.ones(len(ITEMS), np.int64))
    vectors.upsert("user", ["u"], np.ones((1, 1 + stack.model.factors), np.float32), np.ones(1, np.int64))
    vectors.close()
    return stack


def processes(stack):
    done = towards(stack)("status", "--json")
    return {row["name"]: row for row in json.loads(done.stdout)}


def ready(stack):
    return all(row["state"] == "ready" for row in processes(stack).values())


class Asking:
    """/recommend and /score without a pause, what came that is no 200, and every score that an item was given."""

    def __init__(self, url):
        self.url, self.failed, self.scores, self.answers = url, [], set(), 0
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(one,)) for one in (self._recommend, self._score, self._score)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _work(self, ask):
        with httpx.Client(base_url=self.url, timeout=60, trust_env=False) as http:
            while not self._over.is_set():
                answer = ask(http)
                if answer.status_code != 200:
                    self.failed.append(answer.text)
                self.answers += 1

    def _recommend(self, http):
        return http.get("/recommend", params={"user": "u", "n": 10, "preview": 1})

    def _score(self, http):
        answer = http.post("/score", json={"user": "u", "items": ITEMS, "ts_ms": 1_700_000_000_000})
        if answer.status_code == 200:
            self.scores.add(tuple(row["score"] for row in answer.json()["items"]))
        return answer

    def more(self, count=60):
        wanted = self.answers + count
        until(lambda: self.answers >= wanted, f"{count} answers")


def test_every_process_of_the_replicas_is_known(stack):
    assert {"replica-0", "replica-1", "features-replica-0"} <= set(processes(stack)) and "replica" not in processes(stack)
    run = towards(stack)
    assert run("url", "replica").stdout.strip() == ",".join(stack.replica.addresses)
    found = json.loads(run("ps", "stats", "--json").stdout)
    assert {"ps-0", "ps-1", "replica-0", "replica-1"} == set(found["processes"])


def test_a_replica_is_killed_and_no_request_fails(learnt):
    until(lambda: ready(learnt), "every process is ready")
    with httpx.Client(base_url=learnt.engine.url, timeout=60, trust_env=False) as http:
        def score():
            answer = http.post("/score", json={"user": "u", "items": ITEMS, "ts_ms": 1_700_000_000_000}).json()
            return len({row["score"] for row in answer["items"]}) == len(ITEMS)

        until(score, "the replicas serve what was learnt: the items differ")
    model = learnt.model  # and both of them: a slow one is left for the other
    until(lambda: counts.served(model.name, learnt.ps.reachable, learnt.replica.copies, model.weights_dtype)["agree"], "both copies")
    with Asking(learnt.engine.url) as asking:
        asking.more()
        assert len(asking.scores) == 1
        for name in ("replica-0", "features-replica-0", "replica-1", "replica-0"):
            before = processes(learnt)[name]
            os.kill(before["pid"], signal.SIGKILL)
            asking.more()
            until(lambda name=name, before=before: processes(learnt)[name]["pid"] != before["pid"] and ready(learnt), f"{name} is back")
            asking.more()
    assert asking.failed == [] and len(asking.scores) == 1, "from a copy that has not fetched its rows yet other scores would come"


def read_of(stack):
    """Calls for samples that the replica of features has answered."""
    return value(httpx.get(f"http://127.0.0.1:{stack.features.replica_http_ports[0]}/metrics", trust_env=False).text,
                 'headrace_features_call_seconds_count{verb="assemble"}')


def value(page, name):
    return sum(float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith(name))


def folded(stack, events):
    """Events of user v folded by the shard."""
    client = FeatureClient(stack.features.address)
    records = [{"event_id": f"e{n}", "user_id": "v", "item_id": ITEMS[n % 40], "scene": "feed", "action": "impression", "value": 1.0,
                "ts_ms": 1_700_000_000_000 + n, "context": {}, "exposure": None} for n in events]
    client.freeze_and_fold(Causes(np.full(len(records), 9, np.int32), np.zeros(len(records), np.int32), np.array(events, np.int64)),
                           EventBatch(records))
    client.close()


def test_a_replica_of_features_answers_for_a_shard_that_is_away(stack):
    """What was folded is read from the replica, and scores when the shard has just been killed; it follows the one that comes back."""
    until(lambda: ready(stack), "every process is ready")

    def sequence(http):
        answer = http.get("/features", params={"user": "v", "item": "i1", "ts_ms": 1_700_000_100_000})
        assert answer.status_code == 200, answer.text
        return answer.json()["features_sequence"]

    with httpx.Client(base_url=stack.engine.url, timeout=60, trust_env=False) as http:
        before, asked = sequence(http), read_of(stack)
        folded(stack, range(50))
        until(lambda: sequence(http) == before + 50, "the replica has followed")
        assert read_of(stack) > asked
        shard = processes(stack)["features"]
        os.kill(shard["pid"], signal.SIGKILL)
        for _ in range(5):
            scored = http.post("/score", json={"user": "v", "items": ITEMS, "ts_ms": 1_700_000_100_000})
            assert scored.status_code == 200 and len(scored.json()["items"]) == len(ITEMS)
        until(lambda: processes(stack)["features"]["pid"] != shard["pid"] and ready(stack), "the shard is back")
        folded(stack, range(50, 80))
        until(lambda: sequence(http) == before + 80, "the replica follows again")
    told = json.loads(towards(stack)("features", "stats", "--json").stdout)
    assert told["replicas"] == {stack.features.replicas[0]: before + 80} and told["sequence"] == before + 80
    page = httpx.get(f"http://127.0.0.1:{stack.features.replica_http_ports[0]}/metrics", trust_env=False).text
    assert value(page, "headrace_features_sequence") == before + 80
    assert value(page, "headrace_features_replica_silent_seconds") < 10
