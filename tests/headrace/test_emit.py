"""`headrace emit` against a real HTTP server on a free port."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from headrace.commands.emit import command
from headrace.emit import BATCH_EVENTS, EmitFailed, batches, emit, poster, reasons


class Events(BaseHTTPRequestHandler):
    """Accepts an event with a user_id."""

    batches: list[int]

    def do_POST(self) -> None:
        events = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).batches.append(len(events))
        verdicts = [{"accepted": True} if event.get("user_id") else {"accepted": False, "reason": "empty_id", "detail": "user_id is empty"}
                    for event in events]
        body = json.dumps({"verdicts": verdicts}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def engine():
    handler = type("Handler", (Events,), {"batches": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler.batches
    server.shutdown()
    thread.join()
    server.server_close()


def test_accepted_and_refused_with_line_numbers(engine):
    app = typer.Typer()
    app.command()(command)
    lines = '{"user_id": "u"}\n\n{"user_id": ""}\n{nope\n[1]\n{"user_id": "v"}\n'
    done = CliRunner().invoke(app, ["--engine", engine[0]], input=lines)
    assert done.exit_code == 1
    assert "2 accepted, 3 refused" in done.output
    for text in ("line 3: refused: empty_id: user_id is empty", "line 4: refused: no JSON", "line 5: refused: no JSON object"):
        assert text in done.output
    good = CliRunner().invoke(app, ["--engine", engine[0]], input='{"user_id": "u"}')
    assert (good.exit_code, good.output.strip()) == (0, "1 accepted, 0 refused")


def test_large_input_goes_in_batches(engine):
    with httpx.Client() as client:
        verdicts = emit(('{"user_id": "u"}' for _ in range(2 * BATCH_EVENTS + 1)), poster(engine[0], client))
    assert verdicts.accepted == sum(engine[1]) == 2 * BATCH_EVENTS + 1
    assert max(engine[1]) <= BATCH_EVENTS


def test_a_slow_input_is_not_held_back(engine):
    def slow():
        yield '{"user_id": "u"}'
        time.sleep(0.3)
        yield '{"user_id": "v"}'

    with httpx.Client() as client:
        emit(slow(), poster(engine[0], client))
    assert engine[1] == [1, 1]


def test_nobody_there_and_answers_that_are_none():
    app = typer.Typer()
    app.command()(command)
    done = CliRunner().invoke(app, ["--engine", "http://127.0.0.1:1"], input='{"user_id": "u"}')
    assert done.exit_code == 2 and "does not answer" in done.output and "lines from 1 on" in done.output
    for answer in ({"detail": "no"}, [], [{"accepted": True}] * 2, None):
        with pytest.raises(EmitFailed, match="no verdict for each"):
            reasons(answer, 1)


@given(st.lists(st.text(alphabet="ab \n", max_size=3), max_size=60))
def test_batches_keep_every_line_and_its_number(lines):
    got = [pair for batch in batches(lines) for pair in batch]
    assert got == [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
