"""ASGI around the application: a limit on bodies, and figures of every request."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from prometheus_client import CollectorRegistry, Histogram

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


async def turn_away(send: Send, status: int, error: str, following: str, *headers: tuple[bytes, bytes], **more: str) -> None:
    """Answer with JSON {error, next} before the application sees a request."""
    body = json.dumps({"error": error, "next": following, **more}).encode()
    await send({"type": "http.response.start", "status": status, "headers": [
        (b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers]})
    await send({"type": "http.response.body", "body": body})


class BodyLimit:
    """Reads a body before the application sees it, and answers 413 as soon as it is longer than `bytes_max`, said or not, and 408 when it
    is not whole within `body_s` seconds."""

    def __init__(self, app: Any, bytes_max: int = 1 << 20, body_s: float = 20.0) -> None:
        self._app, self._bytes_max, self._body_s = app, bytes_max, body_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        said = dict(scope["headers"]).get(b"content-length", b"0")
        if said.isdigit() and int(said) > self._bytes_max:
            await self._refuse(send)
            return
        body, more, ends = bytearray(), True, time.monotonic() + self._body_s
        while more:
            try:
                message = await asyncio.wait_for(receive(), ends - time.monotonic())
            except asyncio.TimeoutError:
                await self._refuse(send, 408, f"the body was not whole within {self._body_s:g} s")
                return
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._bytes_max:
                await self._refuse(send)
                return
        given = False

        async def replay() -> MutableMapping[str, Any]:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        await self._app(scope, replay, send)

    async def _refuse(self, send: Send, status: int = 413, error: str = "") -> None:
        await turn_away(send, status, error or f"the body is longer than {self._bytes_max} bytes", "send smaller batches",
                        (b"connection", b"close"), field="body")


class Measured:
    """Time and status of every request, by route: histogram headrace_engine_request_seconds."""

    def __init__(self, app: Any, registry: CollectorRegistry) -> None:
        self._app = app
        self._seconds = Histogram("headrace_engine_request_seconds", "Time to the end of an answer.", ["route", "status"],
                                  registry=registry, buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), [500]

        async def watched(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            route = getattr(scope.get("route"), "path", "other")  # never the raw path: anyone could invent labels
            self._seconds.labels(route, str(status[0])).observe(time.perf_counter() - started)
