"""A world as files: a log that replay takes, the truth beside it, materials, relations, every action, a summary.

The truth has a file of its own, with the log's rows as its only key: no mapping of the log can name it as a feature. The same scenario
and seed give the same bytes; floats are rounded, since the last digits of exp differ between processors.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.simulator import log as logs
from headrace.simulator import regret
from headrace.simulator.log import Log
from headrace.simulator.world import World

DIGITS = 6
MAPPING = """time_unit = "ms"
[columns]
user_id = "user_id"
item_id = "item_id"
ts = "ts_ms"
label = "click"
action = "click"
[context]
fields = ["daypart"]
[user]
fields = ["age", "speaks"]
[item]
fields = ["topic", "author", "language"]
"""


def write(world: World, folder: Path) -> dict[str, Any]:
    """Write log.parquet, mapping.toml, truth.parquet, materials.jsonl, relations.jsonl, actions.jsonl and summary.json into `folder`, which
    is made; returns the summary. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    log = logs.write(world)
    at = np.nonzero(log.logged)[0]
    pq.write_table(_log_table(world, log, at), folder / "log.parquet")
    pq.write_table(_truth_table(log, at), folder / "truth.parquet")
    (folder / "mapping.toml").write_text(MAPPING)
    _lines(folder / "materials.jsonl", (world.items.material(item) for item in np.argsort(world.items.born_ms, kind="stable").tolist()))
    _lines(folder / "relations.jsonl", sorted(relations(world, log, at), key=lambda one: one["ts_ms"]))
    _lines(folder / "actions.jsonl", sorted(actions(world, log, at), key=lambda one: one["ts_ms"]))
    figures = summary(world, log)
    (folder / "summary.json").write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
    return figures


def relations(world: World, log: Log, at: np.ndarray) -> Iterator[dict[str, Any]]:
    """Records of schemas/relations.avsc: who was followed before the world began, and the follows of the log."""
    users = world.users
    for user, place in zip(*(part.tolist() for part in np.nonzero(users.follows[: users.people])), strict=True):
        yield _relation(world, user, int(users.favourites[user, place]), world.start_ms)
    follows = at[log.outcome.follow[at]]
    for row in follows.tolist():
        delay = next(after for action, _, after in log.outcome.of(row) if action == "follow")
        yield _relation(world, int(log.user[row]), int(world.items.author[log.item[row]]), int(log.ts_ms[row]) + delay)


def actions(world: World, log: Log, at: np.ndarray) -> Iterator[dict[str, Any]]:
    """Every action of the log as an event of POST /events; `request_id` and `position` name the exposure."""
    active = at[log.outcome.reported[at] | log.outcome.hide[at]]
    for row in active.tolist():
        user, item, position, ts_ms = (int(column[row]) for column in (log.user, log.item, log.position, log.ts_ms))
        request = f"r{int(log.request[row]):08d}"
        for action, value, after in log.outcome.of(row):
            yield {"event_id": f"{request}:{position}:{action}", "request_id": request, "user_id": world.users.name(user),
                   "item_id": world.items.name(item), "action": action, "value": value, "position": position, "ts_ms": ts_ms + after}


def summary(world: World, log: Log) -> dict[str, Any]:
    """Counts, base rates, the optimum, and the regret of the editor's lists by day, of people's requests."""
    requests, people = world.requests, ~world.requests.bot
    exposed = log.logged & ~requests.bot[log.request]
    best, shown = log.best[people], log.shown[people]
    per_slot = world.slots
    return {
        "scenario": world.scenario.document(), "seed": world.seed, "start_ms": world.start_ms, "end_ms": world.end_ms,
        "requests": int(people.sum()), "requests_of_bots": int(requests.bot.sum()), "exposures": int(log.logged.sum()),
        "exposures_lost": int((~log.logged).sum()), "clicks": int(log.label[log.logged].sum()),
        "click_rate": round(float(log.label[exposed].mean()), DIGITS),
        "click_rate_best": round(float(best.mean()) / per_slot, DIGITS), "click_rate_shown": round(float(shown.mean()) / per_slot, DIGITS),
        "expected_clicks_best": round(float(best.mean()), DIGITS), "expected_clicks_shown": round(float(shown.mean()), DIGITS),
        "regret": round(float((best - shown).mean()), DIGITS),
        "calibration_of_truth": {name: value if value is None or isinstance(value, int) else round(value, 4) for name, value in
                                 regret.calibration((log.attraction * log.examination)[exposed], log.label[exposed].astype(float)).items()},
        "by_day": regret.windows(world.day(requests.ts_ms[people]), best, shown),
    }


def _log_table(world: World, log: Log, at: np.ndarray) -> pa.Table:
    users, items = world.users, world.items
    user_fields = [users.fields(user) for user in range(len(users))]
    item_fields = [items.fields(item) for item in range(len(items))]
    user, item = log.user[at].tolist(), log.item[at].tolist()
    parts = [world.context(hour * 3_600_000)["daypart"] for hour in range(24)]
    columns = {
        "user_id": [users.name(n) for n in user], "item_id": [items.name(n) for n in item], "ts_ms": log.ts_ms[at],
        "request": log.request[at], "position": log.position[at], "click": log.label[at].astype(np.int8),
        "age": [user_fields[n]["age"] for n in user], "speaks": [user_fields[n]["speaks"] for n in user],
        "topic": [item_fields[n]["topic"] for n in item], "author": [item_fields[n]["author"] for n in item],
        "language": [item_fields[n]["language"] for n in item],
        "daypart": [parts[hour] for hour in (log.ts_ms[at] // 3_600_000 % 24).tolist()],
    }
    return pa.table(columns)


def _truth_table(log: Log, at: np.ndarray) -> pa.Table:
    """Row n is of row n of the log. probability: given examined; click_probability: with examination; clicked: before labels were turned
    and the window closed; best: expected clicks of the request's best list."""
    return pa.table({
        "row": np.arange(len(at)), "probability": log.attraction[at].round(DIGITS), "examination": log.examination[at].round(DIGITS),
        "click_probability": (log.attraction * log.examination)[at].round(DIGITS), "examined": log.outcome.examined[at],
        "clicked": log.outcome.clicked[at], "delay_ms": log.outcome.delay_ms[at], "best": log.best[log.request[at]].round(DIGITS),
        "shown": log.shown[log.request[at]].round(DIGITS)})


def _relation(world: World, user: int, author: int, ts_ms: int) -> dict[str, Any]:
    return {"user_id": world.users.name(user), "author_id": world.items.author_name(author), "following": True, "ts_ms": ts_ms}


def _lines(file: Path, records: Iterable[dict[str, Any]]) -> None:
    with file.open("w", encoding="utf-8") as out:
        for record in records:
            out.write(json.dumps(record, ensure_ascii=False) + "\n")
