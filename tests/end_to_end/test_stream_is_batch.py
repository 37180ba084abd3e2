"""Stream = batch: three logs sent in disorder, and what a stack of its own makes of them is what a join and a recomputation of the log say.

Logs are sparse in their own time: the samples job waits a minute for what is out of order, and attributes for ten.
"""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from headrace.access import given
from headrace.clock import StackClock
from headrace.config import Config
from headrace.disorder import Disorder, Shares
from headrace.kafka import Producer
from headrace.recompute.live import live_join
from headrace.replay import Sent, close
from headrace.schemas.codec import Codec
from headrace.schemas.mapped import record
from headrace.schemas.registry import RegistryClient
from headrace.verify.victims import find
from tests.end_to_end.conftest import addresses, headrace, running, towards, with_free_ports
from tests.end_to_end.outside import Outside, until

EXAMPLES = Path(__file__).parents[2] / "examples"
SHARE, ROWS, KILLS = 0.05, 1500, 3
DISORDER = [word for name in ("--late", "--duplicate", "--out-of-order") for word in (name, str(SHARE))]
SLACK_MS, WINDOW_MS = 60_000, 600_000
AFTER_MS = 1_770_000_000_000  # behind the three logs
OPEN = ("exposures open", "actions open", "not read yet")
FEATURES = """
[feature.user_presses_1d]
entity = "user"
reducer = "count"
where = { action = "click" }
window = "1d"

[feature.item_press_rate]
entity = "item"
reducer = "ratio"
where = { action = "click" }
over = { action = "impression" }
prior = 0.5
weight = 10.0

[feature.user_last_items]
entity = "user"
reducer = "last_n"
where = { action = "click" }
value = "item"
n = 3
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("batch")
    (folder / "features.toml").write_text(FEATURES)
    config = Config()
    config.features.definitions = [folder / "features.toml"]
    config.samples.out_of_orderness_ms, config.samples.window_ms = SLACK_MS, WINDOW_MS
    yield from running(folder, config=config)


@pytest.fixture(scope="module")
def command(stack):
    return towards(stack, HEADRACE_FEATURES__DEFINITIONS=json.dumps([str(path) for path in stack.features.definitions]),
                   HEADRACE_SAMPLES__OUT_OF_ORDERNESS_MS=str(SLACK_MS), HEADRACE_SAMPLES__WINDOW_MS=str(WINDOW_MS))


def world_events(folder):
    """Keyed interactions of a simulated log in time order: exposures, and actions of all kinds when they were; every third action does not
    say of which request it is, and finds its exposure by time."""
    made = headrace("simulate", "--users", "25", "--items", "100", "--days", "2", "--seed", "4", "--to", str(folder))
    assert made.returncode == 0, made.stderr
    found = [record(f"r{row['request']:08d}:{row['position']}", f"r{row['request']:08d}", row["user_id"], row["item_id"], "impression",
                    row["ts_ms"], {"item.topic": row["topic"]}) for row in pq.read_table(folder / "log.parquet").to_pylist()]
    for at, line in enumerate((folder / "actions.jsonl").read_text().splitlines()):
        row = json.loads(line)
        found.append(record(row["event_id"], row["request_id"] if at % 3 else None, row["user_id"], row["item_id"], row["action"],
                            row["ts_ms"], {}))
    return [(one["user_id"].encode(), one) for one in sorted(found, key=lambda one: one["ts_ms"])]


def exposure(name, ts_ms):
    return b"ann", record(name, name, "ann", f"film-{name}", "impression", ts_ms, {})


def sampled(stack, event_id):
    with Outside(stack) as outside:
        return any(row.record["event_id"] == event_id for row in outside.read("samples", {}))


def send(stack, events, shares=Shares(), closed=True, reached=True):
    """(interactions, disorder) of what was sent; `closed` by heartbeats, `reached` by the engine's clock."""
    producer, codec = Producer(stack.kafka.cluster), Codec("interactions", RegistryClient(stack.registry.access))

    def out(key, one):
        producer.send("interactions", key, codec.encode(one))

    disorder = Disorder(out, shares, SLACK_MS, seed=3)
    for key, one in events:
        disorder(key, one)
    disorder.close()
    if closed:
        last_ms = close(Sent(last_ts_ms=events[-1][1]["ts_ms"]), out, stack.kafka.partitions, WINDOW_MS, SLACK_MS)
    producer.flush()
    if reached:
        with closing(StackClock(**given(stack.engine))) as clock:
            clock.set("log", last_ms)
    return len(events), disorder.done


