"""Several targets, each with a window of its own, on a stack of its own: every exposure has a sample of each, which are those of a slow
twin, and each model learns the samples of its own target, once each."""

from __future__ import annotations

import json
import random
from contextlib import closing

import pytest

from headrace.access import given
from headrace.clock import StackClock
from headrace.config import Config, Model
from headrace.kafka import Producer
from headrace.replay import Sent, close
from headrace.sampling import Also
from headrace.schemas.codec import Codec
from headrace.schemas.mapped import record
from headrace.schemas.registry import RegistryClient
from tests.end_to_end.conftest import running, towards
from tests.end_to_end.outside import Outside, until
from tests.naive_samples import joined

BEGIN_MS = 1_760_000_000_000
USERS, ITEMS, EVENTS = 40, 12, 2500


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    config = Config(models={"lr": Model(name="lr", target="like")})
    config.samples.also = {"like": Also(action="like", window_ms=20_000), "read": Also(action="dwell", at_least=5.5, window_ms=8000)}
    config.lake.enabled, config.lake.commit_s = True, 0.5
    yield from running(tmp_path_factory.mktemp("targets"), config=config)


@pytest.fixture(scope="module")
def command(stack):
    return towards(stack, HEADRACE_SAMPLES__ALSO=json.dumps({name: one.model_dump() for name, one in stack.samples.also.items()}),
                   HEADRACE_MODELS__LR='{"target": "like"}', HEADRACE_LAKE__ENABLED="true")


def events():
    """Interactions in the order of time: users meet items again, and act within seconds."""
    rng, now, made = random.Random(11), BEGIN_MS, []
    for n in range(EVENTS):
        now += rng.randrange(200)
        action = rng.choice(["impression"] * 4 + ["click", "click", "like", "dwell", "dwell", "hide"])
        one = record(f"targets-{n}", rng.choice([None, f"r{n // 40}"]), f"targets-u{rng.randrange(USERS)}", f"i{rng.randrange(ITEMS)}",
                     action, now, {})
        made.append({**one, "value": float(rng.randrange(12)) if action == "dwell" else 1.0})
    return made


def send(stack, made):
    producer, codec = Producer(stack.kafka.cluster), Codec("interactions", RegistryClient(stack.registry.access))

    def out(key, one):
        producer.send("interactions", key, codec.encode(one))

    with closing(StackClock(**given(stack.engine))) as clock:
        clock.set("log", BEGIN_MS - 86_400_000)
        for one in made:
            out(one["user_id"].encode(), one)
        reached = close(Sent(last_ts_ms=made[-1]["ts_ms"]), out, stack.kafka.partitions, stack.samples.widest_ms,
                        stack.samples.out_of_orderness_ms)
        producer.flush()
        clock.set("log", reached)


def test_each_exposure_has_a_sample_of_each_target_and_each_model_learns_its_own_once(stack, command, tmp_path):
    submitted = command("jobs", "submit")
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    made = events()
    rows, orphans = joined([{**one, "offset": number} for number, one in enumerate(made)], stack.samples.targets)
    shown = len(rows) // 3
    send(stack, made)
    with Outside(stack) as outside:

        def applied():
            return [[header["models"].get(model, {}).get("effects", {}) for model in ("fm", "lr")] for header in outside.stats()]

        until(lambda: applied() == [[{"click": shown}, {"like": shown}]] * 2, applied)
        found = {(int(row.record["event_id"].split("-")[1]), row.record["target"]):
                 (row.record["label"], sorted(filter(None, row.record["actions"].split(","))), row.record["action_ts_ms"])
                 for row in outside.read("samples", {})}
        letters = {(row.record["partition"], row.record["offset"]): row.record["reason"] for row in outside.read("dead-letters", {})}
        places = {(row.partition, row.offset): row.record["event_id"] for row in outside.read("interactions", {})}
    assert found == rows
    assert {places[place] for place in letters} == {f"targets-{number}" for number in orphans} and set(letters.values()) == {"no_exposure"}
    join = command("verify", "join", "--json")
    assert join.returncode == 0, join.stdout + join.stderr
    told = json.loads(join.stdout)
    assert told["mismatches"] == 0 and told["checked"] == 3 * shown and told["sent"] == told["accounted"] == EVENTS
    labels = {target: sum(label for (_, of), (label, *_) in rows.items() if of == target) for target in ("click", "like", "read")}

    def counted():
        stats = command("samples", "stats", "--json")
        return json.loads(stats.stdout)["labels"] if stats.returncode == 0 else {}

    until(lambda: {name: (one["rows"], one["positives"]) for name, one in counted().items()} == {
        name: (shown, count) for name, count in labels.items()}, counted)
    file = tmp_path / "backfill.json"
    again = command("backfill", "train", "--model", "lr", "--json", str(file))
    assert again.returncode == 0, again.stdout + again.stderr
    report = json.loads(file.read_text())
    assert (report["read"], report["samples"]) == (3 * shown, shown), "of the target it learns"
    assert [(shard["there"], shard["missing"]) for shard in report["shards"]] == [(shown, 0)] * 2
