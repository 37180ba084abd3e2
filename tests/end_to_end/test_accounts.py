"""The accounts of a replay, counted from outside: topics by offset, shards row by row, labels from the file."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from headrace.features.layout import F
from headrace.schemas import mapping
from tests.end_to_end.outside import heartbeat

LIMIT = 8000
MAPPING = Path(__file__).parents[2] / "examples" / "kuairand.toml"


@pytest.fixture(scope="module")
def replayed(loop, on_stack, kuairand, tmp_path_factory):
    """(the report, what was there before, the file's rows in the order sent)."""
    before = {"offsets": {topic: loop.offsets(topic) for topic in ("interactions", "enriched", "samples", "dead-letters")},
              "applied": loop.applied(), "counts": loop.counts()}
    report = tmp_path_factory.mktemp("accounts") / "report.json"
    done = on_stack("replay", str(kuairand), "--mapping", str(MAPPING), "--clock", "now", "--speed", "max", "--limit", str(LIMIT),
                    "--report", str(report))
    assert done.returncode == 0, done.stderr
    table = pyarrow.parquet.read_table(kuairand, columns=["ts_ms", "is_click"])
    order = np.argsort(table["ts_ms"].to_numpy(), kind="stable")[:LIMIT]
    clicked = table["is_click"].to_numpy()
    return json.loads(report.read_text()), before, {int(row): bool(clicked[row]) for row in order}


def test_the_reports_identities(replayed):
    report, _, labels = replayed
    assert report["rows"] == report["impressions"] == len(labels) == LIMIT
    assert report["actions"] == report["positives"] == sum(labels.values())
    assert report["interactions_sent"] == report["interactions_decoded"] + report["dead_letters"]
    assert report["interactions_sent"] == report["impressions"] + report["actions"]
    assert report["samples"] == report["impressions"]
    assert report["samples_applied"] == [report["samples"]] * 2
    assert (report["dead_letters"], report["dead_letters_by_reason"]) == (0, {})
    assert sum(window["samples"] for window in report["windows"]) == report["samples"]


def test_interactions_by_offset(loop, replayed):
    report, before, labels = replayed
    start, stop = before["offsets"]["interactions"], loop.offsets("interactions")
    rows = loop.read("interactions", start, stop)
    assert len(rows) == sum(stop[p] - start[p] for p in stop)  # no offset is a hole, so offsets are records
    sent = [row for row in rows if not heartbeat(row)]
    assert len(sent) == report["interactions_sent"]
    assert sum(row.record["action"] == "impression" for row in sent) == report["impressions"]
    assert {row.record["event_id"].split("-")[1] for row in sent if row.record["action"] == "click"} == {
        str(row) for row, label in labels.items() if label}
    decoded = {(row.record["partition"], row.record["offset"]) for row in loop.read("enriched", before["offsets"]["enriched"])
               if not heartbeat(row)}
    assert decoded == {(row.partition, row.offset) for row in sent}
    assert len(decoded) == report["interactions_decoded"]
    assert loop.offsets("dead-letters") == before["offsets"]["dead-letters"]


def test_samples_and_positives_by_cause(loop, replayed):
    report, before, labels = replayed
    sent = {(row.partition, row.offset): row.record for row in loop.read("interactions", before["offsets"]["interactions"])}
    samples = loop.samples(before["offsets"]["samples"])
    assert len(samples) == report["samples"]
    assert len({source for source, _, _ in samples}) == 1
    learnt = {}
    for (_, partition, offset), sample in samples.items():
        cause = sent[partition, offset]
        assert (cause["action"], cause["event_id"]) == ("impression", sample["event_id"])
        assert (cause["user_id"], cause["item_id"], cause["ts_ms"]) == (sample["user_id"], sample["item_id"], sample["ts_ms"])
        learnt[int(cause["event_id"].split("-")[1])] = sample["label"] == 1.0
    assert learnt == labels


def test_the_integer_table_and_every_shard(loop, replayed):
    report, before, _ = replayed
    assert loop.counts() - before["counts"] == report["samples"] * F
    assert [now - then for now, then in zip(loop.applied(), before["applied"], strict=True)] == [report["samples"]] * 2


def test_the_mapping_is_the_example(kuairand):
    """`headrace data get` writes the mapping that examples/ shows."""
    assert mapping.load(kuairand.parent / "mapping.toml") == mapping.load(MAPPING)
