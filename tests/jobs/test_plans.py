"""The pinned plans are of the statements that the jobs have now, and hold no address."""

import importlib
import json

import pytest

pytest.importorskip("pyflink")

from headrace.config import Config, Model
from headrace.jobs import launch
from headrace.streaming.tables import Connection

NAMES = ("features", "samples", "train", "vectors")


@pytest.fixture
def job_of(monkeypatch):
    def make(name, config=None):
        module = importlib.import_module(f"headrace.jobs.{name}")
        if name == "features":
            monkeypatch.setattr(module, "source", lambda config, topic: 7)
        return module.job(config or Config())

    return make


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_statement_needs_a_new_pin(job_of, name):
    job = job_of(name)
    pinned = json.loads(job.plan_file.read_text())
    assert pinned["statements"] == job.digest, f"{name} changed: python -m headrace.jobs --pin {name}, and say what becomes of savepoints"


@pytest.mark.parametrize("name", NAMES)
def test_plans_hold_identifiers_not_addresses(name):
    text = (launch.PLANS / f"{name}.json").read_text()
    assert "bootstrap" not in text and "127.0.0.1" not in text and "/" + "work" not in text


def test_another_window_is_another_job(job_of):
    config = Config()
    config.samples.window_ms = 60_000
    assert job_of("samples", config).digest != job_of("samples").digest


def test_eager_remembers_two_windows_and_an_outage(job_of):
    config = Config()
    config.samples.strategy, config.samples.window_ms, config.samples.outage_ms = "eager", 7_000, 30_000
    assert job_of("samples", config).options["table.exec.state.ttl"] == "44000 ms"


@pytest.mark.parametrize("name", NAMES)
def test_addresses_are_no_part_of_a_job(job_of, name):
    config = Config()
    config.kafka.bootstrap, config.registry.url = "127.0.0.1:1", "http://127.0.0.1:2"
    assert job_of(name, config).digest == job_of(name).digest


def test_a_model_beside_the_served_one_has_a_job_of_its_own(job_of):
    config = Config(models={"lr": Model(name="lr")})
    other = importlib.import_module("headrace.jobs.train").job(config, config.models["lr"])
    assert (other.name, other.plan_file.exists()) == ("train-lr", False)
    text = " ".join([*other.tables(Connection("", "")), *other.inserts])
    assert "headrace-train-lr" in text and "touched.lr" in text and "touched.fm" not in text
    assert job_of("train", config).digest == job_of("train").digest
    assert launch.settings("train-lr", config).batch_rows == config.flink.train_batch_rows


def test_further_targets_are_a_plan_of_their_own_and_each_model_learns_its_own(job_of):
    config = Config(samples={"also": {"like": {"action": "like", "window_ms": 60_000}}}, models={"lr": Model(name="lr", target="like")})
    assert job_of("samples", config).digest != job_of("samples").digest
    trains = [importlib.import_module("headrace.jobs.train").job(config, other) for other in (None, config.models["lr"])]
    assert [one.functions["learn"]._func.lesson.effect for one in trains] == ["click", "like"]
    assert all("WHERE `target`" not in one.inserts[0] for one in trains) and "`target` = 'like' THEN" in trains[1].inserts[0]
    assert "WHERE `target` = 'click'" in job_of("train").inserts[0]
