from headrace.features.definitions import feature


@feature(entity="user", reducer="sum", half_life="1h", owner="feed")
def user_late_dwell(event):
    """Seconds of dwell beyond ten."""
    return max(0.0, event["value"] - 10.0) if event["action"] == "dwell" else None


@feature(entity="item", reducer="last_n", n=2)
def item_words(event):
    """Long words of the query that led to it."""
    return [word for word in event["context"].get("query", "").split() if len(word) > 3] or None
