"""Other people's names, and other people's tools: a project with its own features/, jobs/, models/ and streaming/, and Flink's own
`flink run`."""

import subprocess
import sys

import pytest

from headrace import kafka
from headrace.features.layout import F
from headrace.schemas.topics import Topic
from tests.end_to_end.conftest import environment
from tests.end_to_end.outside import events, until

CLASHING = ("features", "jobs", "models", "streaming", "schemas", "ps", "ann", "engine", "rpc")
TOPIC = "test-names"
JOB = '''
"""A user's own job, in a project whose packages are called as ours."""
import features                        # the user's own
from headrace.config import load
from headrace.features.layout import F
from headrace.jobs.launch import connection, settings
from headrace.schemas.hashing import feature_key
from headrace.streaming.environment import environment
from headrace.streaming.stage import Stage, vectorised
from headrace.streaming.tables import raw_sink
from pyflink.table import DataTypes

assert features.OWN == "the user's", features


class Hash(Stage):
    def open(self, function_context):
        pass

    def eval(self, number):
        return number.map(lambda one: str(feature_key("user_id", str(one)) % F).encode())


config = load()
env = environment(settings("names", config))
env.create_temporary_function("hash_of", vectorised(Hash(), DataTypes.BYTES()))
env.execute_sql("CREATE TEMPORARY TABLE numbers (n BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '100')")
env.execute_sql(raw_sink(connection(config), "hashed", "test-names"))
print("submitted", env.execute_sql("INSERT INTO hashed SELECT hash_of(n), hash_of(n) FROM numbers").get_job_client().get_job_id())
'''


@pytest.fixture
def project(tmp_path):
    """A folder with packages that clash with our rooms: who imports them by mistake is told so."""
    for name in CLASHING:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text('OWN = "the user\'s"\n')
        for module in ("layout", "train", "launch", "fm", "learn", "codec", "client", "config"):
            (tmp_path / name / f"{module}.py").write_text(f'raise ImportError("the user\'s {name}/{module}.py was taken for ours")\n')
    (tmp_path / "names.py").write_text(JOB)
    return tmp_path


@pytest.fixture
def shell(stack):
    """shell(script, folder): bash with `eval "$(headrace env)"` done, as the README says; its output."""

    def run(script, folder):
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", f'eval "$(headrace env)"\n{script}'], cwd=folder, capture_output=True,
                              text=True, check=False, env=environment(HEADRACE_STACK__DATA_DIR=str(stack.stack.data_dir)))
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_commands_from_a_folder_with_our_names(loop, on_stack, project):
    listed = on_stack("jobs", "list", cwd=project)
    assert listed.returncode == 0, listed.stderr
    assert {"features", "samples", "train", "vectors"} <= {line.split()[0] for line in listed.stdout.splitlines()}
    found = on_stack("status", cwd=project)
    assert found.returncode == 0, found.stderr
    assert "flink-taskmanager" in found.stdout and "logs/flink-taskmanager.log" in found.stdout  # nothing is cut off in a pipe


def test_a_flink_job_from_a_folder_with_our_names(loop, shell, project):
    kafka.ensure_topics(loop.config.kafka.bootstrap, [Topic(TOPIC, "labels", partitions=1)])
    before = sum(loop.offsets(TOPIC).values())
    assert "submitted" in shell("flink run -d -py names.py", project)
    until(lambda: sum(loop.offsets(TOPIC).values()) - before >= 100, "the rows of the user's own job")


def test_a_second_trainer_by_flinks_own_command_changes_no_sum(loop, shell, tmp_path):
    """Both trainers push every sample; a shard applies each cause once and drops the other as a duplicate."""
    [first] = loop.jobs()["train"]
    train = subprocess.run([sys.executable, "-c", "import headrace.jobs.train as job; print(job.__file__)"], capture_output=True, text=True,
                           check=True).stdout.strip()
    shell(f"flink run -d -py {train}", tmp_path)
    [second] = set(loop.jobs()["train"]) - {first}
    try:
        until(lambda: all(vertex["status"] == "RUNNING" for vertex in loop.flink(f"/jobs/{second}")["vertices"]), "the second trainer runs")
        until(lambda: pushed_twice(loop), "both trainers push")
        applied, counts, duplicates, samples = loop.applied(), loop.counts(), loop.duplicates(), loop.offsets("samples")
        items = [f"twice-{n}" for n in range(200)]
        assert loop.post("/events", events("twice", items, "impression", "click")).json()["accepted"] == 400
        loop.learnt(applied, len(items))
        until(lambda: all(now > then for now, then in zip(loop.duplicates(), duplicates, strict=True)), "duplicates, dropped on each shard")
        settled(loop)
        assert len(loop.samples(samples)) == len(items)
        assert [now - then for now, then in zip(loop.applied(), applied, strict=True)] == [len(items)] * 2
        assert loop.counts() - counts == len(items) * F
    finally:
        loop.http.patch(f"{loop.config.flink.url}/jobs/{second}?mode=cancel")
        until(lambda: second not in loop.jobs().get("train", []), "the second trainer is gone")
    assert loop.jobs()["train"] == [first]


def pushed_twice(loop):
    """Send a click; whether a trainer was told that another had pushed its sample already."""
    applied, duplicates = loop.applied(), loop.duplicates()
    assert loop.post("/events", events("twice", ["warm"], "impression", "click")).status_code == 200
    loop.learnt(applied, 1)
    return loop.duplicates() != duplicates


def settled(loop):
    """Wait until every trainer has committed, by a checkpoint, all that the topic holds: none has a sample in hand."""
    for job in loop.jobs()["train"]:
        done = loop.flink(f"/jobs/{job}/checkpoints")["counts"]["completed"]
        until(lambda job=job, done=done: loop.flink(f"/jobs/{job}/checkpoints")["counts"]["completed"] >= done + 2, "two checkpoints")
