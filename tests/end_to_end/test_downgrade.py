"""The guard on a stack of its own: it publishes by itself, and when clicks come turned it serves what was good before."""

import json
import threading

import numpy as np
import pytest

from headrace.config import Config
from tests.end_to_end.conftest import running, towards
from tests.end_to_end.outside import Outside, events, until

ITEMS = [f"film-{n}" for n in range(20)]
USERS = 12


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """(the stack seen from outside, its command line), with jobs and a guard in a hurry."""
    config = Config()
    config.watch.enabled, config.watch.share = True, 1.0
    for name, value in {"every_s": 5.0, "interval_s": 1.0, "window_s": 4.0, "samples_min": 600, "patience": 2, "return_after": 4}.items():
        setattr(config.versions, name, value)
    for stack in running(tmp_path_factory.mktemp("guarded"), config=config):
        command = towards(stack)
        submitted = command("jobs", "submit")
        assert submitted.returncode == 0, submitted.stderr
        with Outside(stack) as outside:
            yield outside, command


class Crowd:
    """Users who go on looking and clicking; `turned`: what is told of each exposure is the opposite."""

    def __init__(self, stack):
        self._stack, self._rng, self._ended, self.turned, self.failed = stack, np.random.default_rng(1), threading.Event(), False, []
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self):
        try:
            while not self._ended.wait(0.05):
                for user in range(USERS):
                    likes = 0.6 if user % 2 else 0.05
                    clicked = [item for n, item in enumerate(ITEMS) if (self._rng.random() < (likes if n % 2 else 0.1)) != self.turned]
                    sent = events(f"user-{user}", ITEMS, "impression") + events(f"user-{user}", clicked, "click")
                    assert self._stack.post("/events", sent).status_code == 200
        except BaseException as error:
            self.failed.append(error)

    def end(self):
        self._ended.set()
        self._thread.join()
        assert not self.failed


def test_turned_clicks_are_seen_and_a_good_version_serves(guarded):
    stack, command = guarded

    def seen():
        return json.loads(command("models", "list", "--json").stdout)

    def happened(kind):
        return [one for one in seen()["events"] if one["event"] == kind]

    with Outside(stack.config) as other:
        crowd = Crowd(other)
        try:
            until(lambda: happened("good"), lambda: f"a version that proved good; {seen()['events']}")
            assert seen()["serving"]["version"] == 0
            crowd.turned = True
            moved = until(lambda: happened("serving"), lambda: f"the step back; {seen()['events']}")[0]
            assert moved["by"] == "guard" and moved["version"] > 0 and moved["figures"]["samples"] >= 600
            answer = stack.post("/score", {"user": "user-1", "items": ITEMS, "ts_ms": int(1e12)}).json()
            assert answer["serving_version"] == moved["version"]
            page = stack.http.get(f"http://127.0.0.1:{stack.config.watch.http_port}/metrics").text
            assert 'headrace_downgrades_total{model="fm"} 1.0' in page
            assert "chosen by guard" in command("status").stdout
        finally:
            crowd.end()
