"""One user explained: what the ranker sees, where the items came from, and what each slot adds to their scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from headrace.engine.console.desk import Desk
from headrace.engine.console.named import Misnamed, named
from headrace.rpc.errors import RpcError

LISTED, BARS = 8, 5


class Share(NamedTuple):
    """What a slot adds to an item's log-odds: alone (`linear`), with the others (`pairs`), together (`sum`); `bar`: the sum as a part of
    the item's largest, -1 to 1."""

    slot: str
    name: str
    value: float
    linear: float
    pairs: float
    sum: float
    bar: float


class Explained(NamedTuple):
    """An item of the list: where it came from, its shares, the largest first, and what is left of the log-odds beside those shown."""

    rank: int
    item: str
    score: float
    odds: float
    source: str
    place: int
    nearness: float
    shares: list[Share]
    rest: float


def user(desk: Desk, fields: Mapping[str, str]) -> dict[str, Any]:
    """The list of `user` explained; features are those of the user with `item`, by default with the first of the list."""
    given = {"user": fields.get("user", ""), "item": fields.get("item", "")}
    try:
        name = named("user", given["user"])
        answer = desk.engine.recommend(name, min(LISTED, desk.engine.candidates), "console", {}, explain=True, preview=True)
        items = [explained(rank, row) for rank, row in enumerate(answer["items"], 1)]
        other = named("item", given["item"]) if given["item"].strip() else items[0].item if items else ""
        seen = desk.engine.features(name, other, {}, None)["slots"] if other else []
    except (Misnamed, RpcError) as error:
        return {"problem": str(error), **given}
    sources: dict[str, int] = {}
    for one in items:
        sources[one.source] = sources.get(one.source, 0) + 1
    return {"problem": "", "user": name, "item": other, "fallback": answer["fallback"], "items": items, "sources": sources, "bars": BARS,
            "weights": answer.get("weights"), "model": answer.get("model"),
            "serving_version": answer.get("serving_version", 0), "features_sequence": answer.get("features_sequence"),
            "of_user": [said(slot) for slot in seen if slot["slot"] in desk.engine.of_user],
            "of_item": [said(slot) for slot in seen if slot["slot"] not in desk.engine.of_user]}


def explained(rank: int, row: Mapping[str, Any]) -> Explained:
    """A row of /recommend?explain=1 for people."""
    slots, recall = row["explain"]["slots"], row["explain"]["recall"]
    sums = [one["linear"] + one["pairs"] for one in slots]
    largest = max((abs(one) for one in sums), default=0.0) or 1.0
    shares = [Share(one["slot"], one["name"] or one["slot"], one["value"], one["linear"], one["pairs"], total, total / largest)
              for one, total in zip(slots, sums, strict=True)]
    shares.sort(key=lambda share: -abs(share.sum))
    score = min(max(row["score"], 1e-9), 1 - 1e-9)
    return Explained(rank, row["item_id"], row["score"], math.log(score / (1 - score)), recall["source"], recall["position"] + 1,
                     recall["score"], shares, sum(share.sum for share in shares[BARS:]))


def said(slot: Mapping[str, Any]) -> dict[str, Any]:
    """A slot as the ranker sees it; "" for a name where the slot is a number and has none."""
    name = slot["name"] or ""
    field, _, value = name.partition("=")
    return {"slot": slot["slot"], "field": field or slot["slot"], "said": value, "value": slot["value"]}
