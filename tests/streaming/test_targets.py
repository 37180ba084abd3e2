"""Samples of several targets: what Flink makes of a log is what a slow twin makes of it, and what it plans keeps the payload once."""

import json
import random

import pytest

pytest.importorskip("pyflink")

from headrace.schemas.targets import QUIET, Noise, Target
from headrace.streaming import samples, targets
from headrace.streaming.columns import columns
from tests.naive_samples import joined
from tests.streaming.test_plans import CONNECTION, KEEPERS, inputs, plan

CLICK = Target("click", "click", 1000)
SEVERAL = (CLICK, Target("like", "like", 20_000), Target("read", "dwell", 8000, 5.5), Target("click-late", "click", 4000))
SLACK_MS = 200


def log(seed, events=900):
    """Events of few users and items, so that they meet again; in the order of time."""
    rng, now, made = random.Random(seed), 10_000, []
    for offset in range(events):
        now += rng.randrange(150)
        action = rng.choice(["impression"] * 4 + ["click", "click", "like", "dwell", "dwell", "hide"])
        made.append({"offset": offset, "action": action, "value": float(rng.randrange(12)) if action == "dwell" else 1.0, "ts_ms": now,
                     "request_id": rng.choice([None, f"r{offset // 25}"]), "user_id": f"u{rng.randrange(12)}",
                     "item_id": f"i{rng.randrange(4)}"})
    return made


def listed(actions):
    """Those of a sample, which come in no order."""
    return sorted(filter(None, actions.split(",")))


def enriched(one):
    """A record of `enriched` of an event."""
    rest = {"source": 7, "partition": 0, "event_id": str(one["offset"]), "scene": "", "feature_set": "", "feature_keys": "",
            "feature_values": "", "numbers": "", "features_sequence": 0, "model": None, "version": None, "score": None, "arms": [],
            "newest_ms": one["ts_ms"]}
    return rest | one | {"e_offset": one["offset"]}


def ran(env, views, made, folder, *wanted):
    """Rows of each view `wanted` (name, columns), of the job's own views over a file in the place of Kafka."""
    (folder / "log.json").write_text("".join(json.dumps(enriched(one)) + "\n" for one in made))
    body = ",\n".join([*(f"`{name}` {type_}" for name, type_ in columns("enriched", samples._READ)), "`e_offset` BIGINT NOT NULL",
                       "`ts` AS TO_TIMESTAMP_LTZ(`ts_ms`, 3)", "WATERMARK FOR `ts` AS `ts` - INTERVAL '0.2' SECOND"])
    env.get_config().set("parallelism.default", "1")
    env.execute_sql(f"CREATE TEMPORARY TABLE enriched ({body}) WITH ('connector' = 'filesystem', 'path' = 'file://{folder}/log.json',"
                    " 'format' = 'json')")
    for view in views:
        env.execute_sql(view)
    found = []
    for name, names in wanted:
        with env.execute_sql(f"SELECT {samples.listed(names)} FROM {name}").collect() as rows:
            found.append([tuple(row) for row in rows])
    return found


@pytest.mark.parametrize(("of", "noise"), [
    (SEVERAL, QUIET), ((CLICK,), QUIET), ((SEVERAL[1], CLICK), QUIET), (SEVERAL, Noise(3000, 4.0)), ((CLICK, SEVERAL[3]), Noise(6000)),
    ((CLICK, SEVERAL[2]), Noise(0, 6.0))], ids=["several", "one", "widest first", "with noise", "repeated", "accidental"])
def test_the_samples_of_every_target_are_those_of_the_twin(flink_env, tmp_path, of, noise):
    made = log(len(of))
    names = ("offset", "target", "label", "actions", "action_ts_ms")
    also = [("repeated", ("offset",))] * bool(noise.repeated_ms)
    rows, orphans, *again = ran(flink_env(), targets.views(of, SLACK_MS, noise), made, tmp_path, ("closed", names),
                                ("orphans", ("offset",)), *also)
    found = {(offset, target): (label, listed(actions), at) for offset, target, label, actions, at in rows}
    expected, without, left_out = joined(made, of, *noise)
    assert len(rows) == len(found) == len(expected) > 100 * len(of) and found == expected
    assert [{offset for offset, in one} for one in again] == [left_out] * len(also) and bool(left_out) == bool(also)
    assert {offset for offset, in orphans} == without and len(without) > 20
    positive = {one.name: sum(label for (_, target), (label, _, _) in found.items() if target == one.name) for one in of}
    assert all(count > 3 for count in positive.values()), positive
    assert bool(noise.accidental_s) == any(label == 0 and at is not None for label, _, at in found.values())


def test_one_target_is_what_the_job_of_one_target_makes(flink_env, tmp_path):
    made, names, found = log(5), ("offset", "label", "actions", "action_ts_ms"), []
    for views in (targets.views((CLICK,), SLACK_MS), samples.views(CLICK.window_ms, "click", SLACK_MS)):
        rows, = ran(flink_env(), views, made, tmp_path, ("closed", names))
        found.append({offset: (label, listed(actions), at) for offset, label, actions, at in rows})
    assert found[0] == found[1] and len(rows) == len(found[0]) > 300


@pytest.fixture(params=[QUIET, Noise(3000, 4.0)], ids=["quiet", "with noise"])
def planned(flink_env, request):
    statements = samples.tables(CONNECTION, 200) + targets.views(SEVERAL, 200, request.param)
    return plan(flink_env(), statements, targets.inserts(request.param), samples.ONE_PHASE)


def test_the_payload_is_kept_once_for_all_targets_and_the_sort_is_last(planned):
    assert planned.count("TableSourceScan") == 1 and "changelogMode" not in planned
    kept = [operator for operator, _ in inputs(planned) if operator.startswith(KEEPERS) and "feature_keys" in operator]
    assert [one.split("(")[0] for one in kept] == ["IntervalJoin"]
    steps = [step for operator, _ in inputs(planned) if (step := operator.split("(")[0]) != "Calc"]
    sink = steps.index("Sink")
    assert steps[sink:sink + 5] == ["Sink", "TemporalSort", "Exchange", "Correlate", "IntervalJoin"]
    sort = next(one for one, _ in inputs(planned) if one.startswith("TemporalSort("))
    assert "orderBy=[ts ASC, source ASC, partition ASC, offset ASC, " in sort


def test_what_keeps_rows_stands_behind_a_shuffle(planned):
    keepers = [one for one in inputs(planned) if one[0].startswith(KEEPERS)]
    assert len(keepers) >= 4
    for operator, before in keepers:
        assert before and all(one.startswith("Exchange(") for one in before), operator


@pytest.mark.parametrize("odd", [Target("like'", "like", 1), Target("like", "like' OR '1'='1", 1)])
def test_a_name_with_a_quote_cannot_leave_its_literal(odd):
    with pytest.raises(ValueError, match="no action name"):
        targets.views((CLICK, odd), 200)
