"""Two models on one parameter server, and backfills: a stack of its own without what serves, samples put into their topic directly."""

import json
import os
import signal
from functools import partial

import numpy as np
import pytest

from headrace.config import Config, Model
from headrace.features.layout import FEATURE_SET, F, K
from headrace.kafka import Producer
from headrace.serve import Codecs
from tests.end_to_end.conftest import running, towards
from tests.end_to_end.outside import Outside, until
from tests.end_to_end.test_stack import status

MODELS = ("fm", "lr")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """(configuration, command line in the folder of its headrace.toml) of a stack that trains fm and lr."""
    wanted, folder = Config(models={"lr": Model(name="lr", learning_rate=0.1)}), tmp_path_factory.mktemp("two")
    for config in running(folder, "kafka", "registry", "ps", "flink", config=wanted):
        yield config, partial(towards(config), cwd=folder)


@pytest.fixture(scope="module")
def seen(two):
    """An Outside for each model."""
    found = {}
    for model in MODELS:
        found[model] = Outside(two[0])
        found[model].model = model
    yield found
    for outside in found.values():
        outside.__exit__(None, None, None)


def sample(offset):
    rng = np.random.default_rng(offset)
    return {"source": 7, "partition": offset % 3, "offset": offset, "event_id": str(offset), "request_id": None, "scene": "",
            "user_id": f"u{offset % 50}", "item_id": f"i{offset % 90}", "ts_ms": 1_700_000_000_000 + offset, "strategy": "wait",
            "target": "click", "label": float(offset % 4 == 0), "weight": 1.0, "actions": "", "action_ts_ms": None,
            "feature_set": FEATURE_SET, "feature_keys": rng.integers(1, 2000, F).astype("<u8").tobytes(),
            "feature_values": np.ones(F, "<f4").tobytes(), "numbers": np.full(K, 0.25, "<f4").tobytes(), "features_sequence": 0,
            "model": None, "version": None, "score": None, "arms": []}


def send(config, offsets):
    codec, producer = Codecs(config).of("samples"), Producer(config.kafka.bootstrap)
    for offset in offsets:
        producer.send("samples", f"u{offset % 50}", codec.encode(sample(offset)))
    producer.flush()


def counted(outside, samples):
    """Every shard applied each cause once, and the counts by key are those of the samples."""
    until(lambda: min(outside.applied()) >= samples, lambda: f"{samples} samples of {outside.model}; now {outside.applied()}")
    assert outside.applied() == [samples, samples]
    want = np.unique(np.concatenate([np.frombuffer(sample(n)["feature_keys"], "<u8") for n in range(samples)]), return_counts=True)
    got = outside.rows("counts")
    assert {key: int(value[0]) for key, value in got.items()} == dict(zip(want[0].tolist(), want[1].tolist(), strict=True))


def backfilled(command, tmp_path, *arguments):
    file = tmp_path / "report.json"
    done = command("backfill", *arguments, "--json", str(file))
    assert done.returncode == 0, done.stderr
    return json.loads(file.read_text())


def test_both_models_learn_every_cause_once_through_a_kill(two, seen):
    config, command = two
    send(config, range(1000))
    submitted = command("jobs", "submit", "train", "train-lr")
    assert submitted.returncode == 0, submitted.stderr
    assert command("jobs", "submit", "train-xx").returncode != 0
    until(lambda: min(*seen["fm"].applied(), *seen["lr"].applied()) > 0, "the first samples")
    assert set(seen["fm"].jobs()) == {"train", "train-lr"}
    os.kill(status(config)["flink-taskmanager"]["pid"], signal.SIGKILL)
    send(config, [*range(900, 2000), *range(1500, 2000)])
    for model in MODELS:
        counted(seen[model], 2000)
    tables = [shard["models"] for shard in seen["fm"].stats()]
    assert all(one["lr"]["tables"]["weights"]["rows"] == one["fm"]["tables"]["weights"]["rows"] > 0 for one in tables)
    assert seen["fm"].rows("weights")[int(np.frombuffer(sample(0)["feature_keys"], "<u8")[0])].shape == (1 + config.model.factors,)
    assert sum(seen["fm"].offsets("touched.lr").values()) > 0 and sum(seen["fm"].offsets("weights.lr").values()) > 0


def test_a_backfill_learns_what_is_missing_and_the_job_drops_it(two, seen, tmp_path):
    config, command = two
    stopped = command("jobs", "stop", "train-lr")
    assert stopped.returncode == 0, stopped.stderr
    send(config, range(2000, 2300))
    counted(seen["fm"], 2300)
    report = backfilled(command, tmp_path, "train", "--model", "lr")
    assert (report["model"], report["unreadable"], report["read"]) == ("lr", 0, 2900)
    assert [(one["missing"], one["applied"], one["too_old"]) for one in report["shards"]] == [(300, 300, 0)] * 2
    counted(seen["lr"], 2300)
    resumed = command("jobs", "resume", "train-lr")
    assert resumed.returncode == 0, resumed.stderr
    send(config, range(2300, 2350))
    for model in MODELS:
        counted(seen[model], 2350)
    again = backfilled(command, tmp_path, "train", "--since", "1h")
    assert (again["read"], [one["missing"] for one in again["shards"]]) == (2950, [0, 0])
    assert backfilled(command, tmp_path, "train", "--since", "2999-01-01")["read"] == 0


def test_a_file_is_a_source_of_its_own(two, seen, tmp_path):
    _, command = two
    file, mapping = tmp_path / "log.csv", tmp_path / "mapping.toml"
    lines = [f"u{n % 9},i{n % 7},{1_600_000_000 + n},{int(n % 3 == 0)}" for n in range(200)]
    file.write_text("\n".join(["user,item,t,clicked", *lines]) + "\n")
    mapping.write_text('[columns]\nuser_id = "user"\nitem_id = "item"\nts = "t"\nlabel = "clicked"\n')
    before = seen["lr"].applied()
    for missing in (200, 0):
        report = backfilled(command, tmp_path, "file", str(file), "--mapping", str(mapping), "--model", "lr")
        assert [(one["missing"], one["there"]) for one in report["shards"]] == [(missing, 200 - missing)] * 2
    assert seen["lr"].applied() == [start + 200 for start in before]
    wrong = command("backfill", "train", "--model", "xx")
    assert wrong.returncode == 2 and "trained are fm, lr" in wrong.stderr
    wrong = command("backfill", "train", "--since", "yesterday")
    assert wrong.returncode == 2 and "'yesterday'" in wrong.stderr
