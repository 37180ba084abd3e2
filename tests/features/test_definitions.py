"""Definitions as people write them: what is taken, and what is refused with its file, its line and what to write instead."""

import math
import pickle
import re

import pytest

from headrace.features.definition_files import of_texts, read
from headrace.features.definitions import DefinitionError
from headrace.features.durations import milliseconds, written
from headrace.features.feature_set import BASE, FeatureSet
from headrace.features.reducers import REDUCERS

GOOD = """
[feature.user_clicks_7d]
entity = "user"
reducer = "count"
where = { action = ["click", "like"] }
window = "7d"
ttl = "30d"
owner = "feed"
freshness = "5s"
"""


def of(text, path="f.toml"):
    return of_texts([(path, text)])


def test_a_definition_is_read_with_its_defaults():
    (one,) = of(GOOD)
    assert (one.identity, one.entity, one.window_ms, one.tiles, one.ttl_ms, one.owner, one.freshness_ms, one.place) == (
        "user_clicks_7d@1", ("user",), 7 * 86.4e6, 16, 30 * 86.4e6, "feed", 5000.0, "f.toml:2")
    assert one.where.actions == ("click", "like") and one.blank == 0.0 and one.state.words == 1 + 1 + 16


WRONG = {
    "unknown reducer": ('reducer = "count"', 'reducer = "cuont"', r"f.toml:4: feature user_clicks_7d: 'cuont' is no reducer"
                                                                  r" \(did you mean count\?\); they are count, sum"),
    "window without unit": ('window = "7d"', "window = 7", r'f.toml:6: .*window = 7 has no unit: write "7s"'),
    "window of a bare text": ('window = "7d"', 'window = "7"', r"f.toml:6: .*'7' has no unit"),
    "window of another unit": ('window = "7d"', 'window = "7 fortnights"', r"f.toml:6: .*'fortnights' is no unit; they are ms, s, m"),
    "source that does not exist": ("[feature.user_clicks_7d]", '[feature.user_clicks_7d]\nsource = "clicks"',
                                   r"f.toml:3: .*'clicks' is no source; there is interactions"),
    "misspelt key": ("owner", "ownr", r"f.toml:8: .*'ownr' is no key of a definition with reducer count \(did you mean owner\?\)"),
    "key of another reducer": ("owner", "bits = 3\nowner", r"f.toml:8: .*'bits' is no key of a definition with reducer count"),
    "entity of nothing": ('"user"', '"users"', r"f.toml:3: .*'users' is nothing that rows are kept of; write user, item"),
    "entity twice": ('"user"', '"user x user"', r"f.toml:3: .*one part, or two different ones"),
    "entity of three": ('"user"', '"user x item x scene"', r"f.toml:3: .*one part, or two different ones"),
    "both fades": ("owner", 'half_life = "1d"\nowner', r"f.toml:8: .*a window or a half_life, not both"),
    "condition of nothing": ("action =", "acton =", r"f.toml:5: .*where: 'acton' is nothing of an event \(did you mean action\?\)"),
    "action of a number": ('["click", "like"]', "3", r"f.toml:5: .*where: action is 3, not a text or a list of texts"),
    "name": ("user_clicks_7d]", '"User Clicks"]', r"f.toml:2: feature User Clicks: a name is small letters"),
    "built-in name": ("user_clicks_7d]", "user_lift]", r"f.toml:2: feature user_lift: that is a built-in feature's name"),
    "missing reducer": ('reducer = "count"\n', "", r"f.toml:2: .*reducer is missing"),
    "other table": ("[feature.user_clicks_7d]", "[features.user_clicks_7d]", r"f.toml:2: 'features' is nothing here"),
    "two of one name": ("[feature.user_clicks_7d]", '[feature.user_clicks_7d]\nreducer = "sum"\n[feature.user_clicks_7d]',
                        r"f.toml:4: \[feature.user_clicks_7d\] stands here a second time: two features of one name"),
    "no TOML": ("owner =", "owner", r"f.toml:8: no TOML"),
    "default": ("owner", "default = nan\nowner", r"f.toml:8: .*default is nan, not a finite number"),
    "version": ("owner", "version = 0\nowner", r"f.toml:8: .*version is 0, a whole number from 1"),
    "tiles of less than a millisecond": ('window = "7d"', 'window = "8ms"', r"f.toml:6: .*16 tiles of less than a millisecond"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_told_with_its_line(case):
    old, new, told = WRONG[case]
    assert old in GOOD
    with pytest.raises(DefinitionError, match=told):
        of(GOOD.replace(old, new))


@pytest.mark.parametrize(("more", "told"), [
    ('reducer = "ratio"', r"a ratio has `over`"),
    ('reducer = "last_n"\nvalue = "item"', r"n is missing: last_n gives the last n ids"),
    ('reducer = "last_n"\nn = 3', r"last_n has `value`: what it keeps: item, user, scene, or a column"),
    ('reducer = "last_n"\nn = 3\nvalue = "itme"', r"value is 'itme', expected item, user, scene"),
    ('reducer = "last_n"\nn = 65\nvalue = "item"', r"n is 65, expected a whole number from 1 to 64"),
    ('reducer = "last_n"\nn = 3\nvalue = "item"\ndefault = 1', r"last_n gives ids, of which none is the default"),
    ('reducer = "sum"\nvalue = "price"', r'value is \'price\', expected a number, "value" \(of the event\), or a column'),
    ('reducer = "sum"\nvalue = inf', r"value is inf, expected"),
    ('reducer = "distinct"\nvalue = "item"\nwindow = "1d"', r"'window' is no key of a definition with reducer distinct"),
])
def test_what_a_reducer_lacks_is_told(more, told):
    with pytest.raises(DefinitionError, match=told):
        of(f'[feature.one]\nentity = "user"\n{more}\n')


def test_a_function_is_a_definition_and_its_errors_have_its_line():
    text = ("from headrace.features.definitions import feature\n\n\n@feature(entity='item', reducer='sum', window='1h')\n"
            "def price(event):\n    '''What was paid.'''\n    return event['value'] if event['action'] == 'buy' else None\n")
    (one,) = of(text, "f.py")
    assert (one.name, one.about, one.place, one.function({"action": "buy", "value": 3.0})) == ("price", "What was paid.", "f.py:4", 3.0)
    spaced = of(text.replace("return", "return  ").replace("'buy'", '"buy"'), "f.py")[0]
    assert spaced.meaning == one.meaning, "how it is written does not matter"
    assert of(text.replace("buy", "sell"), "f.py")[0].meaning != one.meaning
    for old, new, told in (("reducer='sum'", "reducer='sums'", r"f.py:4: feature price: 'sums' is no reducer"),
                           ("window", "where={}, window", r"f.py:4: .*a function says itself which events it counts"),
                           ("return", "retrun", r"f.py:7: SyntaxError"),
                           ("\n\n\n", "\n1 / 0\n", r"f.py:2: ZeroDivisionError"),
                           ("@feature", "# @feature", r"f.py: .*(no function stands under @feature|unexpected indent)|f.py:\d+: ")):
        with pytest.raises(DefinitionError, match=told):
            of(text.replace(old, new), "f.py")


def test_a_name_in_two_files_is_told_with_both_places():
    with pytest.raises(DefinitionError, match=r"g.toml:2: feature user_clicks_7d@1 is defined a second time \(first at f.toml:2\)"):
        of_texts([("f.toml", GOOD), ("g.toml", GOOD)])
    both = of_texts([("f.toml", GOOD), ("g.toml", GOOD + "version = 2\n")])
    assert FeatureSet(both).numbers[-2:] == ("user_clicks_7d@1", "user_clicks_7d"), "the newest version has the plain name"


def test_files_that_are_not_there_or_of_another_kind(tmp_path):
    with pytest.raises(DefinitionError, match=re.escape(f"{tmp_path / 'no.toml'} cannot be read")):
        read([tmp_path / "no.toml"])
    with pytest.raises(DefinitionError, match=r"f.yaml: definitions are in files named .toml or .py"):
        of_texts([("f.yaml", "")])


def test_sets_are_told_apart_by_what_they_read():
    one, same, other = (FeatureSet.of((("f.toml", text),)) for text in (GOOD, GOOD.replace("feed", "shop"), GOOD.replace('"7d"', '"8d"')))
    assert one.name == same.name and one.name != other.name and one.name.startswith(f"{BASE.name}+") and BASE.name == "base@1"
    assert pickle.loads(pickle.dumps(one)).name == one.name
    assert FeatureSet.of((("f.toml", GOOD + "default = 2.0\n"),)).name != one.name


def test_a_set_has_bounds():
    many = "".join(f'[feature.f{n}]\nentity = "user"\nreducer = "count"\n' for n in range(257))
    with pytest.raises(DefinitionError, match=r"f.toml:769: 257 features; a set holds at most 256"):
        FeatureSet.of((("f.toml", many),))
    wide = "".join(f'[feature.f{n}]\nentity = "user"\nreducer = "last_n"\nvalue = "item"\nn = 64\n' for n in range(5))
    with pytest.raises(DefinitionError, match=r"320 ids in all; a set has at most 256"):
        FeatureSet.of((("f.toml", wide),))


@pytest.mark.parametrize(("text", "ms"), [("1ms", 1), ("30s", 30e3), ("1.5h", 5.4e6), ("2 d", 172.8e6), ("1w", 604.8e6)])
def test_durations(text, ms):
    assert milliseconds(text) == ms and milliseconds(written(ms)) == ms


@pytest.mark.parametrize("text", ["", "s", "-3s", "1e3s", "0s", "0.5ms", "9999w", "1h30m", None, True, [], 3.5])
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match=r"no duration|no unit|not within"):
        milliseconds(text)


def test_every_reducer_says_what_it_gives():
    assert all(reducer.meaning and (reducer.default is None or math.isfinite(reducer.default)) for reducer in REDUCERS.values())
