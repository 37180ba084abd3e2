"""The pages over the World, with made-up sources that can be away, hang or be broken."""

import time

from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry

from headrace.engine.app import app
from headrace.engine.console.desk import desk
from headrace.engine.console.figures import Doubt, Flow, Freshness, Hop, Job, Learning, Process, Processes, Sources, Window
from headrace.engine.events import Events
from headrace.engine.ranking import Ranker
from headrace.engine.recommend import Engine
from headrace.engine.upstream import Upstream
from headrace.schemas.hashing import feature_key
from headrace.streaming.model_inputs import inputs_of

ODD = "<script>alert(1)</script>"
NAMES = ("learning", "freshness", "flow", "processes")


def now_ms():
    return time.time_ns() // 1_000_000


class Queue:
    """Items to be labelled; `problem`: what is raised instead."""

    target = "click"

    def __init__(self):
        self.left, self.given, self.problem = ["7", ODD], [], None

    def next(self, labeller):
        if self.problem:
            raise self.problem
        return Doubt(self.left[0], 1200, 34.56, 0.25, 1, len(self.left) - 1) if self.left else None

    def put(self, labeller, item, label):
        if self.problem:
            raise self.problem
        self.given.append((labeller, item, label))
        self.left.remove(item)


class Console:
    """`http` asks as a browser on the page does. `away[name]`: what the source raises; `hangs[name]`: an event that it waits for; `looks`:
    how often each was asked. `learns`: whether a click is learnt, or why that cannot be said; when it is, the order of the
    twelve best is turned round."""

    def __init__(self, world, keys=None):
        self.world, self.away, self.hangs, self.looks = world, {}, {}, dict.fromkeys(NAMES, 0)
        self.learns, self.asked_trail = True, []
        self.yesterday = True
        upstream = Upstream(world.clients["features"], world.clients["replica"], "fm", 0.1)
        engine = Engine(upstream, world.clients["ann"], Ranker(upstream, world.model, inputs_of()), world.clock, world.impressions.extend,
                        candidates=20)
        events = Events(world.clock, world._deliver, 2000)
        self.queue = Queue()
        sources = Sources(self._learning, self._freshness, self._flow, self._processes, self._trail, self.queue)
        self.desk = desk(engine, events, sources)
        self.app = app(engine, events, CollectorRegistry(), keys=keys, desk=self.desk)
        self.http = TestClient(self.app, base_url="http://127.0.0.1:1234", raise_server_exceptions=False)

    def close(self):
        self.desk.sampler.stop()

    def part(self, path, wanted="", **params):
        """The text of a part once it has `wanted` in it."""
        ends = time.monotonic() + 10
        while True:
            answer = self.http.get(f"/console/{path}", params=params)
            assert answer.status_code == 200, answer.text
            if wanted in answer.text:
                return answer.text
            assert time.monotonic() < ends, f"{wanted!r} is not in {answer.text}"
            time.sleep(0.02)

    def _look(self, name):
        self.looks[name] += 1
        if name in self.hangs:
            self.hangs[name].wait(60)
        if name in self.away:
            raise self.away[name]

    def _learning(self):
        self._look("learning")
        windows = [Window(now_ms() - 9000 + 1000 * n, 1000 + n, 0.6 + n / 100, 0.6, 0.55, 0.65) for n in range(5)]
        return Learning("fm", windows, windows if self.yesterday else [], "" if self.yesterday else "The log is young.", windows[-1], 4321,
                        432), {"learnt": 4321.0 + self.looks["learning"], "auc": 0.64, "logloss": 0.6, "popularity_auc": 0.55,
                               "popularity_logloss": None}

    def _freshness(self):
        self._look("freshness")
        return Freshness([Hop("gradient", "Gradient applied", 300, 50, 200, 9), Hop("vector", "Vector", 500, 300, 900, 9),
                          Hop("recommendation", "Recommendation", 500)], "What goals allow for."), {"gradient_p99": 200.0}

    def _flow(self):
        self._look("flow")
        jobs = [Job("features", "RUNNING", "interactions", "enriched", 5000, 4990, 10),
                Job("vectors", "FAILING", "touches", "vectors", 70, 60, None, 84)]
        return Flow(jobs, ["u1", ODD], []), {"features_written": 100.0 * self.looks["flow"], "features_read": None}

    def _processes(self):
        self._look("processes")
        return Processes([Process("ps-0", "ready", "127.0.0.1:1", 251, 3), Process(ODD, "answers", note=ODD)], True), {}

    def _trail(self, user, event_id, since_ms):
        self.asked_trail.append((user, event_id, since_ms))

        def learnt():
            if isinstance(self.learns, Exception):
                raise self.learns
            if self.learns:
                self._reverse()
            return self.learns

        return learnt

    def _reverse(self):
        self.world.sequence += 1
        keys = [feature_key("item_id", f"i{n}") for n in range(17, 29)]
        rows = [self.world.rows[key] for key in keys]
        self.world.rows.update(zip(keys, reversed(rows), strict=True))
