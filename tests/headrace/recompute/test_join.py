"""The join of a log against the samples that a slow twin makes of it: nothing to find, then each of what it is there to find."""

import random

import pytest
from hypothesis import given, settings, strategies

from headrace.recompute.join import AHEAD_MS, Rules, Sent, join
from headrace.schemas.targets import Noise, Target
from tests.naive_samples import joined

SOURCE, WINDOW, SLACK, APPENDED = 7, 1000, 200, 10**12
CLICK = Target("click", "click", WINDOW)
RULES = Rules(SOURCE, (CLICK,), SLACK)
CARRIED = ("event_id", "request_id", "scene", "user_id", "item_id", "ts_ms")


def event(event_id, action, ts_ms, user="ann", item="film", request=None):
    return {"event_id": event_id, "request_id": request, "scene": "", "user_id": user, "item_id": item, "action": action, "value": 1.0,
            "ts_ms": ts_ms}


def sent(records, partition=0):
    return [Sent((partition, offset), APPENDED, record) for offset, record in enumerate(records)]


def letter(place, reason, topic="interactions"):
    return {"topic": topic, "partition": place[0], "offset": place[1], "reason": reason}


def sample(place, exposure, actions=()):
    """Of an exposure and its (action, ts_ms)."""
    clicks = [ts_ms for action, ts_ms in actions if action == "click"]
    return {"source": SOURCE, "partition": place[0], "offset": place[1], "target": "click", "label": float(bool(clicks)),
            "actions": ",".join({action for action, _ in actions}), "action_ts_ms": min(clicks, default=None),
            **{name: exposure[name] for name in CARRIED}}


def twin(log, late):
    """(samples, letters) of a log by dictionaries, one action after the other."""
    there = [one for one in log if one.record["action"] != "heartbeat" and one.place not in late]
    exposures = [one for one in there if one.record["action"] == "impression"]
    found = {one.place: [] for one in exposures}
    letters = [letter(place, "late") for place in late]
    for one in there:
        record = one.record
        if record["action"] == "impression":
            continue
        mine = [e for e in exposures if all(e.record[name] == record[name] for name in ("user_id", "item_id"))
                and record["request_id"] in (None, e.record["request_id"]) and 0 <= record["ts_ms"] - e.record["ts_ms"] <= WINDOW]
        if mine:
            found[max(mine, key=lambda e: (e.record["ts_ms"], e.place)).place].append((record["action"], record["ts_ms"]))
        else:
            letters.append(letter(one.place, "no_exposure"))
    return [sample(one.place, one.record, found[one.place]) for one in exposures], letters


@pytest.fixture
def log():
    """(interactions of two partitions, samples, letters): items met again, actions with and without a request, some that are late."""
    rng, made, late = random.Random(3), [], set()
    for partition in range(2):
        now, records = 10_000, []
        for n in range(600):
            now += rng.randrange(60)
            user, item = f"u{partition}{rng.randrange(6)}", f"i{rng.randrange(4)}"
            action = rng.choice(["impression", "impression", "click", "like", "hide"])
            request = rng.choice([None, f"r{n // 20}"])
            behind = rng.random() < 0.05 and now > 12_000
            records.append(event(f"{partition}-{n}", action, now - 500 if behind else now - rng.randrange(SLACK - 60), user, item, request))
            if behind:
                late.add((partition, n))
        made += sent([*records, event("", "heartbeat", now + 5000, "", "")], partition)
    return made, *twin(made, late)


def check(log, **rules):
    return join(*log, RULES._replace(**rules))


def test_nothing_differs_where_nothing_is_wrong(log):
    interactions, samples, letters = log
    report = check(log)
    assert report.mismatches == 0, report.examples
    assert report.checked == len(samples) > 400 and report.sent == 1200 == sum(report.accounts.values())
    told = report.accounts
    assert told["exposures late"] > 10 and told["actions late"] > 10 and told["actions attributed"] > 100
    assert told["actions without exposure"] == sum(one["reason"] == "no_exposure" for one in letters) > 100
    assert told["exposures open"] == told["actions open"] == told["actions in doubt"] == told["retries"] == 0
    again = check((interactions, [*samples, *samples[:30]], [*letters, *letters]), restarted=True)
    assert again.mismatches == again.late_copies == 0 and again.copies == 30


def test_a_wrong_label_is_found(log):
    _, samples, _ = log
    one = next(one for one in samples if one["label"] == 0 and one["actions"])
    one["label"] = 1.0
    report = check(log)
    assert report.mismatches == report.differing["different"] == 1
    assert f"different sample of {one['partition']}:{one['offset']}: label is 1.0, and the log says 0.0" in report.examples


@pytest.mark.parametrize(("name", "value"), [("actions", "repost"), ("action_ts_ms", 1), ("event_id", "x"), ("request_id", "x"),
                                             ("user_id", "x"), ("item_id", "x"), ("ts_ms", 1)])
