"""Scenarios as data: the bundled ones load, and a wrong file is a sentence."""

from __future__ import annotations

import pytest

from headrace.simulator.scenario import EVENTS, Scenario, ScenarioError, load, names, parse


def test_every_bundled_scenario_loads_and_says_what_it_is():
    assert set(names()) == {"calm", "drift", "shock", "cold-start", "delay", "spam-attack", "poisoned-labels", "outage"}
    for name in names():
        scenario = load(name)
        assert scenario.name == name and scenario.what.endswith(".")
        assert parse({k: v for k, v in scenario.document().items() if k != "name"}, name) == scenario


def test_they_differ_in_what_they_are_named_for():
    happens = {name: {event for event in EVENTS if getattr(load(name), event)} for name in names()}
    assert happens == {"calm": set(), "drift": set(), "delay": set(), "shock": {"shock"}, "cold-start": {"cold_start"},
                       "spam-attack": {"spam"}, "poisoned-labels": {"poison"}, "outage": {"outage"}}
    assert load("drift").tastes.half_life_days < load("calm").tastes.half_life_days
    assert load("delay").actions.delay_s > 100 * load("calm").actions.delay_s


@pytest.mark.parametrize("values, words", [
    ({"shok": {}}, "unknown key 'shok'; the nearest is 'shock'"),
    ({"size": {"user": 3}}, r"\[size\]: unknown key 'user'; the nearest is 'users'"),
    ({"size": {"users": 2.5}}, "users is 2.5; write a whole number within 1"),
    ({"size": {"users": True}}, "users is True; write a whole number"),
    ({"clicks": {"base": "low"}}, "base is 'low'; write a number within -15 and 5"),
    ({"clicks": {"base": float("nan")}}, "base is nan; write a number"),
    ({"size": 3}, r"size is a section, write \[size\]"),
    ({"what": 3}, "what is a text"),
    ({"size": {"days": 5}, "shock": {"day": 7.5}}, "at day 7.5 and the world has 5 days"),
])
def test_a_wrong_scenario_is_a_sentence(values, words):
    with pytest.raises(ScenarioError, match=words):
        parse(values, "x", "x.toml")


def test_a_file_of_ones_own(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("[size]\nusers = 7\n[clicks]\nbase = -1\n")
    assert load(file).size.users == 7 and load(file).name == "mine" and load(file).clicks.base == -1
    file.write_text("[size\n")
    with pytest.raises(ScenarioError, match=r"mine\.toml"):
        load(file)
    with pytest.raises(ScenarioError, match="the nearest is 'shock'"):
        load("shok")


def test_sizes_given_by_hand_are_checked_too():
    assert Scenario().sized(users=3).size.users == 3
    with pytest.raises(ScenarioError, match="users is 0"):
        Scenario().sized(users=0)
    with pytest.raises(ScenarioError, match=r"day 7\.5 and the world has 3 days"):
        load("shock").sized(days=3)
