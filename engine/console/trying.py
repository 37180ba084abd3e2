"""The panel "try a click and see": a user's list, and what a click does to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from headrace.engine.console.desk import Desk
from headrace.engine.console.named import Misnamed, named
from headrace.engine.console.trials import TooMany, Trial
from headrace.rpc.errors import RpcError


class Row(NamedTuple):
    """A line of a list: its rank from 1, how far it rose (negative: fell; None: it is new), and its score before."""

    rank: int
    item: str
    score: float
    rose: int | None
    was: float | None


def listed(desk: Desk, fields: Mapping[str, str]) -> dict[str, Any]:
    """The list of `user` now."""
    try:
        user = named("user", fields.get("user", ""))
        answer = desk.trials.listed(user)
    except (Misnamed, RpcError) as error:
        return {"problem": str(error), "user": fields.get("user", "")}
    rows = [Row(place, row["item_id"], row["score"], 0, row["score"]) for place, row in enumerate(answer["items"], 1)]
    return {"problem": "", "user": user, "rows": rows, "fallback": answer["fallback"]}


def click(desk: Desk, fields: Mapping[str, str]) -> dict[str, Any]:
    """Click `item` as `user`."""
    try:
        user, item = named("user", fields.get("user", "")), named("item", fields.get("item", ""))
        return told(desk.trials.click(user, item))
    except (Misnamed, TooMany, RpcError) as error:
        return {"problem": str(error), "trial": None}


def look(desk: Desk, fields: Mapping[str, str]) -> dict[str, Any]:
    """How far the click of trial `id` is."""
    trial = desk.trials.of(fields.get("id", ""))
    if trial is None:
        return {"problem": "This click is not known any more: ask for the list again.", "trial": None}
    return told(trial)


def told(trial: Trial) -> dict[str, Any]:
    """The trial with its list: the one of before while it is not through."""
    was = {row["item_id"]: (place, row["score"]) for place, row in enumerate(trial.before["items"], 1)}
    gone = was.get(trial.item, (len(was) + 1, 0.0))[0] if trial.after else len(was) + 1  # those behind it close the gap: that is no move
    rows = []
    for rank, row in enumerate((trial.after or trial.before)["items"], 1):
        place, score = was.get(row["item_id"], (None, None))
        rows.append(Row(rank, row["item_id"], row["score"], None if place is None else place - (place > gone) - rank, score))
    others = [row for row in rows if row.item != trial.item]
    return {"problem": trial.problem, "trial": trial, "user": trial.user, "rows": rows,
            "moved": sum(row.was is not None and row.rose != 0 for row in others), "new": sum(row.was is None for row in others),
            "stayed": sum(row.was is not None for row in others),
            "rescored": sum(row.was is not None and row.was != row.score for row in others),
            "fallback": (trial.after or trial.before)["fallback"]}
