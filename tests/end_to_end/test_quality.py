"""Features on a stack of its own: a source dies, its feature is named within a minute and frozen to its default; a person unfreezes it."""

from __future__ import annotations

import json
import threading
import time

import numpy as np
import pytest

from headrace.config import Config
from headrace.models.inputs import mixed
from headrace.schemas.hashing import feature_key
from tests.end_to_end.conftest import running, towards
from tests.end_to_end.outside import Outside, events, until

ITEMS = [f"film-{n}" for n in range(10)]
FEATURES = """
[feature.item_dwell]
entity = "item"
reducer = "mean"
where = { action = "dwell" }
value = "value"
default = 7.0

[feature.user_presses]
entity = "user"
reducer = "count"
where = { action = "click" }
window = "1d"
bounds = { max = 1000000 }
"""
TRANSFORMS = [{"name": "dwell", "bucket": "item_dwell", "edges": [2.0, 5.0]}]


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """(the stack seen from outside, its command line), with jobs and a watch in a hurry."""
    folder, config = tmp_path_factory.mktemp("quality"), Config()
    (folder / "features.toml").write_text(FEATURES)
    config.features.definitions, config.model.transforms = [folder / "features.toml"], TRANSFORMS
    config.watch.enabled, config.watch.share, config.versions.guard = True, 1.0, False
    for name, value in {"interval_s": 1.0, "window_s": 4.0, "samples_min": 50, "stale_s": 5.0}.items():
        setattr(config.quality, name, value)
    for stack in running(folder, config=config):
        command = towards(stack, HEADRACE_FEATURES__DEFINITIONS=json.dumps([str(folder / "features.toml")]),
                          HEADRACE_MODEL__TRANSFORMS=json.dumps(TRANSFORMS))
        submitted = command("jobs", "submit")
        assert submitted.returncode == 0, submitted.stdout + submitted.stderr
        with Outside(stack) as outside:
            yield outside, command


class Crowd:
    """Users who look, click and dwell; `silent`: dwell is no longer sent."""

    def __init__(self, stack):
        self._stack, self._rng, self._ended, self.silent, self.failed = stack, np.random.default_rng(1), threading.Event(), False, []
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self):
        try:
            while not self._ended.wait(0.2):
                user = f"user-{self._rng.integers(20)}"
                sent = events(user, ITEMS, "impression") + events(user, ITEMS[:2], "click")
                sent += [] if self.silent else [event | {"value": 3.0} for event in events(user, ITEMS, "dwell")]
                assert self._stack.post("/events", sent).status_code == 200
        except BaseException as error:
            self.failed.append(error)

    def end(self):
        self._ended.set()
        self._thread.join()
        assert not self.failed


def test_a_dead_source_is_named_frozen_and_unfrozen(watched):
    stack, command = watched

    def seen():
        done = command("features", "stats", "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def page():
        return stack.http.get(f"http://127.0.0.1:{stack.config.watch.http_port}/metrics").text

    def learnt(bucket):
        key = int(mixed(np.uint64(feature_key("dwell", "")), np.array([bucket], np.uint64))[0])
        return int(stack.rows("counts").get(key, np.zeros(1)).reshape(-1)[0])

    crowd = Crowd(stack)
    try:
        until(lambda: 'headrace_feature_value{feature="item_dwell",quantile="0.5"}' in page()
              and 'headrace_feature_age_seconds{feature="item_dwell"}' in page(), page)
        figures = seen()["features"]
        assert figures["item_dwell"]["broken"] == [] == figures["user_presses"]["broken"]
        assert 3.0 <= figures["item_dwell"]["min"] <= figures["item_dwell"]["max"] <= 7.0
        until(lambda: learnt(1) > 100, lambda: f"{learnt(1)} samples of a dwell of 3 s")
        crowd.silent, began_s, defaults = True, time.monotonic(), learnt(2)
        until(lambda: 'headrace_feature_broken{bound="stale",feature="item_dwell"} 1.0' in page(), page, 60)
        assert time.monotonic() - began_s < 60
        until(lambda: 'headrace_feature_frozen{feature="item_dwell"} 1.0' in page(), page, 60)
        found = seen()
        assert set(found["frozen"]) == {"item_dwell"} and found["frozen"]["item_dwell"]["by"] == "watch"
        until(lambda: learnt(2) > defaults + 100, lambda: f"training reads the default, {learnt(2)} times after {defaults}")
        assert [name for name, one in found["features"].items() if one["broken"]] == ["item_dwell"]
        assert "beyond their bounds: item_dwell (stale); frozen to their defaults: item_dwell" in command("status").stdout
        told = [(one["event"], one["feature"]) for one in json.loads(command("features", "events", "--json").stdout)]
        assert told[:2] == [("alarm", "item_dwell"), ("freeze", "item_dwell")]
        crowd.silent = False
        until(lambda: 'headrace_feature_broken{bound="stale",feature="item_dwell"} 0.0' in page(), page, 60)
        assert 'headrace_feature_frozen{feature="item_dwell"} 1.0' in page(), "unfreezing is a person's"
        assert "is read again" in command("features", "unfreeze", "item_dwell", "--why", "dwell is sent again").stdout
        assert seen()["frozen"] == {} and "was not frozen" in command("features", "unfreeze", "item_dwell").stdout
    finally:
        crowd.end()
