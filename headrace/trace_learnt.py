"""From a sample on: the touches of its user and item, the blocks of weights that hold their rows, their vectors.

Two of these name a cause only at times, and are bounded by what must be true of them:

- `touched`: of the rows of one push that share a user or an item only the first says it (streaming/learn.py). A user's samples keep their
  order, so it was said with the last touch of the user whose sample does not lie behind ours; the item's touch lies nearest to that.
- `weights`: a block names the newest cause of its shard. It cannot hold ours while that is older in event time; it surely does when that is
  ours, or when the block came after the touch, which training writes once all shards have acknowledged the push.
"""

from __future__ import annotations

import numpy as np

from headrace.schemas.hashing import feature_key
from headrace.schemas.reasons import TRAIN, VECTORS
from headrace.trace_hops import Hop, Look, Seen, name, told

SPACES = ("user", "item")
SETTLE_MS = 2000  # behind a vector of another touch the one of ours is waited for so long


def learnt(look: Look, made: Hop, arrival: Seen) -> list[Hop]:
    """The hops behind `made` (samples) of the exposure that arrived as `arrival`."""
    how = look.how
    ids = {space: arrival.record[f"{space}_id"] for space in SPACES}
    touches = {space: Hop(f"touched.{how.model}", f"{space} {ids[space]}", how.job, None, made, "not yet") for space in SPACES}
    hops = list(touches.values())
    if made.seen is not None and _touched(look, made.seen, arrival, touches, ids):
        return hops  # nothing comes behind them
    for space, touch in touches.items():
        key = feature_key(f"{space}_id", ids[space])
        slot, shard = look.topics.slot(key)
        block = Hop(f"weights.{how.model}", touch.of, f"shard {shard}", None, made, "not yet")
        vector = Hop("vectors", touch.of, VECTORS, None, touch, "not yet")
        if made.seen is not None and touch.seen is not None:
            _block(look, block, made.seen, touch.seen, key, slot)
            _vector(look, vector, touch.seen, space, ids[space])
        hops += [block, vector] if how.model == how.served else [block]
    return hops


def _touched(look: Look, sample: Seen, arrival: Seen, touches: dict[str, Hop], ids: dict[str, str]) -> bool:
    """Note the touches; whether training refused the sample."""
    behind = [shard for shard, status in enumerate(look.topics.known(look.how.model, look.how.target, sample.cause)) if status == 0]
    stop_ms = sample.at_ms + look.how.within_ms
    if behind:
        refused = look.refused(arrival, TRAIN)
        for hop in touches.values():
            hop.note = refused or f"not yet applied by shard {', '.join(map(str, behind))}"
        return bool(refused)
    user, item = (touches[space] for space in SPACES)
    others: dict[str, list[Seen]] = {space: [] for space in SPACES}
    for space, hop in touches.items():
        hop.note = f"applied by all shards; its touch {look.missing(stop_ms)}"
        for one in look.topics.scan(hop.topic, sample.at_ms, stop_ms, ids[space]):
            if one.record["space"] == space and look.is_of(one.record, sample.cause):
                hop.seen, hop.note = one, ""
                break
            others[space] += [one] if one.record["space"] == space else []
    if user.seen is None and others["user"]:
        later = {one.cause for one in look.topics.scan("samples", sample.at_ms, stop_ms, ids["user"]) if one.offset > sample.offset}
        _with_mate(user, [one for one in others["user"] if one.cause not in later][-1:])
    if item.seen is None and others["item"]:
        beside_ms = user.seen.at_ms if user.seen else sample.at_ms
        _with_mate(item, [min(others["item"], key=lambda one: abs(one.at_ms - beside_ms))])
    return False


def _with_mate(hop: Hop, found: list[Seen]) -> None:
    if found:
        hop.seen, hop.note = found[0], f"said with {name(found[0].cause)}, learnt in the same push"


def _block(look: Look, hop: Hop, sample: Seen, touch: Seen, key: int, slot: int) -> None:
    """Note the first block that holds the row as it was after the push."""
    caused_ms = sample.record["ts_ms"] if sample.record["action_ts_ms"] is None else sample.record["action_ts_ms"]
    stop_ms, before = touch.at_ms + look.how.within_ms, None
    for one in look.topics.scan(hop.topic, sample.at_ms, stop_ms, str(slot)):
        newest = one.record["newest"]
        ours = newest is not None and look.is_of(newest, sample.cause)
        older = newest is not None and not ours and newest["ts_ms"] < caused_ms
        if older or not (np.frombuffer(one.record["keys"], "<u8") == key).any():
            continue
        if ours or one.at_ms >= touch.at_ms:
            # A pass of the publisher is never far: what comes much later is of another push, and the block before was of ours.
            if ours or before is None or one.at_ms - touch.at_ms <= 2 * look.how.publish_ms:
                hop.seen, hop.note = one, ""
                if before is not None and not ours:
                    hop.note = f"at the latest: {name(before[1:3])}, {one.at_ms - before.at_ms} ms before, may hold it"
                return
            break
        before = one
    hop.seen, hop.note = before, "" if before else look.missing(stop_ms)


def _vector(look: Look, hop: Hop, touch: Seen, space: str, name_: str) -> None:
    """Note the vector of a touch: the one that names its cause, else the first after it, which was made for several touches."""
    stop_ms = touch.at_ms + look.how.within_ms
    for one in look.topics.scan(hop.topic, touch.at_ms, stop_ms, f"{space}:{name_}"):
        if hop.seen is not None and one.at_ms > hop.seen.at_ms + SETTLE_MS:
            break
        if look.is_of(one.record, touch.cause):
            hop.seen = one
            break
        hop.seen = hop.seen or one
    hop.note = "" if hop.seen else _poisoned(look, touch, space, name_) or look.missing(stop_ms)


def _poisoned(look: Look, touch: Seen, space: str, name_: str) -> str:
    """Letters of the vectors job have no place; their detail begins with the id and the time of the touch."""
    start = f"{space} {name_[:256]!r} of {touch.record['ts_ms']}:"
    return next((told(one) for one in look.letters(touch.at_ms) if one["topic"] == touch.topic and one["detail"].startswith(start)), "")
