"""What the bench of features folds: 12 definitions of 3 entities, events that all 12 of them count, and the same 12 updates for Redis."""

from __future__ import annotations

from functools import cache

import numpy as np

from headrace.bench.redis_peer import request
from headrace.features.feature_set import VALUES, FeatureSet
from headrace.features.inputs import Inputs, columns_of, take
from headrace.features.layout import EVENT_COLUMNS, IMPRESSION
from headrace.rpc.causes import Causes
from headrace.schemas.hashing import event_key, feature_key

T0 = 1_790_000_000_000
EVENTS_A_MS = 20  # event time goes on as at 20,000 events/s
AUTHORS, CLICKED = 500, 0.2
TILE_MS = 225_000  # of an hour's 16
PING = b"PING\r\n"  # Redis answers it by PONG and a line's end, which no other answer here holds

DEFINITIONS = """
[feature.user_events_1h]
entity = "user"
reducer = "count"
window = "1h"
[feature.user_spent]
entity = "user"
reducer = "sum"
value = "value"
half_life = "1d"
[feature.user_mean]
entity = "user"
reducer = "mean"
value = "value"
[feature.user_last]
entity = "user"
reducer = "last_time"
[feature.user_items]
entity = "user"
reducer = "last_n"
value = "item"
n = 3
[feature.item_events]
entity = "item"
reducer = "count"
half_life = "1d"
[feature.item_rate]
entity = "item"
reducer = "ratio"
where = { action = "click" }
over = { action = "impression" }
prior = 0.1
weight = 5.0
half_life = "7d"
[feature.item_users]
entity = "item"
reducer = "distinct"
value = "user"
[feature.item_price]
entity = "item"
reducer = "lookup"
value = "item.price"
[feature.author_events]
entity = "user x item.author"
reducer = "count"
[feature.author_spent]
entity = "user x item.author"
reducer = "sum"
value = "value"
half_life = "7d"
[feature.author_last]
entity = "user x item.author"
reducer = "last_time"
"""


@cache
def feature_set() -> FeatureSet:
    return FeatureSet.of((("bench.toml", DEFINITIONS),))


class World:
    """Users and items by number, popular ones first, each item of one author and price; `frozen`: impressions come without features that
    they were served with, as from a log, and each is answered with its sample."""

    def __init__(self, users: int, items: int, seed: int = 1, *, frozen: bool = False) -> None:
        self.random, self.frozen = np.random.default_rng(seed), frozen
        self.users, self.items = (_keys(field, count) for field, count in (("user_id", users), ("item_id", items)))
        self.author = np.arange(items) % AUTHORS
        self.authors, self.price = _keys("item.author", AUTHORS), np.round(1.0 + np.arange(items) % 97 / 4, 2)

    def chosen(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the users and items of n events: users evenly, items as the square of an even number, so that some are met often."""
        return self.random.integers(0, len(self.users), n), (len(self.items) * self.random.random(n) ** 2).astype(np.int64)

    def events(self, user: np.ndarray, item: np.ndarray, value: np.ndarray, clicked: np.ndarray) -> dict[str, np.ndarray]:
        """The arrays of FeatureSet.event_columns of n events, whose times and ids `at` tells."""
        n = len(user)
        columns = {name: np.zeros([n if size is None else size for size in shape], dtype) for name, (dtype, shape) in EVENT_COLUMNS.items()}
        columns["action"][:] = np.where(clicked, IMPRESSION + 1, IMPRESSION)
        columns["served"][:] = 0 if self.frozen else ~clicked
        columns["user"], columns["item"], columns["value"] = self.users[user], self.items[item], value.astype(np.float32)
        columns["item_fields"][:, 0] = self.authors[self.author[item]]
        author = np.zeros((n, VALUES), np.uint64)
        author[:, 0] = columns["item_fields"][:, 0]
        blank = np.zeros((n, VALUES), np.uint64)
        inputs = Inputs(np.where(clicked, np.uint64(event_key("click")), np.uint64(event_key("impression"))),
                        np.full(n, feature_key("scene", "feed"), np.uint64), columns["user"], columns["item"], value,
                        {"item.author": author, "item.price": blank},
                        {"item.author": np.full(n, np.nan), "item.price": self.price[item]})
        return columns | columns_of(feature_set(), inputs, take(feature_set(), inputs))

    def some(self, n: int) -> dict[str, np.ndarray]:
        """n events by chance."""
        return self.events(*self.chosen(n), *self.outcome(n))

    def outcome(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Values and which are clicks, of n events."""
        return np.round(self.random.random(n) * 60, 2), self.random.random(n) < CLICKED


def at(events: dict[str, np.ndarray], rows: slice, first: int, source: int = 1) -> tuple[Causes, dict[str, np.ndarray]]:
    """Some rows of events as new ones: offsets, ids and times from `first` on."""
    part = {name: column[rows] for name, column in events.items()}
    n = len(part["user"])
    offset = np.arange(first, first + n)
    part["ts_ms"], part["event"] = T0 + offset // EVENTS_A_MS, (offset + 1).astype(np.uint64) | np.uint64(source << 48)
    return Causes(np.full(n, source, np.int32), np.zeros(n, np.int32), offset), part


def updates(user: int, item: int, author: int, value: float, clicked: bool, price: float, ts_ms: int) -> bytes:
    """The 12 updates of an event as Redis's commands, 13 of them: a list is pushed to and cut. Keys are short."""
    who, what, pair, much, now = b"u%d" % user, b"i%d" % item, b"p%d.%d" % (user, author), b"%.2f" % value, b"%d" % ts_ms
    return b"".join((
        request(b"HINCRBY", [who, b"t%d" % (ts_ms // TILE_MS % 16), b"1"]), request(b"HINCRBYFLOAT", [who, b"spent", much]),
        request(b"HINCRBYFLOAT", [who, b"sum", much]), request(b"HSET", [who, b"last", now]),
        request(b"LPUSH", [b"l%d" % user, what]), request(b"LTRIM", [b"l%d" % user, b"0", b"2"]),
        request(b"HINCRBYFLOAT", [what, b"events", b"1"]), request(b"HINCRBYFLOAT", [what, b"clicks" if clicked else b"shown", b"1"]),
        request(b"PFADD", [b"d%d" % item, who]), request(b"HSET", [what, b"price", b"%.2f" % price]),
        request(b"HINCRBY", [pair, b"events", b"1"]), request(b"HINCRBYFLOAT", [pair, b"spent", much]),
        request(b"HSET", [pair, b"last", now])))


def requests_of(world: World, user: np.ndarray, item: np.ndarray, value: np.ndarray, clicked: np.ndarray, size: int) -> list[bytes]:
    """Requests of `size` events' updates each, every one ended by a PING."""
    columns = (user, item, world.author[item], value, clicked, world.price[item], T0 + np.arange(len(user)) // EVENTS_A_MS)
    made = [updates(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]
    return [b"".join(made[start : start + size]) + PING for start in range(0, len(made), size)]


def _keys(field: str, count: int) -> np.ndarray:
    return np.array([feature_key(field, str(n)) for n in range(count)], np.uint64)
