"""What a stream left behind, counted from outside: records of topics by cause, tables of the shards by key, and the file it came from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.choice import learnt
from headrace.features.client import FeatureClient
from headrace.models.choice import EVERY, Choice
from headrace.ps.client import ParameterClient
from headrace.ps.encoding import served_as
from headrace.recompute.join import Report
from headrace.rows import Rows
from headrace.rpc.client import Client
from headrace.schemas.hashing import feature_key
from headrace.taps import Taps

Cause = tuple[int, int, int]
Record = dict[str, Any]
Check = dict[str, Any]
POSITIVE = ("click", "like", "repost", "comment", "follow")


@dataclass
class Left:
    """What lies in the topics of a stack that was new. enriched: the first copy by cause, heartbeats aside; samples: the first by cause;
    dead: reasons by (partition, offset) in interactions; copies: further records of a cause; unlike: copies that differ from the first."""

    enriched: dict[Cause, Record]
    samples: dict[Cause, Record]
    dead: dict[tuple[int, int], set[str]]
    copies: dict[str, int]
    unlike: int


def read(taps: Taps) -> Left:
    """All of `enriched`, `samples` and `dead-letters`."""
    left = Left({}, {}, {}, {"enriched": 0, "samples": 0}, 0)
    for record in _all(taps, "enriched"):
        if record["action"] == "heartbeat":
            continue
        first = left.enriched.setdefault(cause_of(record), record)
        if first is not record:
            left.copies["enriched"] += 1
            left.unlike += first != record
    for record in _all(taps, "samples"):
        first = left.samples.setdefault(cause_of(record), record)
        left.copies["samples"] += first is not record
    for record in _all(taps, "dead-letters"):
        if record["topic"] == "interactions":
            left.dead.setdefault((record["partition"], record["offset"]), set()).add(record["reason"])
    return left


def cause_of(record: Record) -> Cause:
    return record["source"], record["partition"], record["offset"]


def checks(left: Left, rows: Rows, taps: Taps, addresses: list[str], features: str,
           report: Report | None = None, choice: Choice = EVERY) -> list[Check]:
    """Each account of the first `len(rows)` rows of the file with both sides: what was sent, and what was found. What was refused as late
    is in `report`, which has joined the log again: an exposure that was has no sample, and an action that was labels none. Rows of the
    parameter server are of the samples that are learnt by `choice`."""
    impressions = {cause: record for cause, record in left.enriched.items() if record["action"] == "impression"}
    labels = _labels(rows)
    wrong = sum(labels.get(record["event_id"]) != (record["label"] >= 0.5) for record in left.samples.values())
    lost = set(impressions) - set(left.samples)
    actions = len(left.enriched) - len(impressions)
    accounts = report.accounts if report is not None else {}
    late = accounts.get("exposures late", 0)
    unlabelled = accounts.get("actions late", 0) + accounts.get("actions without exposure", 0)
    wrong += sum(labels.get(impressions[cause]["event_id"], False) for cause in lost)
    kept = len(rows) - late
    made = [
        ("impressions in enriched, by cause", len(impressions), len(rows)),
        ("actions in enriched, by cause", actions, rows.positives),
        ("event ids in enriched", len({record["event_id"] for record in left.enriched.values()}), len(rows) + rows.positives),
        ("copies in enriched that differ from the first of their cause", left.unlike, 0),
        ("samples, by cause", len(left.samples), kept),
        ("exposures without a sample, by cause", len(lost), late),
        ("exposures whose label differs from the file's row", wrong, unlabelled),
        ("positive samples", sum(record["label"] >= 0.5 for record in left.samples.values()), rows.positives - unlabelled),
        ("interactions refused that were never enriched", sum(not _known(left, at) for at in left.dead), 0),
    ]
    made += [(f"samples applied by shard {shard}", applied, kept) for shard, applied in enumerate(taps.applied())]
    made += _parameters(learnt(choice, list(left.samples.values())), taps.model, addresses) + _totals(rows, features)
    return [check(*one) for one in made]


def joined(report: Report, interactions: int, retries: int) -> list[Check]:
    """The accounts of the log joined again, of `interactions` sent once and `retries` of them sent again."""
    accounts = report.accounts
    return [check("interactions in the topic", report.sent, interactions + retries),
            check("interactions accounted for", report.accounted, report.sent),
            check("retries dropped", accounts["retries"], retries),
            check("rows that differ from the log joined again", report.mismatches, 0),
            check("exposures, actions and interactions still open",
                  sum(accounts[name] for name in ("exposures open", "actions open", "not read yet")), 0)]


def check(name: str, found: int, expected: int) -> Check:
    return {"check": name, "found": int(found), "expected": int(expected), "agree": int(found) == int(expected)}


def served(model: str, addresses: list[str], copies: list[list[str]], encoding: str) -> Check:
    """Rows that differ by a byte from the training shards' as `encoding` serves them, of every copy: the addresses of its serving shards.
    Asked once everything has been published."""
    clients, differing = [ParameterClient(copy) for copy in copies], 0
    try:
        for keys, values in exported(model, "weights", addresses):
            for client in clients:
                there, _ = client.pull(model, "weights", keys)
                differing += int((_bytes(there) != _bytes(served_as(values, encoding))).any(axis=1).sum())
    finally:
        for client in clients:
            client.close()
    return check("rows served that differ from those trained", differing, 0)


def _bytes(rows: np.ndarray) -> np.ndarray:
    """uint8[n, bytes of a row]: NaN equals itself, and -0 is not 0."""
    return rows.view(np.uint8).reshape(len(rows), -1)


def exported(model: str, table: str, addresses: list[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(keys uint64[n], values [n, dim]) of every page of a table, shard by shard."""
    for address in addresses:
        client, cursor = Client(address), 0
        while cursor >= 0:
            header, arrays = client.call_until(30.0, "export", {"model": model, "table": table, "cursor": cursor})
            cursor = header["cursor"]
            yield arrays["keys"].copy(), np.ascontiguousarray(arrays["values"])
        client.close()


