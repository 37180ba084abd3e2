"""Configuration: who wins, and what an unknown name is answered."""

import json

import pytest

from headrace.choice import choice_of
from headrace.config import Config, ConfigError, Model, load, show
from headrace.job_names import job_names
from headrace.models.choice import EVERY, Choice
from headrace.own_stack import UNJUDGED
from headrace.schemas.targets import Noise, Target


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_defaults(folder):
    assert load(environ={}) == Config()


def test_the_environment_beats_the_stack_and_the_stack_the_file(folder):
    (folder / "headrace.toml").write_text('[kafka]\nbootstrap = "file:1"\npartitions = 8\n[ps]\naddresses = ["file:2"]\n')
    (folder / ".headrace").mkdir()
    running = {"kafka": {"bootstrap": "stack:1"}, "ps": {"addresses": ["stack:2"]}}
    (folder / ".headrace" / "stack.json").write_text(json.dumps({"config": running}))
    config = load(environ={"HEADRACE_PS__ADDRESSES": '["environment:2"]'})
    assert (config.kafka.bootstrap, config.kafka.partitions, config.ps.addresses) == ("stack:1", 8, ["environment:2"])
    assert load(environ={}, stack=False).kafka.bootstrap == "file:1"


@pytest.mark.parametrize("text, nearest", [
    ("[kafka]\nbootstarp = 'x'\n", "kafka.bootstrap"),
    ("[kafca]\nbootstrap = 'x'\n", "kafka"),
    ("[model]\nlearning_rat = 1\n", "model.learning_rate"),
    ("[models.lr]\nlearning_rat = 1\n", "models.lr.learning_rate"),
    ("[models.lrr]\n", "models.lr"),
    ("[samples.also.like]\nwindow = 1\n", "samples.also.like.window_ms"),
])
def test_an_unknown_name_names_the_nearest(folder, text, nearest):
    (folder / "headrace.toml").write_text(text)
    with pytest.raises(ConfigError, match=f"the nearest is '{nearest}'"):
        load(environ={})


def test_an_unknown_name_in_the_environment(folder):
    with pytest.raises(ConfigError, match=r"engine\.url"):
        load(environ={"HEADRACE_ENGINE__ULR": "http://127.0.0.1:1"})


def test_a_wrong_value_is_named(folder):
    (folder / "headrace.toml").write_text("[kafka]\npartitions = 0\n")
    with pytest.raises(ConfigError, match=r"kafka\.partitions.*got 0"):
        load(environ={})


def test_copies_of_serving_shards():
    config = Config(replica={"addresses": ["a:1", "b:2", "c:3", "d:4"], "http_ports": [1, 2, 3, 4], "shards": 2})
    assert config.replica.copies == [["a:1", "b:2"], ["c:3", "d:4"]] and config.replica.names == [f"replica-{i}" for i in range(4)]
    assert Config().replica.names == ["replica"] and Config().replica.copies == [Config().replica.addresses]


@pytest.mark.parametrize("text", ["addresses = ['a:1', 'b:2', 'c:3']\nshards = 2\n", "addresses = []\n", "shards = 2\n"])
def test_each_serving_shard_has_as_many_copies(folder, text):
    (folder / "headrace.toml").write_text(f"[replica]\n{text}")
    with pytest.raises(ConfigError, match=r"replica.*as many copies"):
        load(environ={})


def test_what_is_shown_can_be_loaded(folder):
    (folder / "headrace.toml").write_text(show(Config()))
    assert load(environ={}) == Config()


def test_models_trained_beside_the_served_one(folder):
    assert load(environ={}).trained == [Model()] and job_names(Config()) == ("features", "samples", "train", "vectors")
    (folder / "headrace.toml").write_text("[models.lr]\nlearning_rate = 0.2\n")
    config = load(environ={})
    assert config.trained == [Model(), Model(name="lr", learning_rate=0.2)]
    assert job_names(config) == ("features", "samples", "train", "train-lr", "vectors")
    (folder / "headrace.toml").write_text(show(config))
    assert load(environ={}) == config
    assert load(environ={"HEADRACE_MODELS__LR": '{"version": 2}'}).models["lr"].version == 2


@pytest.mark.parametrize("text, words", [
    ("[models.fm]\n", "models.fm is the served model already"),
    ("[model]\nname = 'lr'\n[models.lr]\n", "models.lr is the served model already"),
    ("[models.lr]\nname = 'fm'\n", r"models\.lr\.name is 'fm'"),
    ("[models]\nlr = 1\n", r"write \[models\.lr\]"),
])
def test_models_that_cannot_be(folder, text, words):
    (folder / "headrace.toml").write_text(text)
    with pytest.raises(ConfigError, match=words):
        load(environ={})


