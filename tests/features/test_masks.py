"""Features frozen to their defaults: decisions at the feature service, what answers tell of them, and what a model's input becomes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headrace.features import masks
from headrace.features.client import FeatureClient
from headrace.features.definition_files import of_texts
from headrace.features.definitions import DefinitionError
from headrace.features.feature_set import FeatureSet
from headrace.features.layout import SLOTS
from headrace.features.masks import ALARM, FREEZE, RESET, UNFREEZE, MaskError, Masks
from headrace.features.service import FeatureService
from headrace.features.shard import FeatureShard
from headrace.features.store import FeatureStore
from headrace.models.inputs import transforms_of
from headrace.ports import any_free
from headrace.rpc.errors import Refused
from headrace.rpc.owner import Owner
from headrace.rpc.server import Server
from headrace.streaming.masked import Masked
from headrace.streaming.model_inputs import inputs_of

FILE = """
[feature.rate]
entity = "item"
reducer = "mean"
where = { action = "dwell" }
value = "value"
default = 0.25

[feature.genres]
entity = "user"
reducer = "top_n"
value = "item.genre"
n = 2
"""
SET = FeatureSet.of((("f.toml", FILE),))


@pytest.fixture
def store(tmp_path):
    made = FeatureStore(tmp_path)
    yield made
    made.close()


def test_decisions_are_kept_with_who_when_and_why(store):
    held = Masks(store, SET)
    assert held.decide(FREEZE, "rate", "person", "bad import", 5)
    assert not held.decide(FREEZE, "rate", "watch", "again", 6)
    assert held.decide(ALARM, "genres", "watch", "psi", 7) and held.decide(RESET, "", "person", "", 8)
    again = Masks(store, SET)
    assert again.names == ["rate"] and again.frozen["rate"] == {"by": "person", "why": "bad import", "at_ms": 5}
    assert [one["event"] for one in again.events] == ["freeze", "alarm", "reset"] and again.resets == {"": 3} and again.turn == 3
    assert again.decide(UNFREEZE, "rate", "person", "", 9) and not again.decide(UNFREEZE, "rate", "person", "", 10)
    assert Masks(store, SET).names == []


@pytest.mark.parametrize("decision, feature, said", [
    (FREEZE, "user_id", "no feature that can be frozen"), (FREEZE, "rat", "there are rate, genres"), ("melt", "rate", "no decision"),
    (FREEZE, "", "no feature")])
def test_what_cannot_be_decided_is_told(store, decision, feature, said):
    with pytest.raises(MaskError, match=said):
        Masks(store, SET).decide(decision, feature, "person", "", 1)


def test_a_feature_that_is_gone_can_be_unfrozen_and_events_are_bounded(store, monkeypatch):
    monkeypatch.setattr(masks, "EVENTS_MAX", 3)
    held = Masks(store, SET)
    held.decide(FREEZE, "rate", "person", "", 1)
    other = Masks(store, FeatureSet())
    assert other.decide(UNFREEZE, "rate", "person", "", 2)
    for n in range(5):
        assert other.decide(ALARM, "item_ctr", "watch", str(n), n) and not other.decide(ALARM, "item_ctr", "watch", str(n), n + 1)
    assert [one["why"] for one in Masks(store, SET).events] == ["2", "3", "4"]


def test_every_answer_that_inputs_are_made_of_tells_what_is_frozen(store):
    service, owner = FeatureService(FeatureShard(store, half_life_s=1e6, ring_length=4096, feature_set=SET)), Owner("features")
    server = Server("127.0.0.1", 0, service.verbs(), owner)
    owner.start()
    client, asking = FeatureClient(server.address, feature_set=SET), Masked(server.address)
    try:
        def seen():
            one = np.ones(1, np.uint64)
            return client.assemble(one, one, np.zeros((1, 4), np.uint64), np.ones(1, np.int64)).masked

        assert seen() == () and asking.now() == ()
        assert client.decide(FREEZE, "rate", "person", "why") and not client.decide(FREEZE, "rate", "person", "why")
        assert seen() == ("rate",) == client.masked and client.masks()["frozen"]["rate"]["why"] == "why"
        assert asking.now() == (), "an answer holds for a second"
        asking._ask_s = 0.0
        assert asking.now() == ("rate",)
        with pytest.raises(Refused, match="no feature"):
            client.decide(FREEZE, "nothing", "person", "")
    finally:
        client.close()
        server.shutdown()
        owner.stop()
    asking._ask_s = 0.0
    assert asking.now() == ("rate",), "the last answer holds while nobody answers"
    asking.close()


def test_who_trains_without_a_feature_service_masks_nothing(caplog):
    asking = Masked(f"127.0.0.1:{any_free()}", 0.1)
    assert asking.now() == () and "none is taken to be" in caplog.text
    caplog.clear()
    assert asking.now() == () and not caplog.text, "and asks again later"
    asking.close()


def test_a_masked_feature_is_read_as_its_default_by_slots_numbers_and_transforms():
    inputs = inputs_of(SET, transforms_of([{"name": "r", "bucket": "rate", "edges": [0.5]},
                                           {"name": "x", "cross": ["genres.0", "item.0"]}]))
    rng = np.random.default_rng(0)
    keys = rng.integers(1, 1 << 62, (3, SET.F)).astype(np.uint64)
    values, numbers = np.ones((3, SET.F), np.float32), np.full((3, SET.K), 9.0, np.float32)
    blank = numbers.copy()
    blank[:, SET.numbers.index("rate")] = 0.25
    held = keys.copy(), values.copy(), numbers.copy()
    assert np.array_equal(inputs.expand(keys, values, numbers, ("rate",))[0], inputs.expand(keys, values, blank)[0])
    made, weights = inputs.expand(keys, values, numbers, ("genres", "user_lift", "gone"))
    for slot in ("genres.0", "genres.1", "user_lift"):
        place = SET.slots.index(slot)
        assert (made[:, place] == SET.empty_keys[place]).all() and not weights[:, place].any()
    assert not weights[:, inputs.slots.index("x")].any() and weights[:, SLOTS.index("user_id")].all()
    assert all(map(np.array_equal, held, (keys, values, numbers))), "what is masked is a copy"
    packed = [[row.tobytes() for row in one] for one in (keys, values, numbers)]
    batch = inputs.batch(*packed, masked=("genres", "user_lift", "gone"))
    assert np.array_equal(batch.keys, made) and np.array_equal(batch.values, weights)
    assert np.array_equal(inputs_of(SET).batch(*packed, masked=("user_lift",)).values[:, SLOTS.index("user_lift")], np.zeros(3))


WRONG = [("7", "not a table"), ("{ mim = 1 }", "'mim' is no bound; there are min"), ("{ min = 2, max = 1 }", "min 2 lies above max 1"),
         ("{ null_rate = 1.5 }", "a share from 0 to 1"), ("{ psi = 0 }", "above 0"), ('{ stale = "soon" }', "stale = "),
         ('{ min = "1" }', "not a finite number"), ("{ max = nan }", "not a finite number")]


@pytest.mark.parametrize("bounds, said", WRONG)
def test_bounds_that_are_wrong_are_told_with_file_and_line(bounds, said):
    text = FILE.replace("default = 0.25", f"default = 0.25\nbounds = {bounds}")
    with pytest.raises(DefinitionError, match=said) as told:
        of_texts([("f.toml", text)])
    assert str(told.value).startswith("f.toml:8: feature rate: "), told.value


def test_ids_have_no_least_and_bounds_do_not_make_another_version():
    with pytest.raises(DefinitionError, match=r"f\.toml:14: .*min is of numbers"):
        of_texts([("f.toml", FILE + "bounds = { min = 0 }\n")])
    bounded = FeatureSet.of((("f.toml", FILE.replace("default = 0.25", 'default = 0.25\nbounds = { min = 0, stale = "30s" }')),))
    assert bounded.name == SET.name and bounded.definitions[0].bounds.stale_ms == 30_000
    assert bounded.definitions[0].bounds.least == 0 and SET.definitions[0].bounds.null_rate is None


def test_the_page_of_definitions_names_every_bound():
    from headrace.features.bounds import BOUNDS

    page = (Path(__file__).parents[2] / "docs" / "quality.md").read_text()
    assert all(f"`{bound}`" in page for bound in BOUNDS)
