"""headrace.Client and AsyncClient: the same tests in the same process and against a real uvicorn; tries until the deadline."""

import asyncio
import inspect
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from headrace import AsyncClient, Client, EngineError
from headrace.roles.engine import _serve
from tests.engine.world import WALL_MS, InProcess

CLICK = {"user_id": "u1", "item_id": "i1", "action": "click"}


def free_url():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{s.getsockname()[1]}"


class Awaited:
    """An AsyncClient as one that waits, on a loop of its own."""

    def __init__(self, *given, **more):
        self._loop = asyncio.new_event_loop()
        self._client = AsyncClient(*given, **more)

    def __getattr__(self, name):
        return lambda *given, **more: self._loop.run_until_complete(getattr(self._client, name)(*given, **more))

    def end(self):
        self.close()
        self._loop.close()


@pytest.fixture(params=["in process", "in process, async", "local", "local, async"])
def client(request, world):
    if request.param == "in process":
        with Client("http://engine", 2.0, transport=InProcess(world.http.app)) as client:
            yield client
        return
    if request.param == "in process, async":
        client = Awaited("http://engine", 2.0, transport=httpx.ASGITransport(world.http.app, raise_app_exceptions=False))
        yield client
        client.end()
        return
    url = free_url()
    end = _serve(world.http.app, url)
    if request.param == "local":
        with Client(url, 2.0) as client:
            yield client
    else:
        client = Awaited(url, 2.0)
        yield client
        client.end()
    end()


def test_every_call(client, world):
    assert client.emit(CLICK).accepted == 1
    assert [verdict.accepted for verdict in client.emit([CLICK, {}]).verdicts] == [True, False]
    answer = client.recommend("u1", 3, context={"hour": "7"}, explain=True, preview=True)
    assert len(answer.items) == 3 and answer.items[0].explain.slots and world.impressions == []
    assert client.explain("u1", 3).items[0].explain.recall.source == "ann" and world.impressions == []
    assert len(client.recommend("u1", 3).items) == len(world.impressions) == 3
    assert client.recall("u1", 2).items and client.similar("i3", 2).items and client.recall("u1").found
    scores = client.score("u1", ["i1", "i2"], ts_ms=WALL_MS)
    assert scores.ts_ms == WALL_MS and scores.items[1].score == pytest.approx(world.probability("u1", "i2"), abs=1e-6)
    seen = client.features("u1", "i3", ts_ms=WALL_MS, context={"hour": "7"})
    assert seen.ts_ms == WALL_MS and [slot.name for slot in seen.slots][-1] == "item_id=i3" and seen.features_sequence == 41


def test_errors_are_sentences(client, world):
    with pytest.raises(EngineError, match="n: ") as refused:
        client.recommend("u1", 0)
    assert (refused.value.status, refused.value.field) == (422, "n")
    with pytest.raises(EngineError, match="cannot be sent as JSON: object"):
        client.emit({**CLICK, "value": object()})
    world.stop("replica")
    with pytest.raises(EngineError, match="headrace status") as down:
        client.score("u1", ["i1"])
    assert down.value.status == 503


def test_what_the_log_did_not_take_is_sent_again_alone(client, world):
    world.undelivered = {"i2": "the broker is away"}
    threading.Timer(0.4, world.undelivered.clear).start()
    done = client.emit([CLICK, {**CLICK, "item_id": "i2"}, {}])
    assert (done.accepted, done.refused) == (2, 1) and [verdict.accepted for verdict in done.verdicts] == [True, True, False]
    items = [record["item_id"] for _, record in world.sent]
    assert items.count("i1") == 1 and items.count("i2") > 1
    assert len({record["event_id"] for _, record in world.sent if record["item_id"] == "i2"}) == 1


def test_both_clients_have_the_same_calls():
    def calls(of):
        return {name: inspect.signature(call).parameters for name, call in vars(of).items() if not name.startswith("_")}

    assert {name: [*parameters.values()] for name, parameters in calls(Client).items()} == \
        {name: [*parameters.values()] for name, parameters in calls(AsyncClient).items()}


class Scripted:
    """A server that answers each request with the next of `answers`: (status, headers, body), or None to hang up."""

    def __init__(self, *answers):
        self.answers, self.bodies = list(answers), []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def _any(self):
                outer.bodies.append(self.rfile.read(int(self.headers.get("content-length", 0))))
                answer = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                if answer is None:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                status, headers, body = answer
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = _any

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


NEAR = b'{"found": true, "items": [], "sequence": 1, "new_name": 1}'
LIST = b'{"request_id": "r", "user": "u", "scene": "", "ts_ms": 1, "fallback": null, "preview": false, "items": []}'
DONE = b'{"accepted": 1, "refused": 0, "verdicts": [{"accepted": true, "event_id": "e"}]}'


def test_reads_and_events_are_tried_again_and_events_keep_their_id():
    with Scripted(None, (503, {}, b"{}"), (200, {}, NEAR)) as server, Client(server.url) as client:
        assert client.recall("u").sequence == 1 and len(server.bodies) == 3
    with Scripted(None, None, (200, {}, DONE)) as server, Client(server.url) as client:
        assert client.emit(CLICK).accepted == 1
        assert len(server.bodies) == 3 and len(set(server.bodies)) == 1 and b"event_id" in server.bodies[0]


def test_verdicts_are_an_answer_though_all_are_refused_and_another_422_is_an_error():
    refused = b'{"error": "no event was accepted", "accepted": 0, "refused": 1, "verdicts": [{"accepted": false, "reason": "bad_ts"}]}'
    with Scripted((422, {}, refused)) as server, Client(server.url) as client:
        assert client.emit(CLICK).verdicts[0].reason == "bad_ts"
    many = b'{"error": "body: too many", "next": "mend body"}'
    with Scripted((422, {}, many)) as server, Client(server.url) as client, pytest.raises(EngineError, match="too many"):
        client.emit(CLICK)
    with Scripted((200, {}, DONE[:-1] + b', "note": "it waits"}')) as server, Client(server.url) as client:
        assert client.emit(CLICK).note == "it waits"


def test_a_recommendation_that_writes_is_not_asked_for_twice_once_it_may_have_been_taken():
    with Scripted(None, (200, {}, LIST)) as server, Client(server.url) as client:
        with pytest.raises(EngineError, match="does not answer"):
            client.recommend("u")
        assert len(server.bodies) == 1
    with Scripted((503, {}, b"{}"), (200, {}, LIST)) as server, Client(server.url) as client:
        assert client.recommend("u").request_id == "r" and len(server.bodies) == 2


def test_retry_after_and_the_deadline_are_kept():
    with Scripted((503, {"retry-after": "1"}, b"{}"), (200, {}, NEAR)) as server, Client(server.url) as client:
        began = time.monotonic()
        client.recall("u")
        assert time.monotonic() - began >= 1.0
    with Scripted((503, {"retry-after": "60"}, b'{"error": "busy", "next": "later"}')) as server, Client(server.url, 0.5) as client:
        with pytest.raises(EngineError, match="busy; later") as said:
            client.recall("u")
        assert said.value.status == 503 and len(server.bodies) == 1


def test_what_is_no_engine_is_said():
    with Scripted((200, {}, b'{"hello": 1}')) as server, Client(server.url) as client, pytest.raises(EngineError, match="is it a headrace"):
        client.recall("u")
    with Scripted((404, {}, b"<html>")) as server, Client(server.url) as client, pytest.raises(EngineError, match="404 without JSON"):
        client.recall("u")


def test_nobody_answers():
    with pytest.raises(EngineError, match="does not answer"):
        Client(free_url(), 0.3).recall("u1")


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
