"""`headrace features`: what it prints of definitions, of a log folded by them, and what it says of wrong ones."""

import json

import pytest

from headrace import cli
from headrace.commands import feature_quality
from headrace.features.feature_set import FeatureSet
from headrace.features.service import FeatureService
from headrace.features.shard import FeatureShard
from headrace.features.store import FeatureStore
from headrace.rpc.owner import Owner
from headrace.rpc.server import Server
from tests.ps.test_roles import free_ports


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        try:
            cli.main(["features", *arguments])
            code = 0
        except SystemExit as end:
            code = end.code or 0
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


TOML = """
[feature.user_presses]
entity = "user"
reducer = "count"
where = { action = "click" }
window = "1d"
owner = "feed"

[feature.user_genres]
entity = "user"
reducer = "top_n"
where = { action = "click" }
value = "item.genre"
n = 2

[feature.genre_rate]
entity = "user x item.genre"
reducer = "ratio"
where = { action = "click" }
over = { action = "impression" }
prior = 0.5
"""


def rows_csv(folder):
    """A log of four exposures, one of them pressed, and its mapping."""
    (folder / "log.csv").write_text("user,item,ts,pressed,genre\nu1,i1,1700000000,1,war\nu1,i2,1700000100,0,drama\n"
                                    "u2,i1,1700000200,0,war\nu1,i1,1700000300,0,war\n")
    (folder / "m.toml").write_text('time_unit = "s"\n[columns]\nuser_id = "user"\nitem_id = "item"\nts = "ts"\nlabel = "pressed"\n'
                                   'action = "click"\n[item]\nfields = ["genre"]\n')
    return folder / "log.csv", folder / "m.toml"


def test_list_says_what_each_takes_and_keeps(run, tmp_path):
    (tmp_path / "f.toml").write_text(TOML)
    code, out, _ = run("list", "--definitions", "f.toml")
    assert code == 0 and "30 slots" not in out and "29 slots, 10 numbers" in out
    assert "user_presses@1" in out and "count window=1d" in out and "item.genre of click" in out and "click over impression" in out
    code, out, _ = run("list", "--definitions", "f.toml", "--json")
    told = json.loads(out)
    assert code == 0 and [one["feature"] for one in told["features"]] == ["user_presses@1", "user_genres@1", "genre_rate@1"]
    assert told["numbers"][-2:] == ["user_presses", "genre_rate"] and told["slots"][-2:] == ["user_genres.0", "user_genres.1"]
    assert told["features"][0]["owner"] == "feed" and told["features"][0]["place"] == "f.toml:2"


def test_list_of_the_configured_files_and_of_none(run, tmp_path):
    code, out, _ = run("list")
    assert code == 0 and "feature set base@1:" in out and "no definitions" in out
    (tmp_path / "f.toml").write_text(TOML)
    (tmp_path / "headrace.toml").write_text('[features]\ndefinitions = ["f.toml"]\n')
    code, out, _ = run("list")
    assert code == 0 and "user_presses@1" in out


def test_what_is_wrong_is_a_sentence_with_its_line(run, tmp_path):
    (tmp_path / "f.toml").write_text(TOML.replace('"1d"', "1"))
    code, out, err = run("list", "--definitions", "f.toml")
    assert (code, out) == (2, "") and err.startswith("error: f.toml:6: feature user_presses: window = 1 has no unit")
    code, _, err = run("list", "--definitions", "none.toml")
    assert code == 2 and "none.toml cannot be read" in err
    code, _, err = run("try", "log.csv", "--mapping", "m.toml")
    assert code == 2 and "there are no definitions to try" in err


def test_try_folds_a_log_and_says_what_exposures_see(run, tmp_path):
    (tmp_path / "f.toml").write_text(TOML)
    log, mapping = rows_csv(tmp_path)
    code, out, err = run("try", str(log), "--mapping", str(mapping), "--definitions", "f.toml", "--last", "2")
    assert code == 0, err
    assert "4 rows, 4 exposures" in out
    code, out, err = run("try", str(log), "--mapping", str(mapping), "--definitions", "f.toml", "--json")
    told = {one["feature"]: one for one in json.loads(out)["definitions"]}
    # u1 presses i1 (war), then sees i2 (drama) and i1 again; u2 sees i1
    assert told["user_presses@1"]["counted"] == 1 and told["user_presses@1"]["max"] == 1.0
    assert told["genre_rate@1"]["counted"] == 5
    *_, last = json.loads(out)["last"]
    assert last["features"]["user_genres@1"] == ["war"] and last["features"]["user_presses@1"] == 1.0
    assert last["features"]["genre_rate@1"] == pytest.approx((1 + 0.5) / (1 + 1))


