"""A stack with feature definitions and transforms: what is frozen into samples is what a recomputation of the log says, event by event."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import httpx
import numpy as np
import pytest

from headrace.config import Config
from headrace.feature_set import feature_set_of
from headrace.features.client import FeatureClient
from headrace.features.layout import F, K
from headrace.features.reducers import IDS
from headrace.models.inputs import transforms_of
from headrace.schemas.hashing import feature_key
from tests.end_to_end.conftest import running, towards
from tests.end_to_end.outside import Outside, heartbeat, until
from tests.features.set_twin import SetTwin
from tests.naive import bucket_of

LIMIT = 2500
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
half_life = "7d"

[feature.genre_press_rate]
entity = "user x item.genre"
reducer = "ratio"
where = { action = "click" }
over = { action = "impression" }
prior = 0.5
weight = 3.0

[feature.user_genres]
entity = "user"
reducer = "top_n"
where = { action = "click" }
value = "item.genre"
n = 5

[feature.item_people]
entity = "item"
reducer = "distinct"
value = "user"
"""
PYTHON = '''
from headrace.features.definitions import feature


@feature(entity="item", reducer="last_n", n=2)
def item_ages(event):
    """Decades of the last people who pressed it."""
    age = event["context"].get("user.age")
    return f"{age[:1]}0s" if event["action"] == "click" and age else None
'''
TRANSFORMS = [{"name": "presses", "bucket": "user_presses_1d", "edges": [1, 3, 10]},
              {"name": "taste", "scale": "genre_press_rate", "by": "log_odds"},
              {"name": "presses_genre", "cross": ["presses", "user_genres.0"]}]


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("definitions")
    (folder / "features.toml").write_text(FEATURES)
    (folder / "features.py").write_text(PYTHON)
    config = Config()
    config.features.definitions = [folder / "features.toml", folder / "features.py"]
    config.model.transforms = TRANSFORMS
    yield from running(folder, config=config)


@pytest.fixture(scope="module")
def replayed(stack, movielens, tmp_path_factory):
    command = towards(stack, HEADRACE_FEATURES__DEFINITIONS=json.dumps([str(path) for path in stack.features.definitions]),
                      HEADRACE_MODEL__TRANSFORMS=json.dumps(TRANSFORMS))
    submitted = command("jobs", "submit")
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    report = tmp_path_factory.mktemp("report") / "report.json"
    done = command("replay", str(movielens), "--mapping", str(Path(__file__).parents[2] / "examples" / "movielens.toml"), "--speed",
                   "max", "--limit", str(LIMIT), "--report", str(report))
    assert done.returncode == 0, done.stdout + done.stderr
    with Outside(stack) as outside:
        yield json.loads(report.read_text()), outside


def test_frozen_features_are_what_the_log_says_at_every_exposure(stack, replayed):
    report, outside = replayed
    feature_set = feature_set_of(stack)
    order = {}
    for row in outside.read("enriched", dict.fromkeys(outside.offsets("enriched"), 0)):
        if not heartbeat(row):
            order[row.record["partition"], row.record["offset"]] = row.record
    log = {(row.partition, row.offset): row.record
           for row in outside.read("interactions", dict.fromkeys(outside.offsets("interactions"), 0)) if not heartbeat(row)}
    assert len(log) == len(order) == report["interactions_sent"]
    twin, checked = SetTwin(feature_set.definitions), 0
    for cause, enriched in sorted(order.items(), key=lambda pair: pair[1]["features_sequence"]):
        seen = twin.event(log[cause])
        if log[cause]["action"] != "impression":
            continue
        assert enriched["feature_set"] == feature_set.name
        keys, values, numbers = (np.frombuffer(enriched[name], kind) for name, kind in (
            ("feature_keys", "<u8"), ("feature_values", "<f4"), ("numbers", "<f4")))
        slot, number = F, K
        for d, one in enumerate(feature_set.definitions):
            if one.kind.makes == IDS:
                width = int(feature_set.width[d])
                found = [int(key) for key, value in zip(keys[slot : slot + width], values[slot : slot + width], strict=True) if value]
                assert found == [bucket_of(feature_key(one.name, ""), token) for token in seen[one.name]], (one.name, cause)
                slot += width
            else:
                assert numbers[number] == pytest.approx(seen[one.name], rel=0.1 if one.reducer == "distinct" else 1e-4, abs=1e-4), one.name
                number += 1
        checked += 1
    assert checked == LIMIT


