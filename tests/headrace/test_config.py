"""Configuration: who wins, and what an unknown name is answered."""

import json

import pytest

from headrace.config import Config, ConfigError, load, show


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


def test_what_is_shown_can_be_loaded(folder):
    (folder / "headrace.toml").write_text(show(Config()))
    assert load(environ={}) == Config()
