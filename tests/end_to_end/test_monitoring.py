"""The alert rules and the dashboard of examples/monitoring: every metric and label in them is one that a running stack exports."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from headrace.config import Config
from headrace.watch.figures import Exported
from tests.end_to_end.outside import until

FOLDER = Path(__file__).parents[2] / "examples" / "monitoring"
OF_PROMETHEUS = {"up": {"job", "instance", "role"}}
ADDED = {"job", "instance", "role"}  # by the scrape


def expressions() -> dict[str, str]:
    rules = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    found = {rule["alert"]: rule["expr"] for group in rules for rule in group["rules"]}
    for panel in json.loads((FOLDER / "grafana.json").read_text())["panels"]:
        found |= {f"{panel['title']} {target['refId']}": target["expr"] for target in panel["targets"]}
    return found


@pytest.fixture(scope="module")
def exported(loop) -> dict[str, dict[str, set[str]]]:
    """sample name -> label -> values, of every role."""
    config = loop.config
    loop.post("/events", {"user_id": "m", "item_id": "m", "action": "impression"})
    for port, sign in ((config.features.http_port, 'status="folded"'), (config.ann.http_port, "headrace_ann_vectors_total{")):
        page = f"http://127.0.0.1:{port}/metrics"  # a label is exported from its first value on
        until(lambda page=page, sign=sign: sign in httpx.get(page, timeout=10).text, f"{sign} on {page}")
    urls = [config.engine.url, *(f"http://127.0.0.1:{port}" for port in (
        config.features.http_port, *config.replica.http_ports, config.ann.http_port, *config.ps.http_ports))]
    pages = [httpx.get(f"{url}/metrics", timeout=10).text for url in urls]
    found: dict[str, dict[str, set[str]]] = {}
    families = [family for page in pages for family in text_string_to_metric_families(page)]
    figures = {"auc": 0.7, "logloss": 0.5, "samples": 10}
    half = SimpleNamespace(figures=lambda: figures)
    watcher = SimpleNamespace(learner=half, ours=half, theirs=half, outcomes=Counter(scored=1))
    families += list(Exported(watcher, {("adwin", "log-loss"): 1}, lambda: figures).collect())
    for family in families:
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    # A hop has no quantiles before something came by it.
    found.setdefault("headrace_hop_ms", {}).setdefault("quantile", set()).update({"0.5", "0.99"})
    found["headrace_hop_ms"].setdefault("hop", {"gradient"})
    return found


@pytest.mark.parametrize("name", expressions())
def test_an_expression_names_what_is_exported(exported, name):
    expression = expressions()[name]
    metrics = re.findall(r"\b((?:headrace|process)_[a-z_0-9]+|up)\b", expression)
    assert metrics, expression
    known = {**{metric: set(labels) | ADDED for metric, labels in exported.items()}, **OF_PROMETHEUS}
    for metric in metrics:
        assert metric in known, f"{metric} of {name} is exported by nobody"
    labels = set().union(*(known[metric] for metric in metrics))
    for group in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression):
        assert {label.strip() for label in group.split(",") if label.strip()} <= labels | {"le"}, f"{name}: {group}"
    for metric, matchers in re.findall(r"((?:headrace|process)_[a-z_0-9]+)\{([^}]*)\}", expression):
        for label, how, value in re.findall(r"(\w+)(=~|=)\"([^\"]*)\"", matchers):
            assert label in known[metric], f"{name}: {metric} has no label {label}"
            if how == "=" and label in exported[metric] and label != "outcome":
                assert value in exported[metric][label], f"{name}: {metric} never has {label} {value!r}"


def test_the_scrape_names_every_role_at_its_default_port():
    config = Config()
    wanted = {"engine": {config.engine.url.rsplit(":", 1)[1]}, "ps": set(map(str, config.ps.http_ports)),
              "replica": set(map(str, config.replica.http_ports)),
              **{role: {str(getattr(config, role).http_port)} for role in ("features", "ann", "watch")}}
    scraped = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"][0]["static_configs"]
    assert {one["labels"]["role"]: {target.rsplit(":", 1)[1] for target in one["targets"]} for one in scraped} == wanted
