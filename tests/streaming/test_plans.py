"""What Flink plans for the four jobs: a Python stage once a row, no shuffle around the features stage, inserts only."""

import re

import pytest

pyflink = pytest.importorskip("pyflink")

from headrace.streaming import eager, fast, features, samples, training, vectors  # noqa: E402
from headrace.streaming.featurize import Addresses, featurize  # noqa: E402
from headrace.streaming.learn import Lesson, learn  # noqa: E402
from headrace.streaming.tables import Connection  # noqa: E402
from headrace.streaming.vectorize import vectorize  # noqa: E402

CONNECTION = Connection("127.0.0.1:1", "http://127.0.0.1:1")
ADDRESSES = Addresses("127.0.0.1:1", "http://127.0.0.1:1", "127.0.0.1:1", ("127.0.0.1:1",))


# Operators that keep the rows they are given.
KEEPERS = ("OverAggregate(", "IntervalJoin(", "WindowAggregate(", "TemporalSort(", "Deduplicate(", "Rank(")


def plan(env, statements, inserts, options=None):
    for key, value in (options or {}).items():
        env.get_config().set(key, value)
    for statement in statements:
        env.execute_sql(statement)
    wanted = env.create_statement_set()
    for insert in inserts:
        wanted.add_insert_sql(insert)
    text = wanted.explain()
    return text[text.index("== Optimized Execution Plan =="):]


def test_the_features_stage_is_chained_and_evaluated_once(flink_env):
    env = flink_env()
    env.create_temporary_function("featurize", featurize(ADDRESSES, 1, 65536))
    text = plan(env, features.tables(CONNECTION), [features.insert()])
    assert len(re.findall(r"featurize\(", text)) == 1
    assert "Exchange" not in text


def test_training_learns_once_a_sample_though_two_rows_leave(flink_env):
    env = flink_env()
    env.create_temporary_function("learn", learn(ADDRESSES, Lesson("fm", "click", 0.0, 4096)))
    text = plan(env, training.tables(CONNECTION, "fm"), [training.insert("fm", "click")])
    assert len(re.findall(r"learn\(", text)) == 1
    assert text.index("Correlate") < text.index("PythonCalc"), "the rows are doubled after the stage"


def test_of_several_targets_the_stage_is_told_and_features_of_the_others_stay_behind(flink_env):
    env = flink_env()
    env.create_temporary_function("learn", learn(ADDRESSES, Lesson("fm", "click", 0.0, 4096, several=True, judged=True)))
    text = plan(env, training.tables(CONNECTION, "fm"), training.inserts("fm", "click", several=True, judged=True))
    assert len(re.findall(r"learn\(", text)) == 1 and text.count("CASE((target = 'click'), feature_keys") == 1


def test_vectors_are_made_once_an_id(flink_env):
    env = flink_env()
    env.create_temporary_function("vectorize", vectorize(ADDRESSES, "fm"))
    text = plan(env, vectors.tables(CONNECTION, "fm"), [vectors.insert("fm")])
    assert len(re.findall(r"vectorize\(", text)) == 1


def inputs(text):
    """(operator, its inputs) of each line of a plan. A branch is three characters wide: "   ", ":  ", ":- " or "+- "."""
    found, above = [], {}
    for line in text.splitlines()[1:]:
        branch = re.match(r"(   |:  |:- |\+- )*", line).group()
        operator = (line[len(branch):], [])
        if branch:
            above[len(branch) - 3][1].append(operator[0])
        above[len(branch)] = operator
        found.append(operator)
    return [one for one in found if one[0]]


@pytest.fixture
def waiting(flink_env):
    """The plan of the samples job, strategy wait."""
    statements = samples.tables(CONNECTION, 200) + samples.views(1000, "click", 200)
    return plan(flink_env(), statements, samples.inserts("click"), samples.ONE_PHASE)


def test_samples_read_their_topic_once_and_only_insert(waiting):
    assert waiting.count("TableSourceScan") == 1, "one source: one watermark for exposures and actions"
    assert "changelogMode" not in waiting and "ChangelogNormalize" not in waiting and "Deduplicate" not in waiting
    assert "IntervalJoin(joinType=[LeftOuterJoin]" in waiting
    assert waiting.count("OverAggregate(") == 2


def test_the_payload_is_kept_for_one_join_and_the_sort_is_last(waiting):
    kept = [operator for operator, _ in inputs(waiting) if operator.startswith(KEEPERS) and "feature_keys" in operator]
    assert [one.split("(")[0] for one in kept] == ["IntervalJoin"], "the sort's line names no columns but those it sorts by"
    steps = [step for operator, _ in inputs(waiting) if (step := operator.split("(")[0]) != "Calc"]
    sink = steps.index("Sink")
    assert steps[sink:sink + 4] == ["Sink", "TemporalSort", "Exchange", "IntervalJoin"]
    assert "orderBy=[ts ASC, source ASC, partition ASC, offset ASC]" in waiting


def test_what_keeps_rows_stands_behind_a_shuffle(flink_env, waiting):
    """Where objects are reused, a row handed on within a chain is overwritten by the next."""
    early = plan(flink_env(), samples.tables(CONNECTION, 200) + eager.views(1000, "click", 200), eager.inserts("click"))
    for text in (waiting, early):
        keepers = [one for one in inputs(text) if one[0].startswith(KEEPERS)]
        assert len(keepers) >= 4
        for operator, before in keepers:
            assert before and all(one.startswith("Exchange(") for one in before), operator


def test_under_fast_exposures_leave_at_once_and_training_reads_two_topics(flink_env):
    text = plan(flink_env(), [*fast.tables(CONNECTION, 200), *fast.views(1000, "click", 200)], fast.inserts("click"))
    assert "changelogMode" not in text and text.count("Sink(table=[default_catalog.default_database.provisional]") == 1
    env = flink_env()
    for name in ("learn", "learn_provisional"):
        env.create_temporary_function(name, learn(ADDRESSES, Lesson("fm", "click", 0.0, 4096, provisional=name != "learn")))
    text = plan(env, training.tables(CONNECTION, "fm", True, True), training.inserts("fm", "click", True, True))
    assert len(re.findall(r"learn\(", text)) == len(re.findall(r"learn_provisional\(", text)) == 1
    assert text.count("TableSourceScan") == 2


@pytest.mark.parametrize("strategy", ["wait", "eager", "fast"])
@pytest.mark.parametrize("window_ms", [99_999, 600_000, 90 * 86_400_000])
def test_a_window_may_be_of_minutes_and_of_months(flink_env, strategy, window_ms):
    of = {"wait": samples, "eager": eager, "fast": fast}[strategy]
    text = plan(flink_env(), [*of.tables(CONNECTION, 200), *of.views(window_ms, "click", 200)], of.inserts("click"))
    assert str(window_ms) in text


def test_a_target_with_a_quote_cannot_leave_its_literal(flink_env):
    with pytest.raises(ValueError, match="target"):
        samples.views(1000, "click' OR '1'='1", 200)
