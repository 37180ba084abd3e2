"""ASGI around the application: who may ask for what, and how many at once."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from headrace.engine.keys import Keys
from headrace.engine.limits import Receive, Scope, Send, turn_away

OPEN = ("/healthz", "/ready", "/openapi.json")
SCOPE_OF = {"/events": "events", "/recall": "recall", "/similar": "recall", "/recommend": "recommend", "/score": "recommend",
            "/features": "recommend", "/clock": "control", "/metrics": "control"}

NOBODYS = ("localhost", "internal", "local", "test")  # RFC 2606, RFC 6762; ICANN's resolution of 2024 on .internal


class Access:
    """Asks each caller for a key of `keys` with the scopes of its path: 401 without, 403 for others. OPEN needs none; a path that is
    not listed needs any key. `pages`: further paths with all the scopes that each needs, none of them for one that is open."""

    def __init__(self, app: Any, keys: Keys, pages: Mapping[str, tuple[str, ...]] | None = None) -> None:
        self._app, self._keys = app, keys
        self._scopes = {**{path: (scope,) for path, scope in SCOPE_OF.items()}, **(pages or {})}
        self._open = {*OPEN, *(path for path, scopes in self._scopes.items() if not scopes)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._open:
            await self._app(scope, receive, send)
            return
        said = [value for name, value in scope["headers"] if name == b"authorization"]
        kind, _, token = said[0].decode("latin-1").partition(" ") if len(said) == 1 else ("", "", "")
        key = self._keys.of(token.strip()) if kind.lower() == "bearer" else None
        wanted = [one for one in self._scopes.get(scope["path"], ()) if key is not None and one not in key.scopes]
        if key is None:
            why = "this engine asks for an API key" if not said else "the API key is not known here: is it revoked?"
            await turn_away(send, 401, why, "send Authorization: Bearer KEY; `headrace keys create` makes one",
                            (b"www-authenticate", b"Bearer"))
        elif wanted:
            await turn_away(send, 403, f"the key {key.name} has the scopes {', '.join(key.scopes)}; {scope['path']} needs"
                            f" {' and '.join(wanted)}", f"ask for a key with the scope {' and '.join(wanted)}")
        else:
            await self._app(scope, receive, send)


class Near:
    """Around an engine that asks for no key: lets requests in whose Host cannot be a name of the internet's. A page of anybody can have its
    own name point to 127.0.0.1, and a browser would take it and the engine for one origin (DNS rebinding). An address that is loopback, a
    name without a dot and a name under NOBODYS, which nobody can own, are this machine's or its neighbours'."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        hosts = [value for name, value in scope["headers"] if name == b"host"] if scope["type"] == "http" else []
        if all(map(near, hosts)):
            await self._app(scope, receive, send)
            return
        await turn_away(send, 403, "this engine asks for no API key, and so answers under this machine's own names only, not"
                        f" {hosts[0][:60].decode('latin-1')!r}", "call it as localhost, or set engine.keys_file (headrace keys create)")


def near(host: bytes) -> bool:
    """Whether a Host header is no name of the internet's."""
    try:
        name = (urlsplit(f"//{host.decode('ascii')}").hostname or "").rstrip(".")
    except ValueError:  # of UnicodeDecodeError too
        return False
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return bool(name) and ("." not in name or name.rsplit(".", 1)[1] in NOBODYS)


class InFlight:
    """Lets `requests_max` requests in at once and answers 503 with Retry-After to the others; OPEN is always answered."""

    def __init__(self, app: Any, requests_max: int) -> None:
        self._app, self._requests_max, self._now = app, requests_max, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN:
            await self._app(scope, receive, send)
            return
        if self._now >= self._requests_max:
            await turn_away(send, 503, f"{self._now} requests are being answered, as many as engine.requests_max allows",
                            "ask again after a second", (b"retry-after", b"1"))
            return
        self._now += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._now -= 1