def _all(taps: Taps, topic: str) -> Iterator[Record]:
    highs = taps.highs(topic)
    return taps.read(topic, dict.fromkeys(highs, 0), highs)


def _labels(rows: Rows) -> dict[str, bool]:
    """event_id of each row's impression -> its label."""
    return {f"{rows.digest}-{row}-i": bool(label) for row, label in zip(rows.row.tolist(), rows.label.tolist(), strict=True)}


def _known(left: Left, at: tuple[int, int]) -> bool:
    """Whether an interaction that has a dead letter was enriched all the same: a copy of it came late, after its sample was made."""
    return any((source, *at) in left.enriched for source in {cause[0] for cause in left.enriched})


def _parameters(samples: list[Record], model: str, addresses: list[str]) -> list[tuple[str, int, int]]:
    keys = np.frombuffer(b"".join(sample["feature_keys"] for sample in samples), "<u8")
    wanted, times = np.unique(keys, return_counts=True)
    return parameters(wanted, times, model, addresses)


def parameters(wanted: np.ndarray, times: np.ndarray, model: str, addresses: list[str]) -> list[tuple[str, int, int]]:
    """The integer table `counts`, key by key: each of the samples' keys `wanted` uint64[u], in order, as often as they carry it."""
    parts = list(exported(model, "counts", addresses))
    held = np.concatenate([part for part, _ in parts])
    counts = np.concatenate([values[:, 0] for _, values in parts])
    order = np.argsort(held)
    same = len(held) == len(wanted) and bool((held[order] == wanted).all())
    differing = int((counts[order] != times).sum()) if same else len(np.setxor1d(held, wanted))
    return [("keys of the parameter server's counts", len(held), len(wanted)), ("keys whose count differs from the samples'", differing, 0),
            ("sum of the counts", int(counts.sum()), int(times.sum()))]


def _totals(rows: Rows, address: str) -> list[tuple[str, int, int]]:
    made = []
    for of, column in (("user", rows.user), ("item", rows.item)):
        names, index = np.unique(np.array(column.to_pylist(), object).astype(str), return_inverse=True)
        shown = np.bincount(index, minlength=len(names))
        clicked = np.bincount(index, weights=rows.label, minlength=len(names)).astype(np.int64)
        made.append(totals(of, names.tolist(), shown, clicked * (rows.action in POSITIVE), address))
    return made


def totals(of: str, names: list[str], shown: np.ndarray, clicked: np.ndarray, address: str) -> tuple[str, int, int]:
    """Impressions and clicks in the feature store of every `of` (user, item) of `names`, against `shown` and `clicked` int64[n]."""
    client = FeatureClient(address)
    try:
        held = client.totals(of, np.array([feature_key(f"{of}_id", name) for name in names], np.uint64))
        differing = int(((held["impressions"] != shown) | (held["clicks"] != clicked)).sum())
        return (f"{of}s whose impressions or clicks differ from the file's", differing, 0)
    finally:
        client.close()
