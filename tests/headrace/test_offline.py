"""The offline run on a small made-up log: it learns what is there, nothing from shuffled labels, and its command writes its figures."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from headrace import rows as rows_of
from headrace.cli import _app
from headrace.config import Flink, Model
from headrace.features.layout import EMPTY_KEYS, SLOTS, F
from headrace.offline import run, samples
from headrace.schemas.mapping import load

BATCH_ROWS = Flink().train_batch_rows
MAPPING = """
[columns]
user_id = "user"
item_id = "item"
ts = "t"
label = "clicked"
[item]
fields = ["genre"]
"""
REPORT = {"samples", "auc", "auc_popularity", "logloss", "logloss_base_rate", "calibration"}


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """6,000 impressions; users and items differ in how much they are clicked."""
    folder, rng, n = tmp_path_factory.mktemp("log"), np.random.default_rng(3), 6_000
    users, items = rng.normal(size=60), rng.normal(size=200)
    user, item = rng.integers(0, 60, n), rng.integers(0, 200, n)
    clicked = rng.random(n) < 1 / (1 + np.exp(0.5 - users[user] - items[item]))
    table = {"user": [f"u{x}" for x in user], "item": [f"i{x}" for x in item], "t": 1_600_000_000 + 10 * np.arange(n),
             "clicked": clicked.astype(int), "genre": [f"g{x % 7}" for x in item]}
    pa.parquet.write_table(pa.table(table), folder / "log.parquet")
    (folder / "mapping.toml").write_text(MAPPING)
    return folder


@pytest.fixture(scope="module")
def rows(log):
    return rows_of.load(log / "log.parquet", load(log / "mapping.toml"))


def test_a_frozen_feature_is_read_as_its_default_and_its_loss_has_a_figure(rows, log):
    (batch, _, _), (plain, _, _) = (next(samples(rows, 1e6, masked=masked)) for masked in (("user_lift",), ()))
    lift = SLOTS.index("user_lift")
    assert (batch.keys[:, lift] == EMPTY_KEYS[lift]).all() and not batch.values[:, lift].any() and plain.values[:, lift].any()
    given = ["offline", str(log / "log.parquet"), "--mapping", str(log / "mapping.toml"), "--frozen", "x"]
    said = CliRunner().invoke(_app("offline"), given)
    assert said.exit_code == 1 and "no feature that can be frozen" in said.output


def test_it_learns_and_is_scored_before_it_learns(rows):
    figures = run(rows, Model(), BATCH_ROWS)
    assert figures.keys() == REPORT and figures["samples"] == len(rows)
    assert figures["auc"] > 0.70 > figures["auc_popularity"] + 0.03
    assert figures["logloss"] < figures["logloss_base_rate"] - 0.05 and 0.95 < figures["calibration"] < 1.05
    assert figures == run(rows, Model(), BATCH_ROWS)


def test_a_linear_model_and_another_seed_learn_too(rows):
    figures = run(rows, Model(), BATCH_ROWS)
    assert run(rows, Model(name="lr"), BATCH_ROWS)["auc"] == pytest.approx(figures["auc"], abs=0.01)
    other = run(rows, Model(), BATCH_ROWS, seed=1)
    assert 0 < abs(other["logloss"] - figures["logloss"]) < 0.005


def test_shuffled_labels_teach_nothing(rows):
    assert run(rows.shuffled(1), Model(), BATCH_ROWS)["auc"] == pytest.approx(0.5, abs=0.02)


def test_pushes_may_have_any_size(rows):
    first = rows.first(2_100)
    assert [run(first, Model(), size)["samples"] for size in (1_000, 2_048, 5_000)] == [2_100] * 3
    done: list[int] = []
    run(first, Model(), 64, moved=done.append)
    assert done == [2_048, 2_048, 2_100]


def test_a_sample_does_not_know_its_own_click(rows):
    """The same row after the same past, with and without its click: what is frozen is the same."""
    first = rows.first(50)
    label = first.label.copy()
    label[-1] = not label[-1]
    one = next(samples(first, 3600.0))
    other = next(samples(dataclasses.replace(first, label=label), 3600.0))
    assert one[0].keys.shape == (50, F)
    np.testing.assert_array_equal(one[0].keys, other[0].keys)
    np.testing.assert_array_equal(one[0].values, other[0].values)
    assert one[1].offset.tolist() == (np.arange(50) + np.concatenate([[0], np.cumsum(label[:-1])])).tolist()


def test_the_command_writes_its_figures(log):
    arguments = [str(log / "log.parquet"), "--mapping", str(log / "mapping.toml"), "--limit", "500", "--json", str(log / "out.json")]
    done = CliRunner().invoke(_app("offline"), ["offline", *arguments])
    assert done.exit_code == 0 and "auc" in done.stdout
    assert json.loads((log / "out.json").read_text()).keys() == REPORT
    wrong = CliRunner().invoke(_app("offline"), ["offline", *arguments, "--model", "fn"])
    assert wrong.exit_code == 1
