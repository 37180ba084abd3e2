"""`headrace features backfill`: what it says and does, of the topics and of a log; each error is a sentence with what to do."""

import json

import numpy as np
import pytest

from headrace import feature_history
from headrace.commands import feature_quality
from headrace.feature_history import Folded
from headrace.features.feature_set import FeatureSet
from headrace.features.layout import K
from headrace.features.service import FeatureService
from headrace.features.shard import FeatureShard
from headrace.features.store import FeatureStore
from headrace.rpc.owner import Owner
from headrace.rpc.server import Server
from headrace.schemas.hashing import feature_key
from tests.features.test_backfilled import topics
from tests.features.test_groups import fold, interactions
from tests.headrace.test_features_command import TOML, rows_csv, run  # noqa: F401
from tests.ps.test_roles import free_ports

PAST, LOG = 200, interactions(300, 1, late=0.0)
OLD = "\n".join(['[feature.user_all]', 'entity = "user"', 'reducer = "count"'])


@pytest.fixture
def service(tmp_path, monkeypatch):
    """A service of user_all, from the first event on, and TOML's definitions, which began behind PAST of them; and its topics."""
    shard = FeatureShard(FeatureStore(tmp_path / "store"), half_life_s=1e6, ring_length=4096, feature_set=FeatureSet.of((("o.toml", OLD),)))
    fold(shard, LOG[:PAST])
    shard.close()
    (tmp_path / "f.toml").write_text(OLD + TOML)
    (tmp_path / "headrace.toml").write_text('[features]\ndefinitions = ["f.toml"]\n')
    shard = FeatureShard(FeatureStore(tmp_path / "store"), half_life_s=1e6, ring_length=4096,
                         feature_set=FeatureSet.of((("f.toml", OLD + TOML),)))
    fold(shard, LOG[PAST:], PAST)
    owner = Owner("features")
    server = Server("127.0.0.1", 0, FeatureService(shard).verbs(), owner)
    owner.start()
    monkeypatch.setenv("HEADRACE_FEATURES__ADDRESS", server.address)
    monkeypatch.setattr(feature_history, "Topics", lambda settings: Folded(*topics(LOG)))
    yield shard
    server.shutdown()
    owner.stop()
    shard.close()


def presses(shard, user, ts_ms):
    """user_presses as it is read."""
    sample = shard.assemble(np.array([feature_key("user_id", user)], np.uint64), np.zeros(1, np.uint64), np.zeros((1, 4), np.uint64),
                            np.array([ts_ms]))
    return sample.numbers[0, K + 1]


def test_it_says_what_is_to_do_does_it_and_then_says_that_it_was_done(run, service):  # noqa: F811
    code, said, _ = run("list")
    assert code == 0 and "since 200, lacks its past" in said and "since 0" in said
    before = (service.counts, json.dumps(service.backfills.told))
    code, said, err = run("backfill", "--check")
    assert code == 0, err
    assert "user_presses@1" in said and "_item_genre@1" in said and "user_all" not in said and "nothing was changed" in said
    assert before == (service.counts, json.dumps(service.backfills.told))
    told = json.loads(run("backfill", "--check", "--json")[1])
    assert [one["feature"] for one in told["chosen"]] == ["_item_genre@1", "user_presses@1", "user_genres@1", "genre_rate@1"]
    assert {(one["since"], one["events"], one["missing"]) for one in told["chosen"]} == {(200, 200, 0)}
    code, said, err = run("backfill", "--feature", "user_presses")
    assert code == 0 and "1 definitions have the past of interactions" in said, err
    code, said, err = run("backfill")
    assert code == 0 and "3 definitions have the past of interactions" in said, err
    code, said, _ = run("backfill")
    assert code == 0 and said.startswith("nothing is to be backfilled: user_all@1 since 0;")
    assert "user_presses@1 since 200, backfilled: 200 events of interactions" in said
    assert "since 200, backfilled: 200 events of interactions" in " ".join(run("list")[1].split())
    listed = {one["feature"]: one["folded"] for one in json.loads(run("list", "--json")[1])["features"]}
    assert listed["user_all@1"] == {"since": 0} and listed["genre_rate@1"]["backfill"]["events"] == 200
    clicks = sum(event["action"] == "click" and event["user_id"] == "u1" for event in LOG)
    assert clicks and presses(service, "u1", LOG[-1]["ts_ms"]) == clicks


def test_events_that_are_gone_need_a_word(run, service, monkeypatch):  # noqa: F811
    interactions_, enriched = topics(LOG)
    monkeypatch.setattr(feature_history, "Topics", lambda settings: Folded(interactions_, enriched[30:]))
    assert "--partial goes on without it" in run("backfill", "--check")[1]
    code, _, err = run("backfill")
    assert code == 2 and "30 of the 200 events before" in err and "--partial goes on with the 170" in err and "Traceback" not in err
    assert "backfill" not in service.backfills.told["user_presses@1"]
    code, _, err = run("backfill", "--partial")
    assert code == 0, err
    assert "170 events of interactions, 30 missing" in " ".join(run("list")[1].split())


def test_a_log_that_was_never_sent(run, service, tmp_path):  # noqa: F811
    log, mapping = rows_csv(tmp_path)
    code, _, err = run("backfill", "--file", str(log))
    assert code == 2 and "--mapping MAPPING.toml stand together" in err
    code, said, err = run("backfill", "--file", str(log), "--mapping", str(mapping), "--feature", "user_presses", "--feature", "genre_rate")
    assert code == 0 and "have the past of log.csv (" in said, err
    assert service.backfills.told["user_presses@1"]["backfill"]["events"] == 5 and presses(service, "u1", 1_700_000_400_000) == 1
    assert service.store.names(np.array([feature_key("item.genre", "drama")], np.uint64)) == ["item.genre=drama"]
    log.write_text(log.read_text() + "u3,i1,1700000400,1,war\n")
    code, _, err = run("backfill", "--file", str(log), "--mapping", str(mapping), "--feature", "user_presses")
    assert code == 2 and "user_presses@1 was backfilled with 5 events of log.csv (" in err and "write version = 2 of user_presses" in err


def test_what_cannot_be_done_is_a_sentence(run, service, tmp_path, monkeypatch):  # noqa: F811
    code, _, err = run("backfill", "--feature", "user_pressed")
    assert code == 2 and "'user_pressed' is no feature of [features] definitions; there are user_all, user_presses" in err
    (tmp_path / "f.toml").write_text(OLD)
    log, mapping = rows_csv(tmp_path)
    code, _, err = run("backfill", "--feature", "user_all", "--file", str(log), "--mapping", str(mapping))
    assert code == 1 and "is not served here" in err and "Traceback" not in err
    (tmp_path / "headrace.toml").write_text("")
    code, _, err = run("backfill")
    assert code == 2 and "there are no definitions" in err
    (tmp_path / "headrace.toml").write_text('[features]\ndefinitions = ["f.toml"]\n')
    monkeypatch.setenv("HEADRACE_FEATURES__ADDRESS", f"127.0.0.1:{free_ports(1)[0]}")
    monkeypatch.setattr(feature_quality, "CALL_S", 0.2)
    code, _, err = run("backfill")
    assert code == 1 and "does not answer" in err and "`headrace up` starts one" in err
