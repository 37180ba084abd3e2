"""An engine over real rpc servers on free ports, whose verbs answer from memory."""

import asyncio

import httpx
import numpy as np
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry

from headrace.ann.client import AnnClient
from headrace.ann.service import Service
from headrace.engine.app import app
from headrace.engine.clock import Clock
from headrace.engine.events import Events
from headrace.engine.ranking import Ranker
from headrace.engine.recommend import Engine
from headrace.engine.upstream import Upstream
from headrace.features.client import FeatureClient
from headrace.features.layout import SIDE, K
from headrace.models.catalog import MODELS
from headrace.models.fields import Fields
from headrace.ps.serving import ServingClient
from headrace.rpc.owner import Owner
from headrace.rpc.server import Server
from headrace.schemas.hashing import feature_key
from headrace.streaming.model_inputs import inputs_of

ITEMS = [f"i{n}" for n in range(30)]
WALL_MS = 1_800_000_000_000


class World:
    """Users u1 (has read i0 and i1, has a vector) and u2 (known, no vector); items i0 to i29, all but i29 with a vector, i5 popular."""

    def __init__(self, folder):
        self.wall_ms, self.sequence = WALL_MS, 17
        self.impressions, self.sent, self.undelivered = [], [], {}
        self.rows = {feature_key("item_id", item): np.array([n / 10, 0.1 * n, 1.0], np.float32) for n, item in enumerate(ITEMS)}
        self.rows[feature_key("user_id", "u1")] = np.array([0.5, 0.5, -0.2], np.float32)
        self.people = {feature_key("user_id", "u1"): [feature_key("item_id", "i0"), feature_key("item_id", "i1")],
                       feature_key("user_id", "u2"): []}
        self.popular = ["i5", "i0", "i7", "i8", "i9", "i10", "i11", "i12"]
        self.asked_ts_ms = self.asked_context = None
        self.index = Service(3, CollectorRegistry())
        self.owner = Owner()
        self.owner.start()
        verbs = {"user": self._user, "assemble": self._assemble, "popular": self._popular, "resolve": self._resolve, "stats": self._stats}
        self.servers = {"features": Server("127.0.0.1", 0, verbs, self.owner),
                        "replica": Server("127.0.0.1", 0, {"pull": self._pull, "stats": self._stats}, self.owner),
                        "ann": Server("127.0.0.1", 0, self.index.verbs(), self.owner)}
        self.clients = {"features": FeatureClient(self.servers["features"].address, deadline_s=0.1, timeout_s=5),
                        "replica": ServingClient([self.servers["replica"].address], timeout_s=5),
                        "ann": AnnClient(self.servers["ann"].address, 5, 0.1)}
        for n, item in enumerate(ITEMS[:-1]):
            self.clients["ann"].upsert("item", [item], [[n, 1, 0]], [n])
        self.clients["ann"].upsert("user", ["u1"], [[1, 0, 1]], [7])
        self.clock = Clock(folder / "engine" / "clock.json", lambda: self.wall_ms)
        self.model = MODELS["fm"](Fields(SIDE[:3], np.ones(3, np.float32)))
        upstream = Upstream(self.clients["features"], self.clients["replica"], "fm", 0.1)
        engine = Engine(upstream, self.clients["ann"], Ranker(upstream, self.model, inputs_of()), self.clock, self.impressions.extend,
                        candidates=20)
        self.http = TestClient(app(engine, Events(self.clock, self._deliver, 2000), CollectorRegistry()), raise_server_exceptions=False)

    def stop(self, name):
        self.clients[name].close()
        self.servers.pop(name).shutdown()

    def close(self):
        for name in list(self.servers):
            self.stop(name)
        self.owner.stop()

    def probability(self, user, item):
        """By the definition, in plain Python."""
        u = self.rows.get(feature_key("user_id", user), np.zeros(3))
        i = self.rows[feature_key("item_id", item)]
        return 1 / (1 + np.exp(-(-0.5 + u[0] + i[0] + float(u[1:] @ i[1:]))))

    def _deliver(self, records):
        self.sent += records
        return [self.undelivered.get(record["item_id"], "") for _, record in records]

    def _user(self, header, arrays):
        recent = self.people.get(int(arrays["user"][0]))
        padded = np.zeros(64, np.uint64)
        padded[: len(recent or [])] = recent or []
        return {"found": recent is not None, "impressions": 0, "clicks": 0}, {"recent": padded, "recent_clicked": np.zeros(64, np.uint64)}

    def _assemble(self, header, arrays):
        assert header["feature_set"] == "base@1" and arrays["context"].shape == (len(arrays["item"]), 4)
        self.asked_ts_ms, self.asked_context = set(arrays["ts_ms"].tolist()), arrays["context"][0].tolist()
        keys = np.stack([np.full(len(arrays["item"]), 1, np.uint64), arrays["user"], arrays["item"]], 1)
        return {"sequence": 41}, {"keys": keys, "values": np.ones(keys.shape, np.float32), "numbers": np.zeros((len(keys), K), np.float32)}

    def _popular(self, header, arrays):
        items = self.popular[: header["k"]]
        return {"items": items}, {"score": np.arange(len(items), 0, -1).astype(np.float32)}

    def _resolve(self, header, arrays):
        names = {feature_key("item_id", item): f"item_id={item}" for item in ITEMS}
        return {"names": [names.get(key) for key in arrays["keys"].tolist()]}, {}

    def _pull(self, header, arrays):
        assert (header["model"], header["table"]) == ("fm", "weights")
        held = {1: np.array([-0.5, 0, 0], np.float32), **self.rows}
        values = [held.get(key, np.zeros(3, np.float32)) for key in arrays["keys"].tolist()]
        return {"sequence": self.sequence, "age_ms": 12, "newest": [7, 1, 30, 1000]}, {"values": np.stack(values)}

    def _stats(self, header, arrays):
        return {}, {}


class InProcess(httpx.BaseTransport):
    """Requests handed to the application, without a socket."""

    def __init__(self, app):
        self._http = httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False))

    def handle_request(self, request):
        async def asked():
            answer = await self._http.request(request.method, request.url, content=request.read(), headers=request.headers)
            return httpx.Response(answer.status_code, content=answer.content, headers=answer.headers)

        return asyncio.run(asked())
