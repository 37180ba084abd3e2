"""The slow, obvious twin of the join of exposures with actions: loops over dictionaries, one target after the other."""


def window_of(action, targets):
    """ms in which an action counts: the widest of its targets', else the first target's."""
    return max([one.window_ms for one in targets if one.action == action], default=targets[0].window_ms)


def exposure_of(action, exposures, widest_ms):
    """The latest of its user and item in the widest window before it, of its request when it names one; None for none."""
    mine = [e for e in exposures if (e["user_id"], e["item_id"]) == (action["user_id"], action["item_id"])
            and action["request_id"] in (None, e["request_id"]) and 0 <= action["ts_ms"] - e["ts_ms"] <= widest_ms]
    return max(mine, key=lambda e: (e["ts_ms"], e["offset"]), default=None)


def joined(log, targets):
    """(rows {(offset, target): (label, actions, action_ts_ms)}, offsets of actions without exposure) of events that are all in time."""
    exposures = [one for one in log if one["action"] == "impression"]
    widest_ms, found, orphans = max(one.window_ms for one in targets), {one["offset"]: [] for one in exposures}, set()
    for one in log:
        if one["action"] == "impression":
            continue
        of = exposure_of(one, exposures, widest_ms)
        if of is None or one["ts_ms"] - of["ts_ms"] > window_of(one["action"], targets):
            orphans.add(one["offset"])
        else:
            found[of["offset"]].append(one)
    rows = {}
    for e in exposures:
        actions = found[e["offset"]]
        for target in targets:
            rows[e["offset"], target.name] = labelled(e, actions, target)
    return rows, orphans


def labelled(exposure, actions, target):
    """(label, actions, action_ts_ms) of one target."""
    times = [a["ts_ms"] for a in actions if a["action"] == target.action and a["ts_ms"] - exposure["ts_ms"] <= target.window_ms
             and (target.at_least is None or a["value"] >= target.at_least)]
    return float(bool(times)), sorted({a["action"] for a in actions}), min(times, default=None)
