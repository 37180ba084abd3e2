"""Lineage by hand: what lies upstream and downstream, each flow once though the loop closes."""

import json

import pytest

from headrace import cli
from headrace.catalog.flows import Flow, flows, lineage, places, readers, writers
from headrace.config import Config

CHAIN = [Flow("one", "job", ("a",), ("b",)), Flow("two", "job", ("b", "side"), ("c",)), Flow("three", "role", ("c",), ("d",)),
         Flow("back", "role", ("d",), ("a",)), Flow("other", "job", ("x",), ("side",))]


def test_each_flow_once_and_the_depth_of_each():
    steps = lineage(CHAIN, "b")
    assert [(one.depth, one.flow) for one in steps] == [(-5, "other"), (-4, "two"), (-3, "three"), (-2, "back"), (-1, "one"), (1, "two"),
                                                         (2, "three"), (3, "back"), (4, "one")]
    assert next(one.flow for one in lineage(CHAIN, "side")) == "other"
    assert [flow.name for flow in writers(CHAIN, "c")] == ["two"] and [flow.name for flow in readers(CHAIN, "c")] == ["three"]


def test_every_topic_of_the_stack_is_made_by_somebody_or_comes_from_outside():
    table = flows(Config(lake={"enabled": True}))
    nobody = {place for place in places(table) if not writers(table, place)}
    assert nobody == set(), "every place that is read is written by a flow"
    assert {step.flow for step in lineage(table, "lake") if step.depth < 0} >= {"lake", "samples", "features", "engine"}


def run(capsys, *arguments, code=0):
    with pytest.raises(SystemExit) as ended:
        cli.main(["data", *map(str, arguments)])
    assert (ended.value.code or 0) == code
    return capsys.readouterr()


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = run(capsys, "lineage", "ps/fm/weights").out
    assert "samples -> job train -> ps/fm, touched.fm" in said and "[ps/fm]" in said and "job vectors -> vectors" in said
    told = json.loads(run(capsys, "lineage", "samples", "--json").out)
    assert {"enriched", "samples"} <= {one for step in told["steps"] for one in (*step["of"], *step["to"])}
    assert "the nearest is 'samples'" in run(capsys, "lineage", "sampls", code=2).err
