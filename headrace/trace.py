"""One sample's way through every process, told from outside: what each topic holds of its cause, and when the broker took it.

Nothing is measured in the jobs for this: every topic has LogAppendTime, and records name the cause (source, partition, offset of
interactions) that they are of. This file leads from an arrival to its sample, trace_learnt.py from there to weights and vectors.
"""

from __future__ import annotations

from collections.abc import Iterable

from headrace.schemas.reasons import FEATURES, SAMPLES
from headrace.trace_hops import Hop, How, Look, Place, Record, Seen, Topics, Trace, UnknownEvent, name
from headrace.trace_learnt import learnt

AHEAD_MS = 1000  # event times are clamped to so much ahead of their arrival


def trace(topics: Topics, wanted: str | Place, how: How) -> Trace:
    """The way of the event with an event_id, or at a place in interactions; of an action also that of the exposure it was attributed to.

    Raises UnknownEvent.
    """
    look = Look(topics, how)
    came = [(one, *_enriched(look, one)) for one in _arrivals(look, wanted)]
    arrival, enriched, note = next((one for one in came if one[1] is not None), came[0])
    found = Trace(arrival.record, arrival.cause)
    found.said += [f"{name(one.cause)} has the same event_id: {why or 'it was enriched too'}" for one, _, why in came if one is not arrival]
    action = arrival.record.get("action", "an event that cannot be read")
    passed = Hop("enriched", action, FEATURES, enriched, _arrived(arrival), note)
    found.hops += [passed.after, passed] if passed.after else []
    if action == "heartbeat":
        found.said.append("a heartbeat moves event time on and is no sample")
    elif enriched is not None and action == "impression":
        _sample(look, found, passed)
    elif enriched is not None:
        _action(look, found, passed)
    return found.ordered()


def exposure_of(action: Record, others: Iterable[Seen], how: How) -> Seen | None:
    """The exposure among a user's `others` (enriched, in their order) that the samples job attributes `action` to, None for none.

    `wait`: the latest in event time; the others: the newest that had arrived, if it lies in the window (streaming/samples.py, eager.py).
    """
    best: Seen | None = None
    for one in others:
        record = one.record
        if record["action"] != "impression" or record["item_id"] != action["item_id"]:
            continue
        if action["request_id"] is not None and record["request_id"] != action["request_id"]:
            continue
        if how.live or (_inside(one, action, how) and (best is None or record["ts_ms"] >= best.record["ts_ms"])):
            best = one
    return best if best is not None and _inside(best, action, how) else None


def _inside(exposure: Seen, action: Record, how: How) -> bool:
    return 0 <= action["ts_ms"] - exposure.record["ts_ms"] <= how.window_of(action["action"])


def _arrived(seen: Seen) -> Hop:
    return Hop("interactions", seen.record.get("action", "unreadable"), "engine" if seen.record.get("exposure") else "sender", seen)


def _arrivals(look: Look, wanted: str | Place) -> list[Seen]:
    if not isinstance(wanted, str):
        return [look.topics.at(wanted)]
    within_ms = look.how.within_ms
    arrivals = look.topics.named(wanted, look.now_ms - within_ms, look.now_ms + 1)
    if not arrivals:
        if look.topics.named(f"{wanted}:0", look.now_ms - within_ms, look.now_ms + 1):
            raise UnknownEvent(f"{wanted!r} is a request_id: /recommend wrote its impressions under {wanted}:0, {wanted}:1, ... in the"
                               " order served; name one of these")
        raise UnknownEvent(f"no event {wanted!r} came into interactions within the last {within_ms // 1000} s; --within S looks further"
                           " back, and PARTITION:OFFSET needs no search")
    return arrivals


def _enriched(look: Look, arrival: Seen) -> tuple[Seen | None, str]:
    """The record that the features job made of an arrival, and what is to be said of it, or why there is none."""
    event, stop_ms = arrival.record, arrival.at_ms + look.how.within_ms
    # A heartbeat keeps its key, which is made for its partition.
    user = event["user_id"] if event and event["action"] != "heartbeat" else None
    for one in look.topics.scan("enriched", arrival.at_ms, stop_ms, user) if event else ():
        if look.is_of(one.record, arrival.cause):
            return one, _clamped(event, one)
    refused = look.refused(arrival, FEATURES)
    if refused or user is None:
        return None, refused or look.missing(stop_ms)
    for one in look.topics.scan("enriched", arrival.at_ms - look.how.within_ms, stop_ms, user):
        if one.record["event_id"] == event["event_id"]:
            return None, f"a retry: its event_id was folded as {name(one.cause)}, which `headrace trace {name(one.cause)}` shows"
    return None, look.missing(stop_ms)