def test_whatever_a_sample_carries_must_be_its_exposures(log, name, value):
    log[1][17][name] = value
    assert check(log).differing["different"] == 1 == check(log, restarted=True).differing["different"]


def test_a_sample_that_is_missing_is_found(log):
    gone = log[1].pop(100)
    report = check(log)
    assert report.mismatches == report.differing["missing"] == report.accounts["exposures without a sample"] == 1
    assert any(f"missing sample of {gone['partition']}:{gone['offset']}" in one for one in report.examples)


def test_samples_too_many_are_found(log):
    interactions, samples, _ = log
    action = next(one for one in interactions if one.record["action"] == "click")
    samples += [sample(action.place, action.record), {**samples[3], "source": 8}]
    report = check(log)
    assert report.differing["extra"] == 2 and report.sent == sum(report.accounts.values()) - 1 and report.mismatches == 3
    assert any("another source" in one and "8:" in one for one in report.examples)


def test_a_late_exposure_that_became_a_negative_is_found(log):
    interactions, samples, letters = log
    places = {(one["partition"], one["offset"]) for one in letters if one["reason"] == "late"}
    one = next(one for one in interactions if one.place in places and one.record["action"] == "impression")
    samples.append(sample(one.place, one.record))
    report = check(log)
    assert report.differing["late"] == 1 and report.sent != sum(report.accounts.values())
    assert any("its exposure is late" in one for one in report.examples)


def test_late_letters_that_say_other_than_the_log_are_found(log):
    _, samples, letters = log
    one = samples[50]
    letters.append(letter((one["partition"], one["offset"]), "late"))
    assert check(log).mismatches == check(log).differing["told late, and in time"] == 1
    copied = check(log, restarted=True)
    assert copied.mismatches == 0 and copied.late_copies == 1, "a copy was late"
    samples.remove(one)
    assert check(log, restarted=True).differing["missing"] == 1, "and then the record has a sample"
    samples.append(one)
    letters[:] = letters[:-1]
    gone = letters.pop(next(at for at, one in enumerate(letters) if one["reason"] == "late"))
    report = check(log, restarted=True)
    assert report.mismatches == report.differing["late, and not told"] == 1
    assert any(f"{gone['partition']}:{gone['offset']}" in one for one in report.examples)


def test_an_action_that_nobody_speaks_of_and_one_wrongly_refused_are_found(log):
    interactions, samples, letters = log
    lost = letters.pop(next(at for at, one in enumerate(letters) if one["reason"] == "no_exposure"))
    report = check(log)
    assert report.mismatches == report.differing["unsaid"] == report.accounts["actions in doubt"] == 1
    assert any(f"{lost['partition']}:{lost['offset']} has no exposure" in one for one in report.examples)
    hit = next(one for one in samples if one["label"] and "," not in one["actions"])
    at = next(one.place for one in interactions if one.record["action"] == "click" and one.record["ts_ms"] == hit["action_ts_ms"]
              and one.record["user_id"] == hit["user_id"] and one.record["item_id"] == hit["item_id"])
    letters += [lost, letter(at, "no_exposure")]
    assert check(log).differing["denied"] == 1


def test_retries_refused_and_heartbeats_take_no_part():
    first = event("a", "impression", 5000)
    records = [first, event("b", "click", 5000), first, event("b", "click", 5001), event("c", "impression", 5002), None, None,
               event("", "heartbeat", 9000, "", "")]
    letters = [letter((0, 4), "wrong_key"), letter((0, 5), "truncated"), letter((0, 0), "non_finite_gradient"),
               letter((0, 1), "late", "samples")]
    report = join(sent(records), [sample((0, 0), first, [("click", 5000)])], letters, RULES)
    assert report.mismatches == 0, report.examples
    assert {name: count for name, count in report.accounts.items() if count} == {
        "samples": 1, "actions attributed": 1, "retries": 2, "refused": 2, "not read yet": 1}


def test_an_event_beyond_the_last_64_of_its_user_is_no_retry():
    log = sent([*(event(f"e{n}", "impression", 5000 + n) for n in range(65)), event("e0", "impression", 5100),
                event("e2", "impression", 5101)])
    samples = [sample(one.place, one.record) for one in log[:-1]]
    report = join(log, samples, [], RULES)
    assert report.mismatches == 0 and report.accounts["samples"] == 66 and report.accounts["retries"] == 1


def test_what_may_still_come_is_open():
    log = sent([event("a", "impression", 5000), event("b", "impression", 6000), event("c", "click", 6001),
                event("d", "click", 6001, "bob")])
    report = join(log, [sample((0, 0), log[0].record)], [], RULES)
    assert report.mismatches == 0 and report.accounts["exposures open"] == 1 and report.accounts["actions open"] == 2
    none = join(log, [], [], RULES)
    assert none.mismatches == none.checked == 0 and none.accounts["exposures open"] == 2


