"""`headrace trace` on the real stack: an impression and its click through every hop, and what stops on the way."""

import json

from tests.end_to_end.outside import events, until

BY_TOPIC = ("interactions", "enriched", "samples", "touched.fm", "vectors")


def traced(on_stack, *arguments):
    done = on_stack("trace", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def sent(loop, user, item, *actions):
    """event_ids of accepted events."""
    answer = loop.post("/events", [event for action in actions for event in events(user, [item], action)])
    assert answer.status_code == 200, answer.text
    return [verdict["event_id"] for verdict in answer.json()["verdicts"]]


def test_an_impression_and_its_click_through_every_hop(loop, on_stack):
    shown, clicked = sent(loop, "traced-user", "traced-item", "impression", "click")
    found = until(lambda: (told := traced(on_stack, clicked))["whole"] and told, "every hop of the trace", 240)
    assert (found["event_id"], found["user_id"], found["item_id"], found["since"]) == (shown, "traced-user", "traced-item", "event")
    assert "attributed to the impression" in found["said"][0]
    at = {(hop["topic"], hop["of"].split()[0]): hop for hop in found["hops"]}
    assert set(at) == {("interactions", "impression"), ("interactions", "click"), ("enriched", "impression"), ("enriched", "click"),
                       ("samples", "target"), *((topic, space) for topic in ("touched.fm", "weights.fm", "vectors")
                                                for space in ("user", "item"))}
    times = [hop["since_ms"] for hop in found["hops"]]
    assert times == sorted(times) and times[0] >= 0 and all(hop["took_ms"] >= 0 for hop in found["hops"])
    for space in ("user", "item"):
        way = [at.get((topic, space)) or at.get((topic, "impression")) or at[topic, "target"] for topic in BY_TOPIC]
        assert [hop["at_ms"] for hop in way] == sorted({hop["at_ms"] for hop in way})
        assert at["weights.fm", space]["at_ms"] > at["samples", "target"]["at_ms"]
    assert at["samples", "target"]["note"] == "label 1"
    # The same records as seen from outside, and the same trace by place.
    cause = found["cause"]
    row = next(row for row in loop.read("samples", {at["samples", "target"]["partition"]: at["samples", "target"]["offset"]})
               if row.record["event_id"] == shown)
    assert (row.record["partition"], row.record["offset"]) == (cause["partition"], cause["offset"])
    again = traced(on_stack, f"{cause['partition']}:{cause['offset']}")
    assert again["hops"] == found["hops"]
    table = on_stack("trace", shown).stdout
    assert table.startswith(f"{shown}: impression of item traced-item") and "since event ms" in table


def test_what_stops_on_the_way_is_told(loop, on_stack):
    first, = sent(loop, "traced-user-2", "shown", "impression")
    loop.post("/events", {**events("traced-user-2", ["shown"], "impression")[0], "event_id": first})
    orphan, = sent(loop, "traced-user-2", "never-shown", "click")
    found = until(lambda: "no_exposure" in (told := traced(on_stack, orphan))["hops"][-1]["note"] and told, "the letter")
    assert [hop["topic"] for hop in found["hops"]] == ["interactions", "enriched", "samples"] and not found["whole"]
    found = until(lambda: (told := traced(on_stack, first))["whole"] and told, "the negative")
    assert "a retry: its event_id was folded as" in found["said"][0]
    assert next(hop for hop in found["hops"] if hop["topic"] == "samples")["note"] == "label 0"


def test_what_cannot_be_traced_is_a_sentence(loop, on_stack):
    for arguments, code, words in ((["nobody"], 1, "--within S looks further back"), (["0:99999999"], 1, "no record 0:99999999; it holds"),
                                   (["nobody", "--model", "lr"], 2, "trained are fm")):
        done = on_stack("trace", *arguments)
        assert done.returncode == code and done.stderr.startswith("error: ") and words in done.stderr and "Traceback" not in done.stderr
