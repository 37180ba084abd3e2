"""The engine over the real feature service, replica and index: the verbs as their rooms have them."""

import numpy as np
import pytest
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
from headrace.features.events import EventBatch
from headrace.features.layout import SIDE, SLOTS, F, K
from headrace.features.service import FeatureService
from headrace.features.shard import FeatureShard
from headrace.features.store import FeatureStore
from headrace.models.catalog import MODELS
from headrace.models.fields import fields_of
from headrace.models.spec import model_spec
from headrace.ps.replica import Replica
from headrace.ps.service import replica_verbs
from headrace.ps.serving import ServingClient
from headrace.ps.spec import ModelSpec
from headrace.rpc.causes import Causes
from headrace.rpc.owner import Owner
from headrace.rpc.server import Server
from headrace.schemas.hashing import feature_key
from headrace.streaming.model_inputs import inputs_of

T0 = 1_700_000_000_000


@pytest.fixture
def served(tmp_path):
    store = FeatureStore(tmp_path / "features")
    spec = ModelSpec.from_json(model_spec("fm", 1, 8, "adagrad", 0.1, 0.3))
    replica = Replica([spec], 2, 100_000, lambda: T0)
    owner = Owner()
    owner.start()
    features = FeatureService(FeatureShard(store, half_life_s=86400.0, ring_length=1 << 16))
    rooms = (features.verbs(), replica_verbs(replica), Service(9, CollectorRegistry()).verbs())
    servers = [Server("127.0.0.1", 0, verbs, owner) for verbs in rooms]
    client, weights, vectors = FeatureClient(servers[0].address), ServingClient([servers[1].address]), AnnClient(servers[2].address)
    sent = []
    upstream = Upstream(client, weights, "fm")
    clock = Clock(tmp_path / "clock.json")
    clock.set("log", T0)
    engine = Engine(upstream, vectors, Ranker(upstream, MODELS["fm"](fields_of(SLOTS, SIDE)), inputs_of()), clock, sent.extend, 50)
    with TestClient(app(engine, Events(clock, lambda records: [""] * len(records)), CollectorRegistry())) as http:
        yield http, client, vectors, sent, replica
    for one in (client, weights, vectors):
        one.close()
    for server in servers:
        server.shutdown()
    owner.stop()
    store.close()


def test_from_events_to_an_explained_recommendation(served):
    http, client, vectors, sent, _ = served
    rng = np.random.default_rng(0)
    records = [{"event_id": f"e{n}-{action}", "user_id": "u", "item_id": f"i{n}", "action": action, "value": 1.0, "ts_ms": T0 - 1000 + n,
                "context": {"item.genre": "drama|war", "user.age": "30", "hour": "7"}, "exposure": None}
               for n in range(5) for action in ("impression", "click")]
    batch = EventBatch(records)
    client.names(batch.names)
    n = len(records)
    client.freeze_and_fold(Causes(np.zeros(n, np.int32), np.zeros(n, np.int32), np.arange(n)), batch)
    fallback = http.get("/recommend?user=new&n=3").json()
    assert fallback["fallback"] == "popular" and len(fallback["items"]) == 3
    vectors.upsert("item", [f"i{n}" for n in range(40)], rng.normal(size=(40, 9)), np.arange(40))
    vectors.upsert("user", ["u"], rng.normal(size=(1, 9)), [1])
    sent.clear()
    answer = http.get("/recommend?user=u&n=5&context=hour=7&explain=1").json()
    assert answer["fallback"] is None and not {row["item_id"] for row in answer["items"]} & {f"i{n}" for n in range(5)}
    for row in answer["items"]:
        slots = row["explain"]["slots"]
        assert {slot["slot"] for slot in slots} <= set(SLOTS)
        logit = sum(slot["linear"] + slot["pairs"] for slot in slots)
        assert 1 / (1 + np.exp(-logit)) == pytest.approx(row["score"], abs=1e-5)
        named = {slot["slot"]: slot["name"] for slot in slots}
        assert named["user_id"] == "user_id=u" and named["context.0"] == "hour=7" and named["user.0"] == "user.age=30"
    exposure = sent[0][1]["exposure"]
    assert (len(exposure["feature_keys"]), len(exposure["feature_values"]), len(exposure["numbers"])) == (8 * F, 4 * F, 4 * K)
    again = http.post("/score", json={"user": "u", "items": ["i7", "i8"], "ts_ms": T0}).json()["items"]
    assert again == http.post("/score", json={"user": "u", "items": ["i7", "i8"], "ts_ms": T0}).json()["items"]
    assert http.get("/ready").json()["ready"]


def test_a_score_says_whether_the_model_has_learnt_of_the_item(served):
    http, *_, replica = served
    key = np.array([feature_key("item_id", "i7")], np.uint64)
    replica.held["fm", "weights"].table.put(key, np.full((1, 9), 0.25, np.float32))
    rows = http.post("/score", json={"user": "u", "items": ["i7", "no-such-item"]}).json()["items"]
    assert [row["found"] for row in rows] == [True, False], "an unknown row has seeded factors, and no weight of its own"
