"""The declared flows are what the jobs and roles really read and write."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

pytest.importorskip("pyflink")

from headrace import serve
from headrace.catalog import flows
from headrace.config import Config, Model
from headrace.streaming import ingest
from headrace.streaming.tables import Connection

TOP = Path(__file__).parents[2]
CONFIGS = [Config(), Config(samples={"strategy": "eager"}), Config(samples={"strategy": "fast"}, models={"lr": Model(name="lr")}),
           Config(lake={"enabled": True}, watch={"enabled": True})]
STORES = ("features", "ps/", "replica/", "vectors-index", "lake")


def topics(places):
    return {one for one in places if not one.startswith(STORES)}


def of_job(job):
    """(topic -> group of each source, topics of the sinks), as the statements of a job say."""
    tables = {}
    for text in job.tables(Connection("", "")):
        name, topic, group = (re.search(pattern, text) for pattern in
                              (r"TABLE (\w+)", r"'topic' = '([^']+)'", r"'properties.group.id' = '([^']+)'"))
        tables[name[1]] = (topic[1], group and group[1])
    into = {found[1] for text in job.inserts for found in re.finditer(r"INSERT INTO (\w+)", text)}
    return ({topic: group for name, (topic, group) in tables.items() if name not in into}, {tables[name][0] for name in into})


@pytest.mark.parametrize("config", CONFIGS, ids=["wait", "eager", "fast", "roles"])
def test_jobs(config, monkeypatch):
    declared = {flow.name: flow for flow in flows.flows(config) if flow.kind == "job"}
    made = {}
    for name in ("features", "samples", "train", "vectors"):
        module = importlib.import_module(f"headrace.jobs.{name}")
        monkeypatch.setattr(module, "source", lambda config, topic: 7, raising=False)
        made[name] = module.job(config)
    for other in config.models.values():
        job = importlib.import_module("headrace.jobs.train").job(config, other)
        made[job.name] = job
    assert made.keys() == declared.keys()
    for name, job in made.items():
        groups, into = of_job(job)
        by_hand = set() if name == "samples" else {"dead-letters"}
        assert dict(declared[name].groups) == groups and topics(declared[name].reads) == set(groups)
        assert topics(declared[name].writes) == into | by_hand


def test_what_stages_send_themselves():
    sending = {file.name for file in (TOP / "streaming").glob("*.py") if "dead_letters.send(" in file.read_text()}
    assert sending == {"featurize.py", "learn.py", "vectorize.py"}, "the stages of features, train and vectors"
    written = set(re.findall(r'records(?:\.append\(| \+= \[)\("([\w-]+)"', (TOP / "streaming" / "ingest.py").read_text()))
    [found] = [flow for flow in flows.flows(Config(), {"ingest-shop": "shop"}) if flow.name == "ingest-shop"]
    assert written == set(found.writes) == {"interactions", "dead-letters"} and found.reads == ("shop",)
    assert "shop" in "".join(ingest.tables(Connection("", ""), "shop", "g"))


def test_roles():
    config = Config(lake={"enabled": True}, watch={"enabled": True})
    declared = {flow.name: flow for flow in flows.flows(config) if flow.kind == "role"}
    given = {"exposures": "enriched", "samples": "samples", "source": "samples", "events": "interactions"}
    for name in serve.ROLES:
        asks = inspect.signature(importlib.import_module(f"headrace.roles.{name}").start).parameters
        topics_read = {given[one] for one in asks if one in given}
        if "consume" in asks:
            topics_read.add(serve.consumer(config, name).args[1])
        flow = declared.get(name)
        assert topics(flow.reads if flow else ()) == topics_read, name
        assert ("publish" in asks) == (flow is not None and any(one.startswith("weights.") for one in flow.writes)), name
    with_standby = {flow.name: flow for flow in flows.flows(Config(ps={"standbys": ["127.0.0.1:1", "127.0.0.1:2"]}))}
    assert "ps-owners" in with_standby["ps"].reads and "ps-owners" in with_standby["ps"].writes
