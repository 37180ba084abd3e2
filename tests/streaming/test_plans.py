"""What Flink plans for the four jobs: a Python stage once a row, no shuffle around the features stage, inserts only."""

import re

import pytest

pyflink = pytest.importorskip("pyflink")

from headrace.streaming import features, samples, training, vectors  # noqa: E402
from headrace.streaming.featurize import Addresses, featurize  # noqa: E402
from headrace.streaming.learn import Lesson, learn  # noqa: E402
from headrace.streaming.tables import Connection  # noqa: E402
from headrace.streaming.vectorize import vectorize  # noqa: E402

CONNECTION = Connection("127.0.0.1:1", "http://127.0.0.1:1")
ADDRESSES = Addresses("127.0.0.1:1", "http://127.0.0.1:1", "127.0.0.1:1", ("127.0.0.1:1",))


def plan(env, statements, inserts):
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


def test_vectors_are_made_once_an_id(flink_env):
    env = flink_env()
    env.create_temporary_function("vectorize", vectorize(ADDRESSES, "fm"))
    text = plan(env, vectors.tables(CONNECTION, "fm"), [vectors.insert("fm")])
    assert len(re.findall(r"vectorize\(", text)) == 1


def test_samples_read_their_topic_once_and_only_insert(flink_env):
    text = plan(flink_env(), samples.tables(CONNECTION, 200) + samples.views(1000, "click"), samples.inserts("click"))
    assert text.count("TableSourceScan") == 1, "one source: one watermark for exposures and actions"
    assert "changelogMode" not in text and "ChangelogNormalize" not in text and "Deduplicate" not in text
    assert "IntervalJoin(joinType=[LeftOuterJoin]" in text
    assert text.count("OverAggregate(") == 2


def test_a_target_with_a_quote_cannot_leave_its_literal(flink_env):
    with pytest.raises(ValueError, match="target"):
        samples.views(1000, "click' OR '1'='1")