def test_a_time_ahead_of_the_broker_is_the_brokers():
    ahead = event("a", "impression", APPENDED + AHEAD_MS + 1)
    assert join(sent([ahead]), [sample((0, 0), {**ahead, "ts_ms": APPENDED})], [], RULES).mismatches == 0


def logs(draw):
    """Events of two users and two items within a few seconds."""
    count = draw(strategies.integers(1, 25))
    made, now = [], 10_000
    for n in range(count):
        now += draw(strategies.integers(0, 900))
        one = event(str(n), draw(strategies.sampled_from(["impression", "impression", "click", "like", "dwell", "hide"])), now,
                    draw(strategies.sampled_from("ab")), draw(strategies.sampled_from("xy")), draw(strategies.sampled_from([None, "r"])))
        made.append({**one, "value": float(draw(strategies.integers(0, 9)))})
    return made


targets = strategies.tuples(strategies.integers(1, 4000), strategies.integers(1, 4000), strategies.integers(1, 4000)).map(
    lambda ms: (Target("click", "click", ms[0]), Target("like", "like", ms[1]), Target("read", "dwell", ms[2], 5.0)))
noises = strategies.builds(Noise, strategies.sampled_from([0, 500, 3000]), strategies.sampled_from([0.0, 4.0]))


@settings(max_examples=20, deadline=None)
@given(strategies.composite(logs)(), targets, noises, strategies.data())
def test_several_targets_with_rules_against_noise_are_what_the_twin_says(made, of, noise, data):
    rows, orphans, again = joined([{**one, "offset": offset} for offset, one in enumerate(made)], of, *noise)
    samples = [{"source": SOURCE, "partition": 0, "offset": offset, "target": target, "label": label, "actions": ",".join(actions),
                "action_ts_ms": at, **{name: made[offset][name] for name in CARRIED}}
               for (offset, target), (label, actions, at) in rows.items()]
    interactions, letters = sent([*made, event("", "heartbeat", 10**9, "", "")]), [
        letter((0, one), reason) for reason, ones in (("no_exposure", orphans), ("repeated_exposure", again)) for one in ones]
    rules = RULES._replace(targets=of, out_of_orderness_ms=10**6, noise=noise)
    closed = {**event("z", "impression", 10**8), "value": 1.0}
    interactions.append(Sent((1, 0), APPENDED, closed))
    samples += [{**sample((1, 0), closed), "target": one.name} for one in of]
    report = join(interactions, samples, letters, rules)
    assert report.mismatches == 0 and report.checked == len(samples) and report.sent == len(made) + 1, report.examples
    assert report.accounts["samples"] == len(samples) // 3 and report.accounts.get("exposures repeated", 0) == len(again)
    wrong = data.draw(strategies.sampled_from(samples))
    wrong["label"] = 1 - wrong["label"]
    assert join(interactions, samples, letters, rules).differing["different"] == 1
    samples.remove(wrong)
    assert join(interactions, samples, letters, rules).differing["missing"] == (wrong["partition"] == 0), "the last may still come"


def test_a_repeated_exposure_that_is_not_told_and_one_told_wrongly_are_found():
    log = sent([event("a", "impression", 5000), event("b", "impression", 5400, request="r"), event("c", "click", 5500, request="r"),
                event("d", "impression", 9000), event("", "heartbeat", 9900, "", "")])
    samples = [sample((0, 0), log[0].record, [("click", 5500)]), sample((0, 3), log[3].record)]
    rules = RULES._replace(noise=Noise(500), out_of_orderness_ms=10**6)
    told = join(log, samples, [letter((0, 1), "repeated_exposure")], rules)
    assert told.mismatches == 0 and told.accounts["exposures repeated"] == told.accounts["actions attributed"] == 1, told.examples
    assert join(log, samples, [], rules).differing["repeated, and not told"] == 1
    wrong = join(log, samples, [letter((0, n), "repeated_exposure") for n in (1, 3)], rules)
    assert wrong.differing["told repeated, and is not"] == wrong.mismatches == 1
    assert join(log, samples, [letter((0, 1), "repeated_exposure")], RULES._replace(out_of_orderness_ms=10**6)).mismatches > 0


def test_a_click_with_a_short_dwell_must_count_as_none_and_keep_its_time():
    log = sent([event("a", "impression", 5000), event("b", "click", 5100), {**event("c", "dwell", 5900), "value": 3.0},
                {**event("d", "dwell", 5950), "value": 1.0}, event("", "heartbeat", 9900, "", "")])
    said = {**sample((0, 0), log[0].record, [("click", 5100), ("dwell", 5900)]), "label": 0.0}
    for accidental_s, differing in ((3.5, 0), (3.0, 1)):  # the longest dwell is judged
        report = join(log, [said], [], RULES._replace(noise=Noise(accidental_s=accidental_s)))
        assert report.mismatches == report.differing["different"] == differing, report.examples