def _clamped(event: Record, enriched: Seen) -> str:
    ahead_ms = event["ts_ms"] - enriched.record["ts_ms"]
    return f"its event time lay {ahead_ms} ms ahead and was clamped" if ahead_ms > 0 else ""


def _action(look: Look, found: Trace, passed: Hop) -> None:
    """The exposure that an action was attributed to, and its way."""
    assert passed.after is not None, "an enriched action arrived"
    how, enriched, arrival = look.how, passed.found, passed.after.found
    action = enriched.record
    # Nothing arrives more than AHEAD_MS before its event time, so a live exposure is no older than this; of a log only the bound holds.
    start_ms = max(action["ts_ms"] - how.window_ms - AHEAD_MS, arrival.at_ms - how.window_ms - how.within_ms)
    others = look.topics.scan("enriched", start_ms, enriched.at_ms + how.out_of_orderness_ms + 1, action["user_id"])
    exposure = exposure_of(action, (one for one in others if not how.live or one.offset < enriched.offset), how)
    if exposure is None:
        window_ms = how.window_of(action["action"])
        why = look.refused(arrival, SAMPLES) or f"no impression of item {action['item_id']} in the {window_ms} ms before it"
        found.hops.append(Hop("samples", "its exposure", SAMPLES, None, passed, why))
        return
    found.said.append(f"{name(arrival.cause)} is a {action['action']}, attributed to the impression {name(exposure.cause)}")
    shown = look.topics.at(exposure.cause)
    found.event, found.cause = shown.record, shown.cause
    frozen = Hop("enriched", "impression", FEATURES, exposure, _arrived(shown), _clamped(shown.record, exposure))
    found.hops += [frozen.after, frozen] if frozen.after else []
    _sample(look, found, frozen, passed)


def _sample(look: Look, found: Trace, frozen: Hop, named: Hop | None = None) -> None:
    """From an enriched impression on; `named`: the enriched action that was asked for."""
    assert frozen.after is not None, "an enriched impression arrived"
    how, exposure, arrival = look.how, frozen.found, frozen.after.found
    stop_ms = exposure.at_ms + how.window_ms + how.out_of_orderness_ms + how.within_ms
    sample = next((one for one in look.topics.scan("samples", exposure.at_ms, stop_ms, exposure.record["user_id"])
                   if look.is_of(one.record, exposure.cause) and one.record["target"] == how.target), None)
    made = Hop("samples", f"target {how.target}", SAMPLES, sample, frozen)
    found.hops.append(made)
    if sample is not None:
        made.note = f"label {sample.record['label']:g}"
        _positive(look, found, made, frozen, named)
    elif refused := look.refused(arrival, SAMPLES):
        made.note = refused
        return  # nothing comes behind it
    else:
        made.note = look.missing(stop_ms)
    found.hops += learnt(look, made, arrival)


def _positive(look: Look, found: Trace, made: Hop, frozen: Hop, named: Hop | None) -> None:
    """The hops of the action that made a sample positive."""
    how, sample, exposure = look.how, made.found, frozen.found
    if named is not None and named.of == how.action and not _made_positive(named.found, sample, how):
        found.said.append(f"that {how.action} did not make the sample positive: " + (
            "another came before it" if sample.record["action_ts_ms"] is not None else _why_not(named.found.record, how)))
    if sample.record["action_ts_ms"] is None:
        return
    if sample.record["label"] == 0:
        found.said.append(f"that {how.action} counts as none: the dwell on its exposure was below samples.noise.accidental_click_below_s")
    passed = named
    if named is None or not _made_positive(named.found, sample, how):
        at = next((one for one in look.topics.scan("enriched", exposure.at_ms, sample.at_ms + 1, exposure.record["user_id"])
                   if _made_positive(one, sample, how)), None)
        if at is None:
            return
        passed = Hop("enriched", how.action, FEATURES, at, _arrived(look.topics.at(at.cause)))
        found.hops += [passed.after, passed] if passed.after else []
    if how.live:  # under `wait` it leaves when its window closes
        made.after = passed


def _why_not(action: Record, how: How) -> str:
    """Of an attributed action of the target's kind that made nothing positive."""
    least = next((one.at_least for one in how.targets if one.name == how.target), None)
    if least is not None and action["value"] < least:
        return f"its value {action['value']:g} is below at_least, {least:g}"
    return "the sample had left, or it came late"


def _made_positive(action: Seen, sample: Seen, how: How) -> bool:
    """Whether an enriched record is the action whose time a sample carries."""
    record, of = action.record, sample.record
    return bool(record["action"] == how.action and record["item_id"] == of["item_id"] and record["ts_ms"] == of["action_ts_ms"]
                and record["request_id"] in (None, of["request_id"]))