def test_the_model_learns_on_the_transforms_and_ranks_by_them(stack, replayed):
    report, outside = replayed
    assert report["samples_applied"] == [LIMIT] * 2 and report["dead_letters"] == 0
    slots = feature_set_of(stack).F + len(transforms_of(TRANSFORMS))
    assert outside.counts() == LIMIT * slots, "every sample has a key for each slot and each transform"
    with httpx.Client(base_url=stack.engine.url, timeout=30) as http:
        user = next(row.record["user_id"] for row in outside.read("interactions", dict.fromkeys(outside.offsets("interactions"), 0))
                    if not heartbeat(row))
        answer = http.get("/recommend", params={"user": user, "n": 3, "explain": True}).json()
        named = {one["slot"] for item in answer["items"] for one in item["explain"]["slots"]}
        assert {"presses", "taste", "presses_genre", "user_genres.0"} <= named
        found = http.get("/features", params={"user": user, "item": answer["items"][0]["item_id"]}).json()
        assert set(found["numbers"]) == set(feature_set_of(stack).numbers)
        logit = np.log(answer["items"][0]["score"] / (1 - answer["items"][0]["score"]))
        told = sum(one["linear"] + one["pairs"] for one in answer["items"][0]["explain"]["slots"])
        assert told == pytest.approx(logit, abs=1e-3)


def test_nothing_that_was_served_or_frozen_differs_from_the_log(stack, replayed):
    _, outside = replayed
    users = {row.record["user_id"] for row in outside.read("interactions", dict.fromkeys(outside.offsets("interactions"), 0))
             if not heartbeat(row)}
    before = sum(outside.offsets("enriched").values())
    with httpx.Client(base_url=stack.engine.url, timeout=30) as http:
        shown = sum(len(http.get("/recommend", params={"user": user, "n": 10, "scene": "feed", "context": "device=phone"}).json()["items"])
                    for user in sorted(users)[:30])
    until(lambda: sum(outside.offsets("enriched").values()) - before >= shown, "what was served has been folded")
    done = towards(stack, HEADRACE_FEATURES__DEFINITIONS=json.dumps([str(path) for path in stack.features.definitions]))(
        "verify", "skew", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["mismatches"] == 0 and told["checked"]["frozen"] == LIMIT and told["checked"]["served"] >= shown > 100


NEW = """
[feature.item_presses_ever]
entity = "item"
reducer = "count"
where = { action = "click" }

[feature.age_genre_presses]
entity = "user.age x item.genre"
reducer = "count"
where = { action = "click" }
"""


def test_a_definition_that_begins_late_is_backfilled_from_the_topics(stack, replayed):
    """The last of this module: the service comes back with two definitions more, which jobs and engine do not have."""
    _, outside = replayed
    command = towards(stack, HEADRACE_FEATURES__DEFINITIONS=json.dumps([str(path) for path in stack.features.definitions]))
    stack.features.definitions[0].write_text(FEATURES + NEW)
    feature_set = feature_set_of(stack)
    [process] = [one for one in json.loads(command("status", "--json").stdout) if one["name"] == "features"]
    os.kill(process["pid"], signal.SIGKILL)
    client = FeatureClient(stack.features.address, feature_set=feature_set)
    try:
        until(lambda: client.stats()["feature_set"] == feature_set.name, "the service has the definitions")
        told = json.loads(command("features", "backfill", "--check", "--json").stdout)
        assert [one["feature"] for one in told["chosen"]] == ["_user_age@1", "item_presses_ever@1", "age_genre_presses@1"]
        assert {(one["missing"], one["since"]) for one in told["chosen"]} == {(0, client.stats()["sequence"])}
        done = command("features", "backfill")
        assert done.returncode == 0 and "3 definitions have the past of interactions" in done.stdout, done.stdout + done.stderr
        assert "nothing is to be backfilled" in command("features", "backfill").stdout
        clicks = [row.record for row in outside.read("interactions", dict.fromkeys(outside.offsets("interactions"), 0))
                  if row.record["action"] == "click"]
        items = sorted({record["item_id"] for record in clicks})
        keys, none = np.array([feature_key("item_id", item) for item in items], np.uint64), np.zeros(len(items), np.uint64)
        read = client.assemble(none, keys, np.zeros((len(items), 4), np.uint64), np.full(len(items), clicks[-1]["ts_ms"] + 1))
        column = feature_set.numbers.index("item_presses_ever")
        assert read.numbers[:, column].tolist() == [sum(record["item_id"] == item for record in clicks) for item in items]
    finally:
        client.close()
