"""Several targets, each with a window of its own, under rules against noise, on a stack of its own: every exposure has a sample of each,
which are those of a slow twin, and each model learns those of its own target, once each, but for what is left out, which is counted."""

from __future__ import annotations

import json
import random
from contextlib import closing

import pytest

from headrace.access import given
from headrace.choice import choice_of, learnt
from headrace.clock import StackClock
from headrace.config import Config, Model
from headrace.features.layout import F
from headrace.kafka import Producer
from headrace.lake.left_out import RULES
from headrace.replay import Sent, close
from headrace.sampling import Also, Noise
from headrace.schemas.codec import Codec
from headrace.schemas.mapped import record
from headrace.schemas.registry import RegistryClient
from headrace.streaming.learn import LEFT_OUT
from tests.end_to_end.conftest import running, towards
from tests.end_to_end.outside import Outside, until
from tests.naive_samples import joined

BEGIN_MS = 1_760_000_000_000
USERS, ITEMS, EVENTS = 12, 5, 2500


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    config = Config(models={"lr": Model(name="lr", target="like")})
    config.samples.also = {"like": Also(action="like", window_ms=20_000), "read": Also(action="dwell", at_least=5.5, window_ms=8000)}
    config.samples.noise = Noise(repeated_exposure_ms=3000, accidental_click_below_s=9.0, inactive_user_events=4)
    config.samples.negatives_kept, config.samples.window_ms = 0.5, 5000
    config.lake.enabled, config.lake.commit_s = True, 0.5
    yield from running(tmp_path_factory.mktemp("targets"), config=config)


@pytest.fixture(scope="module")
def command(stack):
    return towards(stack, HEADRACE_SAMPLES__ALSO=json.dumps({name: one.model_dump() for name, one in stack.samples.also.items()}),
                   HEADRACE_SAMPLES__NOISE=stack.samples.noise.model_dump_json(),
                   HEADRACE_SAMPLES__WINDOW_MS=str(stack.samples.window_ms),
                   HEADRACE_SAMPLES__NEGATIVES_KEPT=str(stack.samples.negatives_kept),
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


def counted_by(outside, job, *names):
    """The sum of a job's own counters of these names; by default of all samples that it does not learn."""
    found, job = 0, outside.jobs()[job][-1]
    for vertex in outside.flink(f"/jobs/{job}")["vertices"]:
        path = f"/jobs/{job}/vertices/{vertex['id']}/subtasks/metrics"
        there = [one["id"] for one in outside.flink(path) if one["id"].endswith(tuple(f".{name}" for name in names or LEFT_OUT))]
        found += sum(int(one["sum"]) for name in there for one in outside.flink(f"{path}?get={name}"))
    return found


@pytest.fixture(scope="module")
def outside(stack):
    with Outside(stack) as outside:
        yield outside


@pytest.fixture(scope="module")
def learned(stack, command, outside):
    """(what the twin makes of the log, samples as they lie in their topic), once both models have applied all of them."""
    submitted = command("jobs", "submit")
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    made = events()
    twin = joined([{**one, "offset": number} for number, one in enumerate(made)], stack.samples.targets, *stack.samples.rules)
    send(stack, made)

    def applied():
        return [[header["models"].get(model, {}).get("effects", {}) for model in ("fm", "lr")] for header in outside.stats()]

    shown = len(twin[0]) // 3
    until(lambda: applied() == [[{"click": shown}, {"like": shown}]] * 2, applied)
    return twin, [row.record for row in outside.read("samples", {})]


def kept_of(stack, samples):
    """target that a model learns -> its samples that are learnt."""
    return {target: learnt(choice_of(stack), [one for one in samples if one["target"] == target]) for target in ("click", "like")}


def test_each_exposure_has_a_sample_of_each_target_and_what_has_none_has_a_dead_letter(learned, outside, command):
    (rows, orphans, again), samples = learned
    assert len(again) > 10 and len(orphans) > 10 and any(label == 0 and at for label, _, at in rows.values()), "each rule has work"
    assert {(int(row["event_id"].split("-")[1]), row["target"]):
            (row["label"], sorted(filter(None, row["actions"].split(","))), row["action_ts_ms"]) for row in samples} == rows
    places = {(row.partition, row.offset): row.record["event_id"] for row in outside.read("interactions", {})}
    letters = {places[row.record["partition"], row.record["offset"]]: row.record["reason"] for row in outside.read("dead-letters", {})}
    assert letters == {f"targets-{number}": reason for reason, ones in (("no_exposure", orphans), ("repeated_exposure", again))
                       for number in ones}
    join = command("verify", "join", "--json")
    assert join.returncode == 0, join.stdout + join.stderr
    told = json.loads(join.stdout)
    assert told["mismatches"] == 0 and told["checked"] == len(rows) and told["sent"] == told["accounted"] == EVENTS
    assert told["accounts"]["exposures repeated"] == len(again)


def test_what_is_left_out_is_applied_and_makes_no_row_and_is_counted(learned, stack, outside):
    (rows, _, _), samples = learned
    shown, kept = len(rows) // 3, kept_of(stack, samples)
    assert outside.counts() == len(kept["click"]) * F < shown * F
    for job, target in (("train", "click"), ("train-lr", "like")):
        until(lambda job=job, target=target: counted_by(outside, job) == shown - len(kept[target]),
              lambda job=job: f"{job} has counted {counted_by(outside, job)}")
        assert counted_by(outside, job, "samples_of_other_targets") == 2 * shown


def test_clicks_that_count_as_none_are_counted_by_who_learns_them_as_negatives(learned, outside):
    (rows, _, _), _ = learned
    accidents = sum(target == "click" and label == 0 and at is not None for (_, target), (label, _, at) in rows.items())
    until(lambda: counted_by(outside, "train", "accidental_clicks") == accidents > 5, lambda: f"{accidents} were sent")
    assert counted_by(outside, "train-lr", "accidental_clicks") == 0


def test_the_lake_tells_the_targets_apart_and_what_is_left_out(learned, stack, command):
    (rows, _, _), samples = learned
    shown, kept = len(rows) // 3, kept_of(stack, samples)
    labels = {target: sum(label for (_, of), (label, *_) in rows.items() if of == target) for target in ("click", "like", "read")}

    def counted():
        stats = command("samples", "stats", "--json")
        return json.loads(stats.stdout) if stats.returncode == 0 else {"labels": {}}

    until(lambda: {name: (one["rows"], one["positives"]) for name, one in counted()["labels"].items()} == {
        name: (shown, count) for name, count in labels.items()}, counted)
    told = counted()["left_out"]
    assert {target: sum(told[target][name] for name in RULES[:2]) for target in kept} == {
        target: shown - len(of) for target, of in kept.items()}
    accidents = [label for (_, of), (label, _, at) in rows.items() if of == "click" and at is not None and label == 0]
    assert told["click"]["accidental_clicks"] == len(accidents) and all(told["click"][name] > 5 for name in RULES), told


def test_a_backfill_of_a_target_finds_all_of_it_there(learned, command, tmp_path):
    (rows, _, _), _ = learned
    file = tmp_path / "backfill.json"
    again = command("backfill", "train", "--model", "lr", "--json", str(file))
    assert again.returncode == 0, again.stdout + again.stderr
    report = json.loads(file.read_text())
    assert (report["read"], report["samples"]) == (len(rows), len(rows) // 3), "of the target that the model learns"
    assert [(shard["there"], shard["missing"]) for shard in report["shards"]] == [(len(rows) // 3, 0)] * 2
