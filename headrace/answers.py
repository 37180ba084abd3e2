"""What the engine answers, as types: the JSON of docs/engine.md, name by name. Unknown names of a newer engine are ignored."""

from __future__ import annotations

from msgspec import Struct


class Newest(Struct, frozen=True):
    """The newest event that an answer has seen: hash of its topic, partition, offset, and its time in ms since 1970."""

    source: int
    partition: int
    offset: int
    ts_ms: int


class Weights(Struct, frozen=True):
    """The serving weights behind scores: their sequence, how old the replica's last word is in ms, the newest event learnt."""

    sequence: int
    age_ms: float | None = None
    newest: Newest | None = None


class Slot(Struct, frozen=True):
    """One feature: `name` is "field=value", None where it was never named; in an explanation `linear` and `pairs` add log-odds."""

    slot: str
    key: str
    name: str | None
    value: float
    linear: float = 0.0
    pairs: float = 0.0


class Recalled(Struct, frozen=True):
    """The source that gave an item (ann, popular), its place there from 0 and its score there."""

    source: str
    position: int
    score: float


class Why(Struct, frozen=True):
    """Over all slots linear + pairs is the log-odds of the item's score."""

    recall: Recalled
    slots: list[Slot]


class Item(Struct, frozen=True):
    """An item and its score: a probability, or of recall and similar an inner product. `position` counts from 0; `found`, of /score:
    whether the model has learnt of the item. `event_id`, of /recommend: of the impression that was written."""

    item_id: str
    score: float
    position: int | None = None
    explain: Why | None = None
    found: bool | None = None
    event_id: str | None = None


class Recommendation(Struct, frozen=True):
    """The best unread items; `fallback` is "popular" where nothing was near, `preview` whether no impression was written, `seen` how many
    candidates were left out since the user has seen them. `reason` says why there is no item: all_seen, or nothing_known (yet)."""

    request_id: str
    user: str
    scene: str
    ts_ms: int
    fallback: str | None
    preview: bool
    items: list[Item]
    seen: int = 0
    reason: str | None = None
    model: str | None = None
    version: int | None = None
    features_sequence: int | None = None
    weights: Weights | None = None


class Near(Struct, frozen=True):
    """Items near a vector; `found` False when the user or item has none yet. `sequence` is the index's."""

    found: bool
    items: list[Item]
    sequence: int
    user: str | None = None
    item: str | None = None
    newest: Newest | None = None


class Scores(Struct, frozen=True):
    """Probabilities in the order that was asked, of the features at `ts_ms`."""

    user: str
    ts_ms: int
    items: list[Item]
    model: str
    version: int
    features_sequence: int
    weights: Weights


class Features(Struct, frozen=True):
    """What the ranker sees of a user and an item at `ts_ms`: every slot with a value, and the numbers that transforms are made of."""

    user: str
    item: str
    ts_ms: int
    slots: list[Slot]
    features_sequence: int
    numbers: dict[str, float] = {}


class Verdict(Struct, frozen=True):
    """What became of one event: accepted under `event_id`, or refused for `reason` (docs/dead-letters.md) with `detail`."""

    accepted: bool
    event_id: str | None = None
    reason: str | None = None
    detail: str | None = None


class Emitted(Struct, frozen=True):
    """How many events the log has and how many were refused; a verdict for each, in order. `note`: what is to be known of the accepted."""

    accepted: int
    refused: int
    verdicts: list[Verdict]
    note: str = ""
