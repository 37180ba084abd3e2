"""Published versions on the session's stack: what one held is served, bit by bit, while live goes on learning, and through a kill."""

import json
import os
import re
import signal

import numpy as np
import pytest

from headrace.engine.upstream import context_keys
from headrace.features.client import FeatureClient
from headrace.features.layout import SIDE, SLOTS
from headrace.models.batch import unique_keys
from headrace.models.catalog import MODELS
from headrace.models.fields import fields_of
from headrace.models.fm import probability
from headrace.ps import versions
from headrace.schemas.hashing import feature_key
from headrace.serve import specs
from tests.end_to_end.outside import events, until
from tests.end_to_end.test_stack import status

ITEMS = [f"film-{n}" for n in range(12)]


@pytest.fixture
def served(loop, on_stack):
    """(the stack seen from outside, its command line), which serves live before and after."""
    assert json.loads(told(on_stack, "list", "--json"))["serving"]["version"] == 0
    yield loop, on_stack
    told(on_stack, "resume")
    if json.loads(told(on_stack, "list", "--json"))["serving"]["version"]:
        told(on_stack, "rollback", "live")


def published(command, *arguments):
    """The number of a new version."""
    said = told(command, "publish", *arguments)
    return int(re.match(r"version (\d+) of fm: ", said)[1])


def told(command, *arguments):
    done = command("models", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def live(stack):
    """The rows of live on the replica are those of the training shards, whatever is served."""
    rows = stack.rows("weights")
    keys = np.fromiter(rows, np.uint64, len(rows))
    held = stack.replica.call("pull", {"model": "fm", "table": "weights", "version": 0}, {"keys": keys})[1]["values"]
    return bool((np.stack(list(rows.values())) == held).all())


def learn(stack, turn, users=20):
    """Everybody sees all items and clicks some; learnt, and folded by the replica."""
    before = stack.applied()
    for user in range(users):
        clicked = [item for n, item in enumerate(ITEMS) if (n * 7 + user + turn) % 3 == 0]
        sent = events(f"user-{user}", ITEMS, "impression") + events(f"user-{user}", clicked, "click")
        assert stack.post("/events", sent).status_code == 200
    stack.learnt(before, users * len(ITEMS))
    until(lambda: live(stack), "the replica to fold what was learnt")


class Oracle:
    """Scores by the files of a version and the features as they are."""

    def __init__(self, config, number):
        self.spec = specs([config.model])[0]
        self.root = config.stack.data_dir / "versions" / "fm"
        self.table = versions.load(self.root, number, self.spec, 1_000_000)[1]["weights"]
        self.model = MODELS["fm"](fields_of(SLOTS, SIDE))
        self.features = FeatureClient(config.features.address)

    def scores(self, user, ts_ms):
        m = len(ITEMS)
        items = np.array([feature_key("item_id", item) for item in ITEMS], np.uint64)
        found = self.features.assemble(np.full(m, feature_key("user_id", user), np.uint64), items, np.tile(context_keys({}), (m, 1)),
                                       np.full(m, ts_ms, np.int64))
        keys, index = unique_keys(found.keys)
        return [float(p) for p in probability(self.model.predict(self.table.pull(keys), index, found.values))]


def scores(stack, user, ts_ms):
    answer = stack.post("/score", {"user": user, "items": ITEMS, "ts_ms": ts_ms}).json()
    return answer["serving_version"], [row["score"] for row in answer["items"]], answer


def test_a_version_serves_bit_by_bit_while_live_learns_and_through_a_kill(served):
    stack, command = served
    learn(stack, 0)
    turn, first = json.loads(told(command, "list", "--json"))["serving"]["turn"], published(command, "--note", "the first")
    oracle, ts_ms = Oracle(stack.config, first), int(1e12)
    number, scored, answer = scores(stack, "user-1", ts_ms)
    assert number == 0 and scored == oracle.scores("user-1", ts_ms)  # nothing was learnt in between
    learn(stack, 1)
    assert scores(stack, "user-1", ts_ms)[1] != oracle.scores("user-1", ts_ms)
    assert told(command, "rollback") == f"version {first} of fm is served (before: live)\n"
    for more in (2, 3):
        number, scored, answer = scores(stack, "user-1", ts_ms)
        assert number == first and scored == oracle.scores("user-1", ts_ms)
        assert answer["weights"]["sequence"] == max(versions.about(oracle.root, first).sequence) == answer["version"]
        learn(stack, more)  # live goes on, and is folded, unseen
    start = stack.offsets("interactions"), stack.offsets("samples")
    shown = stack.get("/recommend", user="somebody", n=3, explain=True).json()
    assert shown["serving_version"] == first and len(shown["items"]) == 3
    exposed = until(lambda: [row.record for row in stack.read("interactions", start[0]) if row.record["request_id"] == shown["request_id"]],
                    "the impressions")
    assert [one["exposure"]["arms"] for one in exposed] == [[f"serving={first}"]] * len(exposed)
    until(lambda: len(found := [one for one in stack.samples(start[1]).values() if one["request_id"] == shown["request_id"]]) == 3
          and all(one["arms"] == [f"serving={first}"] for one in found), "their samples, with what served them")

    assert "pinned" in told(command, "pin", str(first), "--note", "through a kill")
    killed = status(stack.config)["replica"]["pid"]
    os.kill(killed, signal.SIGKILL)
    until(lambda: (row := status(stack.config)["replica"])["state"] == "ready" and row["pid"] != killed, "the replica's next process")
    asked = {"user": "user-2", "items": ITEMS, "ts_ms": ts_ms}
    seen = until(lambda: (one := stack.post("/score", asked)).status_code == 200 and one.json(), "the engine to reach it")
    assert seen["serving_version"] == first and [row["score"] for row in seen["items"]] == oracle.scores("user-2", ts_ms)
    metrics = stack.http.get(f"http://127.0.0.1:{stack.config.replica.http_ports[0]}/metrics").text
    assert f'headrace_serving_version{{model="fm"}} {first}.0' in metrics
    stack.replica.close()  # its streams were those of the process that died
    until(lambda: live(stack), "live folded again, beside the version")

    said = command("status").stdout
    assert f"serving: version {first} of fm, pinned" in said and "through a kill" in said
    until(lambda: "through a kill" in stack.get("/console/summary").text, "the page to say what is served")
    found = json.loads(told(command, "list", "--json"))
    assert found["serving"] | {"at_ms": 0} == {"version": first, "turn": turn + 2, "pinned": True, "by": "person",
                                               "reason": "through a kill", "at_ms": 0}
    assert [one["version"] for one in found["replicas"].values()] == [first]

    assert "the guard decides" in told(command, "resume")
    assert told(command, "rollback", "live") == f"live of fm is served (before: version {first})\n"
    number, scored, answer = scores(stack, "user-1", ts_ms)
    assert number == 0 and scored != oracle.scores("user-1", ts_ms)
    assert scored == Oracle(stack.config, published(command)).scores("user-1", ts_ms)


def test_a_broken_version_changes_nothing_and_is_named(served):
    stack, command = served
    number = published(command)
    found = json.loads(told(command, "list", "--json"))
    assert found["versions"][-1]["version"] == number
    path = stack.config.stack.data_dir / "versions" / "fm" / str(number) / "weights.08-15.values"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 4
    path.write_bytes(raw)
    before = found["serving"]
    refused = command("models", "rollback", str(number))
    assert refused.returncode == 1 and "weights.08-15.values" in refused.stderr and "nothing has changed" in refused.stderr
    assert json.loads(told(command, "list", "--json"))["serving"] == before
    assert command("models", "pin", "99").returncode == 2