def test_suggest_proposes_what_the_log_is_worth_and_its_file_can_be_tried(run, tmp_path):
    lines = [f"u{n % 6},i{n % 11},{1_700_000_000 + 3600 * n},{n % 4 == 0:d},{'war|drama' if n % 2 else 'noir'},{n % 11 * 1.5 + n % 7}"
             for n in range(300)]
    (tmp_path / "log.csv").write_text("user,item,ts,pressed,genre,price\n" + "\n".join(lines) + "\n")
    (tmp_path / "m").mkdir()
    _, mapping = rows_csv(tmp_path / "m")
    mapping.write_text(mapping.read_text().replace('["genre"]', '["genre", "price"]'))
    code, out, err = run("suggest", "log.csv", "--mapping", str(mapping), "--output", "f.toml")
    assert code == 0 and "6 definitions in f.toml" in out, err
    text = (tmp_path / "f.toml").read_text()
    assert "25.0% end in 'click'" in text and "prior = 0.2500" in text
    assert '"user x item.genre"' in text and "3 values of item.genre" in text
    assert "[feature.user_mean_price]" in text and "[feature.item_people]" in text
    code, out, err = run("try", "log.csv", "--mapping", str(mapping), "--definitions", "f.toml", "--last", "0")
    assert code == 0 and "user_genre_click_rate@1" in out, err


def test_suggest_says_when_there_is_nothing_to_count(run, tmp_path):
    (tmp_path / "log.csv").write_text("user,item,ts,pressed,genre\nu1,i1,1700000000,1,war\nu2,i2,1700000100,0,drama\n")
    (tmp_path / "one").mkdir()
    _, mapping = rows_csv(tmp_path / "one")
    mapping.write_text(mapping.read_text().replace('[item]\nfields = ["genre"]\n', ""))
    code, out, _ = run("suggest", "log.csv", "--mapping", str(mapping))
    assert code == 0 and "Nothing here meets anything often enough" in out and "[feature" not in out


def test_a_function_that_fails_is_told_with_its_place(run, tmp_path):
    (tmp_path / "f.py").write_text("from headrace.features.definitions import feature\n\n\n@feature(entity='user', reducer='sum')\n"
                                   "def price(event):\n    return event['prize']\n")
    log, mapping = rows_csv(tmp_path)
    code, _, err = run("try", str(log), "--mapping", str(mapping), "--definitions", "f.py")
    assert code == 1 and "f.py:4: feature price: KeyError: 'prize', on the event" in err


def test_stats_and_get_say_who_does_not_answer(run, tmp_path):
    (tmp_path / "headrace.toml").write_text('[features]\naddress = "127.0.0.1:1"\n[engine]\nurl = "http://127.0.0.1:1"\n')
    code, _, err = run("stats")
    assert code == 1 and "127.0.0.1:1" in err and "`headrace up` starts one" in err
    code, _, err = run("get", "--user", "u", "--item", "i", "--context", "device")
    assert code == 2 and "--context 'device': write field=value" in err
    code, _, err = run("get", "--user", "u", "--item", "i")
    assert code == 1 and "127.0.0.1:1" in err and "Traceback" not in err


@pytest.fixture
def service(tmp_path, monkeypatch):
    """A feature service of TOML's definitions, where the configuration says."""
    store = FeatureStore(tmp_path / "store")
    feature_set = FeatureSet.of((("f.toml", TOML),))
    owner = Owner("features")
    server = Server("127.0.0.1", 0, FeatureService(FeatureShard(store, half_life_s=1e6, ring_length=4096, feature_set=feature_set)).verbs(),
                    owner)
    owner.start()
    monkeypatch.setenv("HEADRACE_FEATURES__ADDRESS", server.address)
    monkeypatch.setenv("HEADRACE_WATCH__HTTP_PORT", str(free_ports(1)[0]))
    yield server
    server.shutdown()
    owner.stop()
    store.close()


def test_a_feature_is_frozen_told_of_and_unfrozen(run, service):
    assert run("events")[1].startswith("nothing has happened")
    assert "is frozen to its default" in run("freeze", "user_presses", "--why", "a bad import")[1]
    assert "was frozen already" in run("freeze", "user_presses")[1]
    code, said, _ = run("stats")
    assert code == 0 and "user_presses is frozen to its default since" in said and "by person: a bad import" in said
    assert "features are not watched" in said and "frozen_bytes" in said
    told = json.loads(run("stats", "--json")[1])
    assert told["features"] is None and set(told["frozen"]) == {"user_presses"} and told["users"] == 0
    assert "is read again" in run("unfreeze", "user_presses")[1] and "was not frozen" in run("unfreeze", "user_presses")[1]
    assert "each feature is taken anew" in run("reference")[1]
    assert [(one["event"], one["feature"], one["by"]) for one in json.loads(run("events", "--json")[1])] == [
        ("freeze", "user_presses", "person"), ("unfreeze", "user_presses", "person"), ("reset", "", "person")]
    code, _, said = run("freeze", "user_id")
    assert code == 1 and "no feature that can be frozen" in said and "user_presses" in said


def test_a_service_that_is_away_is_told_with_what_starts_it(run, monkeypatch):
    monkeypatch.setenv("HEADRACE_FEATURES__ADDRESS", f"127.0.0.1:{free_ports(1)[0]}")
    monkeypatch.setattr(feature_quality, "CALL_S", 0.2)
    code, _, said = run("freeze", "user_presses")
    assert code != 0 and "does not answer" in said and "`headrace up` starts one" in said
