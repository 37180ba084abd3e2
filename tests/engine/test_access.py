"""Who may ask for what, how many at once, and bodies that never end."""

from __future__ import annotations

import asyncio
import json
import os
import time

import pytest
from fastapi.testclient import TestClient

from headrace.engine.access import SCOPE_OF, Access, InFlight
from headrace.engine.keys import SCOPES, Keys, KeysError, create, digest, read, revoke
from headrace.engine.limits import BodyLimit


@pytest.fixture
def file(tmp_path):
    return tmp_path / "keys" / "keys.json"


def guarded(world, file):
    return TestClient(Access(world.http.app, Keys(file, look_s=0.0)), raise_server_exceptions=False)


def with_key(token):
    return {"Authorization": f"Bearer {token}"}


REQUESTS = {"/events": ("POST", {"json": {"user_id": "u", "item_id": "i1", "action": "click"}}),
            "/recall": ("GET", {"params": {"user": "u1"}}), "/similar": ("GET", {"params": {"item": "i3"}}),
            "/recommend": ("GET", {"params": {"user": "u1", "preview": 1}}),
            "/score": ("POST", {"json": {"user": "u1", "items": ["i1"]}}), "/clock": ("GET", {}), "/metrics": ("GET", {}),
            "/features": ("GET", {"params": {"user": "u1", "item": "i1"}})}


def test_every_route_asks_for_its_scope_and_no_other(world, file):
    tokens = {scope: create(file, scope, (scope,)) for scope in SCOPES}
    http = guarded(world, file)
    assert set(REQUESTS) == set(SCOPE_OF)
    for path, (method, request) in REQUESTS.items():
        for scope, token in tokens.items():
            answer = http.request(method, path, headers=with_key(token), **request)
            assert answer.status_code == (200 if scope == SCOPE_OF[path] else 403), (path, scope, answer.text)
        answer = http.request(method, path, **request)
        assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
        assert "headrace keys create" in answer.json()["next"]


def test_routes_that_are_not_listed_need_a_key_and_health_none(world, file):
    token = create(file, "a", ("events",))
    http = guarded(world, file)
    routes = {route.path for route in world.http.app.routes if hasattr(route, "methods")}
    assert routes <= {*SCOPE_OF, "/healthz", "/ready", "/openapi.json"}
    assert http.get("/healthz").status_code == http.get("/openapi.json").status_code == 200
    assert http.get("/else").status_code == 401 and http.get("/else", headers=with_key(token)).status_code == 404


@pytest.mark.parametrize("said", ["Bearer ", "Bearer hr_wrong", "Basic dXNlcjpw", "hr_", "Bearer \xff", "bearer"])
def test_what_is_no_key_is_refused(world, file, said):
    create(file, "a", SCOPES)
    assert guarded(world, file).get("/clock", headers=[(b"authorization", said.encode("latin-1"))]).status_code == 401


def test_a_body_is_not_read_of_who_has_no_key(world, file):
    create(file, "a", SCOPES)
    assert guarded(world, file).post("/events", content=b"x" * (2 << 20)).status_code == 401


def test_keys_are_kept_as_hashes_for_their_owner_and_are_taken_away(world, file):
    token = create(file, "feed", ("events", "recall", "events"))
    assert token not in file.read_text() and digest(token) in file.read_text()
    assert os.stat(file).st_mode & 0o077 == 0 and list(file.parent.iterdir()) == [file]
    assert [(key.name, key.scopes) for key in read(file)] == [("feed", ("events", "recall"))]
    http = guarded(world, file)
    assert http.get("/recall", params={"user": "u1"}, headers=with_key(token)).status_code == 200
    other = create(file, "other", ("recall",))
    revoke(file, "feed")
    assert http.get("/recall", params={"user": "u1"}, headers=with_key(token)).status_code == 401
    assert http.get("/recall", params={"user": "u1"}, headers=with_key(other)).status_code == 200
    file.write_text("{")  # half written by another tool: what was known holds
    assert http.get("/recall", params={"user": "u1"}, headers=with_key(other)).status_code == 200


def test_mistakes_with_keys_are_sentences(file):
    with pytest.raises(KeysError, match="no such file of keys; `headrace keys create"):
        Keys(file)
    create(file, "a", ("events",))
    for name, scopes, says in (("a", ("events",), "is taken"), ("", ("events",), "or empty"), ("b", ("all",), "'all' is no scope"),
                               ("b", (), "needs a")):
        with pytest.raises(KeysError, match=says):
            create(file, name, scopes)
    with pytest.raises(KeysError, match="has no key 'c'; it has a"):
        revoke(file, "c")
    for text in ("", "[]", '{"keys": [{}]}', '{"keys": [{"name": "a", "scopes": ["x"], "sha256": "", "made_s": 1}]}'):
        file.write_text(text)
        with pytest.raises(KeysError):
            read(file)


async def asked(app, path="/recall"):
    """(status, headers, body) that an ASGI application answers."""
    sent = []

    async def send(message):
        sent.append(message)

    await app({"type": "http", "path": path, "headers": []}, None, send)
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


def test_more_requests_than_allowed_are_told_when_to_come_again():
    async def run():
        inside, go = asyncio.Semaphore(0), asyncio.Event()

        async def slow(scope, receive, send):
            inside.release()
            await go.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        app = InFlight(slow, 2)
        first = [asyncio.create_task(asked(app)) for _ in range(2)]
        for _ in first:
            await inside.acquire()
        status, headers, body = await asked(app)
        assert status == 503 and headers[b"retry-after"] == b"1" and "engine.requests_max" in json.loads(body)["error"]
        health = asyncio.create_task(asked(app, "/healthz"))
        await inside.acquire()  # let in
        go.set()
        assert [found[0] for found in await asyncio.gather(*first, health)] == [200, 200, 200]
        assert (await asked(app))[0] == 200

    asyncio.run(asyncio.wait_for(run(), 30))


def test_a_body_that_does_not_come_is_answered():
    async def never():
        await asyncio.sleep(60)

    async def application(scope, receive, send):
        raise AssertionError("the body never came")

    sent = []

    async def send(message):
        sent.append(message)

    began = time.monotonic()
    asyncio.run(BodyLimit(application, 100, body_s=0.1)({"type": "http", "headers": []}, never, send))
    assert sent[0]["status"] == 408 and "0.1 s" in json.loads(sent[1]["body"])["error"] and time.monotonic() - began < 30