def test_a_log_in_disorder_is_a_batch_after_kills_of_features_taskmanager_and_worker(kuairand, tmp_path):
    result = tmp_path / "result.json"
    ran = headrace("verify", "loop", "--kills", str(KILLS), "--only", "features,flink-taskmanager,python-worker", "--seed", "5", "--rows",
                   "2000", *DISORDER, "--file", str(kuairand), "--mapping", str(kuairand.parent / "mapping.toml"), "--data",
                   str(tmp_path / "data"), "--json", str(result), cwd=tmp_path, HEADRACE_SAMPLES__OUT_OF_ORDERNESS_MS=str(SLACK_MS),
                   **addresses(with_free_ports(Config())))
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr
    told = json.loads(result.read_text())
    assert sorted(kill["process"] for kill in told["kills"]) == ["features", "flink-taskmanager", "python-worker"]
    assert told["agree"] and told["join"]["mismatches"] == 0 and told["join"]["checked"] > 0.9 * told["rows"]
    assert told["join"]["sent"] == told["interactions"] + told["disorder"]["duplicates"] > 4000 * (1 + SHARE / 2) / 2
    assert told["join"]["accounts"]["retries"] == told["disorder"]["duplicates"] > 50 < told["disorder"]["late"]


def test_samples_and_features_of_three_logs_in_disorder_are_those_of_a_batch(stack, command, movielens, kuairand, tmp_path):
    submitted = command("jobs", "submit", "features", "samples")
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    sent, disorder = 0, []
    for file, mapping in ((movielens, EXAMPLES / "movielens.toml"), (kuairand, kuairand.parent / "mapping.toml")):
        told = tmp_path / f"{file.stem}.json"
        done = command("replay", str(file), "--mapping", str(mapping), "--limit", str(ROWS), *DISORDER, "--no-wait", "--report", str(told))
        assert done.returncode == 0, done.stdout + done.stderr
        figures = json.loads(told.read_text())
        sent, disorder = sent + figures["interactions_sent"], [*disorder, figures["disorder"]]
    events, done = send(stack, world_events(tmp_path / "world"), Shares(SHARE, SHARE, SHARE))
    sent, disorder = sent + events, [*disorder, done]
    twice = sum(one["duplicates"] for one in disorder)
    assert all(one["duplicates"] > 0.03 * ROWS and one["late"] > 20 for one in disorder) and disorder[2]["out_of_order"] > 20

    def closed():
        report = live_join(stack, restarted=False)
        return report.sent == sent + twice and not any(report.accounts[name] for name in OPEN)

    until(closed, lambda: f"all is decided: {live_join(stack, restarted=False).accounts}")
    join = command("verify", "join", "--json")
    assert join.returncode == 0, join.stdout + join.stderr
    told = json.loads(join.stdout)
    accounts = told["accounts"]
    assert told["mismatches"] == 0 and told["sent"] == told["accounted"] == sent + twice and accounts["retries"] == twice
    assert accounts["samples"] == told["checked"] > 2 * ROWS and accounts["exposures late"] + accounts["actions late"] > 0
    assert accounts["actions attributed"] > ROWS and accounts["actions without exposure"] > 0 and accounts["refused"] == 0
    skew = command("verify", "skew", "--json", "--limit", "1000000")
    assert skew.returncode == 0, skew.stdout + skew.stderr
    told = json.loads(skew.stdout)
    assert told["mismatches"] == 0 and told["checked"] == {"frozen": accounts["samples"] + accounts["exposures late"]}
    assert told["events"] == sent


def test_what_comes_late_after_a_restart_is_told_as_late(stack, command):
    """A restored job has no watermark yet, and its windows know which of them have closed: what they would drop must be told before."""
    submitted = command("jobs", "submit", "features", "samples")
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    with closing(StackClock(**given(stack.engine))) as clock:
        clock.set("log", AFTER_MS - 3_600_000)  # the engine's heartbeats are an hour behind all that follows
    send(stack, [exposure("before", AFTER_MS), exposure("on", AFTER_MS + 2 * WINDOW_MS)], reached=False)
    until(lambda: sampled(stack, "before"), "a sample")
    with Outside(stack) as outside:
        job = outside.jobs()["samples"][-1]

        def checkpoints():
            return outside.flink(f"/jobs/{job}/checkpoints")["counts"]["completed"]

        done = checkpoints()
        until(lambda: checkpoints() >= done + 2, "a checkpoint")
        find(stack.stack.data_dir, "flink-taskmanager", min).kill()
        send(stack, [exposure("late", AFTER_MS + 1)], closed=False, reached=False)
        until(lambda: any(row.record["event_id"] == "late" for row in outside.read("enriched", {})), "it is in enriched")
    send(stack, [exposure("after", AFTER_MS + 4 * WINDOW_MS)])
    until(lambda: sampled(stack, "after"), "a sample after it")
    report = live_join(stack, restarted=True)
    assert report.mismatches == 0, report.examples
    assert not sampled(stack, "late") and report.accounts["exposures late"] > 0
