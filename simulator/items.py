"""The items: born, alive for hours to days, dead; each of an author, in a language, about a topic or two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.simulator.dice import generator, uniform
from headrace.simulator.scenario import Scenario
from headrace.simulator.tastes import DAY_MS
from headrace.simulator.texts import LANGUAGES, compose, topic_names

HOUR_MS = 3_600_000
SPAM_QUALITY = -2.5


@dataclass(frozen=True)
class Items:
    """n items, the last `spam` of them spam.

    topics float64[n, topics] weights that sum to 1, tag int64[n] the topic that its producer named, author int64[n], language int64[n],
    quality float64[n] in log-odds, born_ms and dies_ms int64[n]: alive at t when born <= t < dies.
    """

    topics: np.ndarray
    tag: np.ndarray
    author: np.ndarray
    language: np.ndarray
    quality: np.ndarray
    born_ms: np.ndarray
    dies_ms: np.ndarray
    spam: int
    seed: int

    def __len__(self) -> int:
        return len(self.tag)

    def name(self, item: int) -> str:
        return f"i{item:06d}"

    def author_name(self, author: int) -> str:
        return f"a{author:05d}"

    def live(self, ts_ms: int) -> np.ndarray:
        """int64: the items alive at a time."""
        return np.nonzero((self.born_ms <= ts_ms) & (ts_ms < self.dies_ms))[0]

    def fields(self, item: int) -> dict[str, str]:
        """What a platform knows of an item beside its text; neither its quality nor its second topic."""
        return {"topic": topic_names(self.topics.shape[1])[self.tag[item]], "author": self.author_name(int(self.author[item])),
                "language": LANGUAGES[self.language[item]]}

    def material(self, item: int) -> dict[str, Any]:
        """The item as a record of schemas/materials.avsc, said when it is born. Its `quality` is that of all: the truth stays here."""
        fields = self.fields(item)
        purposes = ("template", "first", "second")
        chances = np.array([uniform(self.seed, f"text.{name}", np.array([item]), np.array([0]))[0] for name in purposes])
        return {"item_id": self.name(item), "deleted": False, "kind": "post", "author_id": fields["author"],
                "text": compose(int(self.tag[item]), fields["language"], chances), "tags": [fields["topic"]], "fields": fields,
                "publish_ts_ms": int(self.born_ms[item]), "expire_ts_ms": int(self.dies_ms[item]), "audit": "approved", "quality": 1.0,
                "vector": None, "ts_ms": int(self.born_ms[item])}


def draw(scenario: Scenario, seed: int, start_ms: int) -> Items:
    """The items of a scenario, from the seed alone; as many are alive at the start as later."""
    rng, settings, size = generator(seed, "items"), scenario.items, scenario.size
    spam = scenario.spam.items if scenario.spam else 0
    n = size.items
    of_author = rng.integers(0, size.topics, size.authors)  # what an author writes of, mostly
    skill, speaks = rng.normal(0.0, 0.5, size.authors), rng.random(size.authors) >= settings.chinese
    author = _zipf(rng, size.authors, n)
    first = np.where(rng.random(n) < 0.7, of_author[author], rng.integers(0, size.topics, n))
    second = (first + rng.integers(1, size.topics, n)) % size.topics
    topics = np.zeros((n, size.topics))
    topics[np.arange(n), first] = 1 - settings.second_topic
    topics[np.arange(n), second] += settings.second_topic
    tag = np.where(rng.random(n) < settings.mistagged, rng.integers(0, size.topics, n), first)
    quality = scenario.clicks.quality_scale * (skill[author] + np.sqrt(0.75) * rng.normal(size=n))
    life = np.clip(settings.life_h * np.exp(settings.life_sigma * rng.normal(size=n) - settings.life_sigma**2 / 2), 2, 24 * size.days)
    # Deaths spread evenly over the world and one life behind it: then births are even too, and the world begins as it goes on.
    dies = start_ms + (rng.random(n) * (size.days * DAY_MS + life * HOUR_MS)).astype(np.int64)
    born = dies - (life * HOUR_MS).astype(np.int64)
    if scenario.cold_start:
        wave = scenario.cold_start
        late = np.nonzero(rng.random(n) < wave.items)[0]
        born[late] = start_ms + (wave.day * DAY_MS + wave.hours * HOUR_MS * rng.random(len(late))).astype(np.int64)
        dies[late] = born[late] + (life[late] * HOUR_MS).astype(np.int64)
    made = Items(topics, tag, author, speaks[author].astype(np.int64), quality, born, dies, 0, seed)
    return _with_spam(made, scenario, start_ms, spam) if spam else made


def _zipf(rng: np.random.Generator, kinds: int, n: int) -> np.ndarray:
    """int64[n]: a few authors write much."""
    share = 1 / np.arange(1, kinds + 1) ** 0.7
    return rng.choice(kinds, n, p=share / share.sum())


def _with_spam(items: Items, scenario: Scenario, start_ms: int, spam: int) -> Items:
    """The last `spam` items become poor ones of author 0, alive around the attack."""
    assert scenario.spam is not None and spam < len(items), "fewer spam items than items"
    at = np.arange(len(items) - spam, len(items))
    items.author[at] = 0
    items.quality[at] = SPAM_QUALITY
    items.born_ms[at] = start_ms + int(scenario.spam.day * DAY_MS)
    items.dies_ms[at] = items.born_ms[at] + int((scenario.spam.days + 1) * DAY_MS)
    return Items(items.topics, items.tag, items.author, items.language, items.quality, items.born_ms, items.dies_ms, spam, items.seed)
