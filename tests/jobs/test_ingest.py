"""The ingest job of a definition, and which jobs `headrace jobs` means."""

import importlib

import pytest

pytest.importorskip("pyflink")

from typer import BadParameter

from headrace import ingests
from headrace.commands.jobs import _chosen
from headrace.config import Config
from headrace.ingests import Definition
from headrace.jobs import __main__ as main
from headrace.jobs import launch
from headrace.streaming.environment import NEVER_MS, options
from headrace.streaming.ingest import BATCH_ROWS
from headrace.streaming.tables import Connection

VALUES = {"columns": {"user_id": "u", "item_id": "i", "ts": "t", "label": "l"}, "source": {"format": "json"}}


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.import_module("headrace.jobs.ingest"), "source", lambda config, topic: 7)
    made = Config()
    made.stack.data_dir = tmp_path
    ingests.save(made, Definition("shop", "shop.ratings", VALUES))
    return made


def test_a_job_is_made_of_its_name_alone(config):
    job = main._job(config, "ingest-shop")
    assert job.name == "ingest-shop" and not job.plan_file.exists()
    text = " ".join([*job.tables(Connection("", "")), *job.inserts])
    assert "'topic' = 'shop.ratings'" in text and "'properties.group.id' = 'headrace-ingest-shop-00000007'" in text
    settings = launch.settings(job.name, config)
    assert (settings.batch_rows, options(settings)["execution.checkpointing.interval"]) == (BATCH_ROWS, f"{NEVER_MS} ms")
    assert launch.settings("features", config).checkpoint_ms == config.flink.checkpoint_ms


def test_jobs_are_meant_by_name_or_all_but_ingests_are_submitted_by_name_only(config):
    ours = ["features", "samples", "train", "vectors"]
    assert _chosen(None, config) == [*ours, "ingest-shop"] and _chosen(None, config, []) == ours
    assert _chosen(["ingest-shop"], config, []) == ["ingest-shop"]
    with pytest.raises(BadParameter, match="ingest-shop"):
        _chosen(["ingest-other"], config)
