"""A mapping proposed for a file: what is found by name and by value, what is left out and why, and that it can be replayed."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from headrace.guess import NoGuess, guess, known_as
from headrace.rows import load
from headrace.schemas import mapping as mappings
from headrace.schemas.mapping import tomllib

ROWS = 600


def log(seed=1, **more):
    """A log of 30 users and 40 items: users have ages, items genres, exposures a device; likes come with clicks."""
    random = np.random.default_rng(seed)
    user, item = random.integers(0, 30, ROWS), random.integers(0, 40, ROWS)
    click = random.random(ROWS) < 0.4
    columns = {
        "userId": [f"u{one}" for one in user], "movieId": item.tolist(), "timestamp": (1_500_000_000 + np.arange(ROWS) * 7).tolist(),
        "clicked": click.astype(int).tolist(), "age": (20 + user % 5).tolist(), "genres": [("a|b", "b|c", "c")[one % 3] for one in item],
        "device": [("ios", "web")[one] for one in random.integers(0, 2, ROWS)], "is_like": (click & (random.random(ROWS) < 0.5)).tolist(),
        "row": list(range(ROWS)), "country": ["de"] * ROWS, "price": random.random(ROWS).tolist(), **more}
    return pa.table(columns)


def proposed(tmp_path, table, name="log.parquet"):
    path = tmp_path / name
    if name.endswith("parquet"):
        pa.parquet.write_table(table, path)
    elif name.endswith("csv"):
        pa.csv.write_csv(table, path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    made, rows = guess(path)
    text = made.text(str(path), rows)
    mapping = mappings.parse(tomllib.loads(text))
    assert len(load(path, mapping)) == rows == table.num_rows
    return mapping, made, text


@pytest.mark.parametrize("name", ["log.parquet", "log.csv", "log.jsonl"])
def test_columns_are_placed_by_what_determines_them(tmp_path, name):
    mapping, made, text = proposed(tmp_path, log(), name)
    assert (mapping.user_id, mapping.item_id, mapping.ts, mapping.time_unit) == ("userId", "movieId", "timestamp", "s")
    assert (mapping.label.column, mapping.label.operator, mapping.label.number) == ("clicked", "!=", 0)
    assert (mapping.user, mapping.item, mapping.item_separator, mapping.context) == (("age",), ("genres",), "|", ("device",))
    assert "known only after" in made.left["is_like"] and "cut it" in made.left["row"] and "cut it" in made.left["price"]
    assert "one value" in made.left["country"] and "one value for each user" in text


def test_a_rating_is_cut_nearest_to_a_half(tmp_path):
    rating = [1, 2, 3, 4, 4, 5] * (ROWS // 6)
    mapping, _, text = proposed(tmp_path, log().drop_columns(["clicked", "is_like"]).append_column("rating", [rating]))
    assert (mapping.label.column, mapping.label.operator, mapping.label.number) == ("rating", ">=", 4)
    assert "50.0% of rows" in text


def test_what_tells_the_label_is_no_feature(tmp_path):
    table = log()
    table = table.append_column("outcome_code", [[f"c{2 * click + row % 2}" for row, click in enumerate(table["clicked"].to_pylist())]])
    _, made, _ = proposed(tmp_path, table)
    assert "its values tell 'clicked'" in made.left["outcome_code"]


@pytest.mark.parametrize(("times", "unit"), [
    ([1_500_000_000_000 + row for row in range(ROWS)], "ms"),
    ([f"2024-01-{1 + row % 28:02d} 10:00:{row % 60:02d}" for row in range(ROWS)], ""),
    (pa.array([1_500_000_000 + row for row in range(ROWS)], pa.timestamp("s")), ""),
])
def test_times_know_their_unit(tmp_path, times, unit):
    mapping, made, _ = proposed(tmp_path, log().drop_columns(["timestamp"]).append_column("event_time", [times]))
    assert (mapping.ts, made.time_unit) == ("event_time", unit)
    assert not unit or mapping.time_unit == unit
    assert ("time_unit" in made.text("log", ROWS)) == bool(unit), "a time of its own needs none"


@pytest.mark.parametrize(("gone", "says"), [
    ("userId", "the user"), ("movieId", "the item"), ("timestamp", "the time"), ("clicked", "label")])
def test_what_is_not_found_is_named_with_the_columns(tmp_path, gone, says):
    pa.parquet.write_table(log().drop_columns([gone, "is_like"]), tmp_path / "f.parquet")
    with pytest.raises(NoGuess, match=f"{says}.*its columns: .*device"):
        guess(tmp_path / "f.parquet")


def test_names_are_known_in_all_their_writings():
    assert {known_as(name) for name in ("userId", "UserID", "user-id", "user id", "USER_ID")} <= {"user_id", "user_i_d", "userid"}
    assert known_as("userId") == known_as("User Id") == "user_id"


@pytest.mark.parametrize(("user", "item", "at", "label"), [
    ("member", "product", "when", "bought"), ("Viewer", "Film", "occurredAt", "isBought"), ("buyer_id", "asset", "at", "purchase"),
    ("reader", "article", "ts", "accepted")])
def test_names_that_shops_and_papers_use(tmp_path, user, item, at, label):
    given = log().select(["userId", "movieId", "timestamp", "clicked", "device"])
    table = given.rename_columns([user, item, at, label, "device"])
    mapping, _, _ = proposed(tmp_path, table)
    assert (mapping.user_id, mapping.item_id, mapping.ts, mapping.label.column) == (user, item, at, label)
