"""The accounts of a replay, counted from outside: records of topics, and the integer table of the parameter server row by row."""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace.choice import learnt
from headrace.features.layout import F
from headrace.models.choice import EVERY, Choice
from headrace.rows import Rows
from headrace.rpc.client import Client
from headrace.taps import Mark, Taps


def accounts(report: dict[str, Any], rows: Rows, extra_positives: int, taps: Taps, mark: Mark,
             addresses: list[str], choice: Choice = EVERY) -> list[dict[str, Any]]:
    """Each account with both sides. `extra_positives`: clicks emitted beside the file; `choice` of the samples that are learnt."""
    labelled = int(rows.label.sum()) + extra_positives
    positives, strangers, left_out = by_cause(taps, mark, rows, choice)
    of = "samples x slots" if choice == EVERY else "samples learnt x slots"
    known = report["interactions_decoded"] + report["dead_letters"]
    checks = [
        ("interactions sent = decoded + dead letters", report["interactions_sent"], known),
        ("impressions = samples in the topic, by distinct cause", report["impressions"], report["samples"]),
        ("positives in samples = labelled impressions of the file, and the demo's clicks", positives, labelled),
        ("samples whose label differs from the file's row, by cause", strangers, 0),
        (f"sum of the parameter server's counts = {of}",
         sum(counts_sum(address, taps.model) for address in addresses), (report["samples"] + min(mark.applied) - left_out) * F),
    ]
    checks += [(f"samples applied by shard {i}", applied, report["samples"]) for i, applied in enumerate(report["samples_applied"])]
    return [{"account": name, "left": int(left), "right": int(right), "agree": int(left) == int(right)} for name, left, right in checks]


def by_cause(taps: Taps, mark: Mark, rows: Rows, choice: Choice = EVERY) -> tuple[int, int, int]:
    """(positive samples by distinct cause, samples of the file whose label is not their row's, samples that are not learnt)."""
    highs = {topic: taps.highs(topic) for topic in ("interactions", "samples")}
    seen: set[tuple[int, int, int]] = set()
    positives = wrong = left_out = 0
    prefix = f"{rows.digest[:8]}-"
    label_of = dict(zip(rows.row.tolist(), rows.label.tolist(), strict=True))
    for sample in taps.read("samples", mark.offsets["samples"], highs["samples"]):
        cause = (sample["source"], sample["partition"], sample["offset"])
        if cause in seen:
            continue
        seen.add(cause)
        positives += sample["label"] >= 0.5
        left_out += not learnt(choice, [sample])
        if sample["event_id"].startswith(prefix):
            wrong += label_of[int(sample["event_id"].split("-")[1])] != (sample["label"] >= 0.5)
    return positives, wrong, left_out


def counts_sum(address: str, model: str) -> int:
    """Sum over the rows of table `counts` of one shard, exported row by row."""
    client = Client(address)
    total, cursor = 0, 0
    while cursor >= 0:
        header, arrays = client.call("export", {"model": model, "table": "counts", "cursor": cursor})
        total += int(np.sum(arrays["values"], dtype=np.int64))
        cursor = header["cursor"]
    client.close()
    return total
