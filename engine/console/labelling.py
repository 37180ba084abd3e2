"""The page on which a person labels: the next item of the queue, what is known of it, and the answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from headrace.engine.console.desk import Desk
from headrace.engine.console.explained import said
from headrace.engine.console.named import Misnamed, named
from headrace.engine.console.sampler import Away
from headrace.rpc.errors import RpcError

NOBODY = "nobody"  # whose features beside an item's are blank
PLAIN = ("bias", "item_id")  # slots that tell nothing of an item


class Answer(NamedTuple):
    """A button: what it says, its key, the label ("" puts the item off)."""

    text: str
    key: str
    label: str


ANSWERS = (Answer("Yes", "1", "1"), Answer("No", "0", "0"), Answer("Later", "s", ""))


def doubt(desk: Desk, fields: Mapping[str, str]) -> dict[str, Any]:
    """What `labeller` labels next."""
    given = {"labeller": fields.get("labeller", ""), "done": fields.get("done", "0")}
    try:
        labeller = named("labeller", given["labeller"])
        queue = _queue(desk)
        one = queue.next(labeller)
        known = _known(desk, one.item) if one is not None else []
    except (Misnamed, Away, RpcError) as error:
        return {"problem": str(error), **given}
    return {"problem": "", "labeller": labeller, "done": _count(given["done"]), "target": queue.target, "one": one, "known": known,
            "answers": ANSWERS}


def label(desk: Desk, fields: Mapping[str, str]) -> dict[str, Any]:
    """Take the answer for `item`, and show the next one."""
    try:
        labeller, item = named("labeller", fields.get("labeller", "")), named("item", fields.get("item", ""))
        answer = fields.get("label", "")
        if answer not in [one.label for one in ANSWERS]:
            raise Misnamed("An answer is yes, no or later: use the buttons of the page.")
        _queue(desk).put(labeller, item, float(answer) if answer else None)
    except (Misnamed, Away) as error:
        return {"problem": str(error), "labeller": fields.get("labeller", ""), "done": fields.get("done", "0")}
    return doubt(desk, {"labeller": labeller, "done": str(_count(fields.get("done", "0")) + bool(answer))})


def _queue(desk: Desk) -> Any:
    if desk.labelling is None:
        raise Away("Nobody keeps a queue of labels beside this engine.")
    return desk.labelling


def _known(desk: Desk, item: str) -> list[dict[str, Any]]:
    slots = desk.engine.features(NOBODY, item, {}, None)["slots"]
    return [one for one in map(said, slots) if one["slot"] not in (*desk.engine.of_user, *PLAIN) and (one["said"] or one["value"])]


def _count(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 7 else 0
