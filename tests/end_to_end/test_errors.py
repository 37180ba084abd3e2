"""What a user gets wrong, or the world does: a sentence within ten seconds, an exit code, and nothing left behind."""

import json
import socket
import subprocess
import time

import pyarrow.parquet
import pytest

from headrace import ports
from headrace.config import Config, show
from tests.end_to_end.conftest import headrace, with_free_ports
from tests.end_to_end.test_accounts import MAPPING

SOON_S = 10.0
NOWHERE = "127.0.0.1:1"


def refused(done: subprocess.CompletedProcess, code: int, *words: str) -> None:
    """One sentence on stderr with `words` in it, no traceback, and the exit code."""
    said = done.stderr.replace("\n", " ")
    assert done.returncode == code, done.stdout + done.stderr
    assert said.startswith("error: ") and "Traceback" not in said
    for word in words:
        assert word in said, said


@pytest.mark.parametrize("arguments", [["up"], ["status"], ["jobs", "list"], ["config", "show"], ["env"], ["emit"]])
def test_a_typo_in_the_configuration(tmp_path, arguments):
    (tmp_path / "headrace.toml").write_text("[engine]\ncandidate = 100\n")
    refused(headrace(*arguments, cwd=tmp_path), 2, "headrace.toml", "unknown key 'engine.candidate'", "the nearest is 'engine.candidates'")
    assert [path.name for path in tmp_path.iterdir()] == ["headrace.toml"]


def test_a_typo_in_the_environment(tmp_path):
    refused(headrace("status", cwd=tmp_path, HEADRACE_KAFKA__BOOTSTARP="x"), 2, "the nearest is 'kafka.bootstrap'")


@pytest.mark.parametrize("detach", [[], ["--detach"]])
def test_a_port_in_use(tmp_path, detach):
    config = with_free_ports(Config())
    config.stack.data_dir = tmp_path / "data"
    (tmp_path / "headrace.toml").write_text(show(config))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports.port_of(config.engine.url)))
        taken.listen()
        done = headrace("up", *detach, cwd=tmp_path)
    refused(done, 1 if detach else 2, "engine.url", config.engine.url, "something else listens there")
    assert headrace("status", cwd=tmp_path).returncode == 1
    assert not any(ports.answers(address) for address in (config.kafka.bootstrap, config.registry.url, config.flink.url))


def test_replay_without_a_broker(tmp_path, kuairand):
    started = time.monotonic()
    refused(headrace("replay", str(kuairand), "--mapping", str(MAPPING), cwd=tmp_path, HEADRACE_KAFKA__BOOTSTRAP=NOWHERE), 1,
            f"no Kafka broker answers at {NOWHERE}", "headrace status")
    assert time.monotonic() - started < SOON_S


def test_jobs_without_a_cluster(tmp_path):
    started = time.monotonic()
    for verb in ("submit", "list", "stop"):
        refused(headrace("jobs", verb, cwd=tmp_path, HEADRACE_FLINK__URL=f"http://{NOWHERE}"), 1, f"http://{NOWHERE}", "headrace status")
    assert time.monotonic() - started < SOON_S


def test_jobs_without_a_broker(loop, on_stack, stack):
    stopped = on_stack("jobs", "stop", "vectors")
    assert stopped.returncode == 0, stopped.stderr
    try:
        started = time.monotonic()
        data = str(stack.stack.data_dir)
        refused(headrace("jobs", "submit", HEADRACE_STACK__DATA_DIR=data, HEADRACE_KAFKA__BOOTSTRAP=NOWHERE), 1,
                f"no Kafka broker answers at {NOWHERE}", "headrace status")
        assert time.monotonic() - started < SOON_S
        assert set(loop.jobs()) == {"features", "samples", "train"}
    finally:
        resumed = on_stack("jobs", "resume", "vectors")
    assert resumed.returncode == 0, resumed.stderr


def test_the_engine_and_emit_without_a_stack(tmp_path):
    refused(headrace("emit", "--engine", f"http://{NOWHERE}", cwd=tmp_path, stdin='{"user_id": "u", "item_id": "i", "action": "click"}\n'),
            2, f"http://{NOWHERE}", "headrace")


def test_a_file_that_is_missing_or_lacks_a_mapped_column(on_stack, loop, kuairand, tmp_path):
    before = loop.offsets("samples")
    refused(on_stack("replay", str(tmp_path / "none.parquet"), "--mapping", str(MAPPING)), 1, "none.parquet", "No such file")
    refused(on_stack("replay", str(kuairand), "--mapping", str(tmp_path / "none.toml")), 1, "none.toml", "cannot be read")
    lacking = tmp_path / "lacking.parquet"
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(kuairand).drop_columns(["hour"]), lacking)
    refused(on_stack("replay", str(lacking), "--mapping", str(MAPPING)), 1, "lacking.parquet", "no column 'hour'", "its columns: ")
    text = tmp_path / "text.parquet"
    text.write_text("PAR1 but no parquet")
    refused(on_stack("replay", str(text), "--mapping", str(MAPPING)), 1, "text.parquet")
    assert loop.offsets("samples") == before


def test_a_body_that_is_too_large(loop):
    event = {"user_id": "u", "item_id": "i", "action": "impression", "context": {"text": "x" * 1000}}
    answer = loop.post("/events", [event] * 1100)
    assert (answer.status_code, answer.json()["field"]) == (413, "body")
    assert answer.json()["error"] and answer.json()["next"]
    one = loop.post("/events", {**event, "context": {f"c{n}": "x" * 1024 for n in range(64)}})
    assert (one.status_code, one.json()["verdicts"][0]["reason"]) == (422, "oversized")
    many = loop.post("/events", [event] * 1001 if len(json.dumps([event] * 1001)) < 1 << 20 else [{}] * 1001)
    assert (many.status_code, many.json()["field"]) == (422, "body")
