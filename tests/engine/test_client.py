"""headrace.Client against the engine behind a real uvicorn."""

import socket
import subprocess
import sys

import pytest

from headrace import Client, EngineError
from headrace.roles.engine import _serve
from tests.engine.world import WALL_MS


@pytest.fixture
def url():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{s.getsockname()[1]}"


@pytest.fixture
def client(world, url):
    end = _serve(world.http.app, url)
    with Client(url) as client:
        yield client
    end()


def test_every_call(client, world):
    assert client.emit({"user_id": "u1", "item_id": "i1", "action": "click"})["accepted"] == 1
    verdicts = client.emit([{"user_id": "u1", "item_id": "i1", "action": "click"}, {}])["verdicts"]
    assert [verdict["accepted"] for verdict in verdicts] == [True, False]
    answer = client.recommend("u1", 3, context={"hour": "7"}, explain=True, preview=True)
    assert len(answer["items"]) == 3 and answer["items"][0]["explain"] and world.impressions == []
    assert client.recall("u1", 2)["items"] and client.similar("i3", 2)["items"]
    assert client.score("u1", ["i1"], ts_ms=WALL_MS)["ts_ms"] == WALL_MS


def test_errors_are_sentences(client, world, url):
    with pytest.raises(EngineError, match="n: ") as refused:
        client.recommend("u1", 0)
    assert (refused.value.status, refused.value.field) == (422, "n")
    with pytest.raises(EngineError, match="JSON"):
        client.emit({"user_id": {1}, "item_id": "i", "action": "click"})
    world.stop("replica")
    with pytest.raises(EngineError, match="headrace status") as down:
        client.score("u1", ["i1"])
    assert down.value.status == 503


def test_nobody_answers(url):
    with pytest.raises(EngineError, match="does not answer"):
        Client(url).recall("u1")


def test_a_taken_port_is_said(world):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="port taken"):
            _serve(world.http.app, f"http://127.0.0.1:{taken.getsockname()[1]}")


def test_the_client_needs_the_base_install_only():
    script = ("import sys, headrace; from headrace import Client; Client('http://127.0.0.1:1').close();"
              "print([name for name in ('pyarrow', 'numpy', 'numba', 'faiss', 'fastapi', 'confluent_kafka') if name in sys.modules])")
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip() == "[]"
