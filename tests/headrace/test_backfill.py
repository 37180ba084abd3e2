"""Backfills without a stack: parts of a topic's records, a file against real shards, what is asked for wrongly."""

from datetime import datetime, timezone

import numpy as np
import pytest

from headrace import backfill
from headrace.commands.backfill import since_ms_of
from headrace.config import Config, ConfigError
from headrace.features.layout import EMPTY_KEYS, FEATURE_SET, SLOTS, F, K
from headrace.models.choice import Choice
from headrace.ps.backfill import Tally
from headrace.ps.client import ParameterClient
from headrace.ps.service import shard_verbs
from headrace.rows import load
from headrace.sampling import Noise
from headrace.serve import specs
from tests.ps import worlds
from tests.ps.test_backfill import Direct

MAPPING = '[columns]\nuser_id = "user"\nitem_id = "item"\nts = "t"\nlabel = "clicked"\n'
NOW = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)


def record(offset, label=0.0, target="click", feature_set=FEATURE_SET):
    return {"source": 7, "partition": 1, "offset": offset, "target": target, "label": label, "weight": 1.0, "feature_set": feature_set,
            "feature_keys": np.full(F, offset, "<u8").tobytes(), "feature_values": np.ones(F, "<f4").tobytes(),
            "numbers": np.full(K, 0.25, "<f4").tobytes()}


def test_the_first_record_of_a_cause_is_its_sample():
    [(batch, causes, popularity)] = backfill.parts_of([record(3, 1.0), record(5), record(3, 0.0), record(4, target="like")], "click")
    assert causes.offset.tolist() == [3, 5] and batch.label.tolist() == [1.0, 0.0] and popularity.tolist() == [0.25, 0.25]
    assert batch.keys.tolist() == [[3] * F, [5] * F]


def test_a_feature_that_is_frozen_is_learnt_as_its_default():
    [(batch, _, _)] = backfill.parts_of([record(3)], "click", masked=("user_lift",))
    lift = SLOTS.index("user_lift")
    assert batch.keys[0, lift] == EMPTY_KEYS[lift] and batch.values[0].sum() == F - 1


def test_parts_are_bounded(monkeypatch):
    monkeypatch.setattr(backfill, "CHUNK_ROWS", 2)
    assert [len(causes) for _, causes, _ in backfill.parts_of(map(record, range(5)), "click")] == [2, 2, 1]


def test_another_feature_set_is_refused():
    with pytest.raises(backfill.BackfillError, match=r'base@0.*later --since'):
        list(backfill.parts_of([record(1), record(2, feature_set="base@0")], "click"))


def test_a_file_twice_is_learnt_once(tmp_path, monkeypatch):
    from headrace.schemas import mapping as mappings

    (tmp_path / "mapping.toml").write_text(MAPPING)
    lines = [f"u{n % 9},i{n % 7},{1_600_000_000 + (n * 37) % 100},{int(n % 3 == 0)}" for n in range(100)]
    (tmp_path / "log.csv").write_text("\n".join(["user,item,t,clicked", *lines]) + "\n")
    rows, config = load(tmp_path / "log.csv", mappings.load(tmp_path / "mapping.toml")), Config()
    with worlds.store(tmp_path / "ps", specs([config.model])) as store:
        monkeypatch.setattr(backfill, "ParameterClient", lambda addresses: ParameterClient(callers=[Direct(shard_verbs(store))]))
        config.ps.addresses = ["in this process"]
        first, again = (backfill.from_rows(config, config.model, rows) for _ in range(2))
        assert (first.samples, first.shards) == (100, [Tally(missing=100, applied=100)])
        assert again.shards == [Tally(there=100)]
        assert store.shard.rings.count("fm@1", "click") == 100
        assert store.shard.tables["fm", "counts"].sum() == 100 * F


def test_a_backfill_leaves_out_what_training_does(tmp_path, monkeypatch):
    records = [record(n, label=float(n % 3 == 0)) for n in range(90)]
    records[0]["numbers"] = np.zeros(K, "<f4").tobytes()
    [(batch, _, _)] = backfill.parts_of(records, "click", choice=Choice(shown_min=0.25))
    assert batch.weight.tolist() == [0.0] + [1.0] * 89
    from headrace.schemas import mapping as mappings

    (tmp_path / "mapping.toml").write_text(MAPPING)
    lines = [f"u{n % 9},i{n % 7},{1_600_000_000 + 60 * n},{int(n % 3 == 0)}" for n in range(120)]
    (tmp_path / "log.csv").write_text("\n".join(["user,item,t,clicked", *lines]) + "\n")
    rows, config = load(tmp_path / "log.csv", mappings.load(tmp_path / "mapping.toml")), Config()
    config.samples.negatives_kept, config.samples.noise = 1e-9, Noise(inactive_user_events=2)
    with worlds.store(tmp_path / "ps", specs([config.model])) as store:
        monkeypatch.setattr(backfill, "ParameterClient", lambda addresses: ParameterClient(callers=[Direct(shard_verbs(store))]))
        config.ps.addresses = ["in this process"]
        assert backfill.from_rows(config, config.model, rows).shards == [Tally(missing=120, applied=120)], "all are applied"
        learnt = store.shard.tables["fm", "counts"].sum() / F
        # A user's first two rows are left out, and a third: what was shown a minute ago has faded a little.
        assert learnt == sum(n % 3 == 0 for n in range(27, 120))


@pytest.mark.parametrize("text, since", [
    ("30m", "2026-01-31T11:30"), ("1.5d", "2026-01-30T00:00"), ("2026-01-31T12:00+02:00", "2026-01-31T10:00"),
    ("2026-01-31", "2026-01-31T00:00")])
def test_since(text, since):
    assert since_ms_of(text, NOW) == datetime.fromisoformat(since).replace(tzinfo=timezone.utc).timestamp() * 1000


@pytest.mark.parametrize("text", ["", "yesterday", "m", "1e999d", "nand"])
def test_since_that_is_none(text):
    with pytest.raises(ConfigError, match="--since"):
        since_ms_of(text, NOW)
