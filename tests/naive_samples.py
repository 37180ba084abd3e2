"""The slow, obvious twin of the join of exposures with actions: loops over dictionaries, one target after the other."""


def window_of(action, targets, accidental_s=0):
    """ms in which an action counts: the widest of its targets', else the first's; of dwell the widest of all where it judges clicks."""
    if accidental_s and action == "dwell":
        return max(one.window_ms for one in targets)
    return max([one.window_ms for one in targets if one.action == action], default=targets[0].window_ms)


def alike(one, other):
    return (one["user_id"], one["item_id"]) == (other["user_id"], other["item_id"])


def at(one):
    return one["ts_ms"], one["offset"]


def repeated(exposures, within_ms):
    """Offsets of exposures at most so much after another of their user and item."""
    return {e["offset"] for e in exposures if within_ms and any(
        alike(e, other) and at(other) < at(e) and e["ts_ms"] - other["ts_ms"] <= within_ms for other in exposures)}


def exposure_of(action, exposures, left_out, widest_ms):
    """The latest of its user and item in the widest window before it, of its request when it names one; None for none. Of a request whose
    exposure is left out, and of none: the latest that is not."""
    mine = [e for e in exposures if alike(e, action) and 0 <= action["ts_ms"] - e["ts_ms"] <= widest_ms]
    if action["request_id"] is not None:
        found = max((e for e in mine if e["request_id"] == action["request_id"]), key=at, default=None)
        if found is None or found["offset"] not in left_out:
            return found
    return max((e for e in mine if e["offset"] not in left_out), key=at, default=None)


def joined(log, targets, repeated_ms=0, accidental_s=0.0):
    """(rows {(offset, target): (label, actions, action_ts_ms)}, offsets of actions without exposure, offsets of repeated exposures) of
    events that are all in time."""
    exposures = [one for one in log if one["action"] == "impression"]
    left_out, widest_ms = repeated(exposures, repeated_ms), max(one.window_ms for one in targets)
    found, orphans = {one["offset"]: [] for one in exposures}, set()
    for one in log:
        if one["action"] == "impression":
            continue
        of = exposure_of(one, exposures, left_out, widest_ms)
        if of is None or one["ts_ms"] - of["ts_ms"] > window_of(one["action"], targets, accidental_s):
            orphans.add(one["offset"])
        else:
            found[of["offset"]].append(one)
    rows = {}
    for e in exposures:
        for target in targets if e["offset"] not in left_out else ():
            rows[e["offset"], target.name] = labelled(e, found[e["offset"]], target, accidental_s)
    return rows, orphans, left_out


def labelled(exposure, actions, target, accidental_s):
    """(label, actions, action_ts_ms) of one target."""
    times = [a["ts_ms"] for a in actions if a["action"] == target.action and a["ts_ms"] - exposure["ts_ms"] <= target.window_ms
             and (target.at_least is None or a["value"] >= target.at_least)]
    dwells = [a["value"] for a in actions if a["action"] == "dwell"]
    accident = target.action == "click" and bool(dwells) and max(dwells) < accidental_s
    return float(bool(times) and not accident), sorted({a["action"] for a in actions}), min(times, default=None)