ALSO = "[samples.also.like]\naction = 'like'\nwindow_ms = 60000\n[samples.also.read]\naction = 'dwell'\nat_least = 7.5\n"


def test_further_targets_each_with_a_window(folder):
    (folder / "headrace.toml").write_text(ALSO + "[model]\ntarget = 'read'\n[models.lr]\n")
    config = load(environ={})
    assert config.samples.targets == (Target("click", "click", 1000), Target("like", "like", 60_000), Target("read", "dwell", 1000, 7.5))
    assert (config.samples.widest_ms, config.target_of(), config.target_of("lr")) == (60_000, "read", "click")
    (folder / "headrace.toml").write_text(show(config))
    assert load(environ={}) == config
    one = load(environ={"HEADRACE_SAMPLES__ALSO": '{"like": {"window_ms": 5}}'}).samples.also["like"]
    assert (one.action, one.window_ms) == ("like", 5)
    assert Config().samples.targets == (Target("click", "click", 1000),) and Config().samples.widest_ms == 1000


@pytest.mark.parametrize("text, words", [
    (ALSO + "[samples]\nstrategy = 'eager'\n", "strategy eager makes samples of one target, and also has like, read: set strategy to wait"),
    (ALSO + "[samples]\nstrategy = 'fast'\n", "strategy fast makes samples of one target"),
    ("[samples.also.click]\nwindow_ms = 5000\n", "also.click has the name of samples.target"),
    ("[samples.also.seen]\naction = 'impression'\n", "impression, which is no action of a user"),
    ("[samples.also.\"a b\"]\n", "'a b' is no action name"),
    ("[samples.also.x]\naction = 'a,b'\n", "'a,b' is no action name"),
    ("[samples.also.x]\nwindow_ms = 0\n", r"samples\.also\.x\.window_ms.*got 0"),
    ("[samples.also]\nlike = 3\n", r"write \[samples\.also\.like\]"),
    ("[samples]\nalso = 3\n", r"write \[samples\.also\.NAME\]"),
    ("[samples]\nstrategy = 'eager'\n[samples.noise]\nrepeated_exposure_ms = 5\n", "before noise.repeated_exposure_ms can judge them"),
    ("[samples]\nstrategy = 'fast'\n[samples.noise]\naccidental_click_below_s = 5\n", "before noise.accidental_click_below_s can"),
    ("[samples]\ntarget = 'like'\n[samples.noise]\naccidental_click_below_s = 5\n", "no target is of the action click"),
    ("[samples]\nstrategy = 'fast'\nnegatives_kept = 0.5\n", "negatives_kept is below 1, and strategy fast"),
    ("[samples]\nnegatives_kept = 0\n", r"samples\.negatives_kept.*got 0"),
    ("[samples.noise]\ninactive_users_events = 1\n", r"the nearest is 'samples\.noise\.inactive_user_events'"),
    ("[model]\ntarget = 'like'\n", "model fm learns target 'like', and samples are made of click: name one of these"),
])
def test_targets_that_cannot_be(folder, text, words):
    (folder / "headrace.toml").write_text(text)
    with pytest.raises(ConfigError, match=words):
        load(environ={})


def test_rules_against_noise_are_off_and_then_shown_and_read_again(folder):
    assert Config().samples.rules == Noise() and Config().samples.joins_plainly and choice_of(Config()) == EVERY
    (folder / "headrace.toml").write_text("[samples]\nnegatives_kept = 0.25\n[samples.noise]\nrepeated_exposure_ms = 9000\n"
                                          "accidental_click_below_s = 2.5\ninactive_user_events = 3\n")
    config = load(environ={})
    assert config.samples.rules == Noise(9000, 2.5) and not config.samples.joins_plainly and choice_of(config) == Choice(0.25, 3.0)
    (folder / "headrace.toml").write_text(show(config))
    assert load(environ={}) == config
    body = config.model_dump()
    body["samples"].update(UNJUDGED["samples"])
    assert Config(**body).samples.joins_plainly and Config(**body).samples.negatives_kept == 0.25, "a stack that is compared with a file"
    live = Config(samples={"strategy": "eager", "negatives_kept": 0.5, "noise": {"inactive_user_events": 2}})
    assert choice_of(live) == Choice(0.5, 2.0) and live.samples.joins_plainly, "what training leaves out changes no join"
