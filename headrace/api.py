"""Clients of the engine, one that waits and one for asyncio. They need the base install only.

    from headrace import Client
    with Client("http://127.0.0.1:19080") as client:
        client.emit({"user_id": "1", "item_id": "50", "action": "click"})
        for item in client.recommend("1", 10).items:
            print(item.item_id, item.score)

A call is tried again until its deadline where that is safe: reads always; `emit` too, since every event carries an event_id, by which the
feature service knows a second copy; a recommendation that writes impressions only while nobody can have taken it.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, TypeVar

import httpx
import msgspec

from headrace.answers import Emitted, Features, Near, Recommendation, Scores, Verdict

URL = "http://127.0.0.1:19080"
DEADLINE_S = 10.0
PAUSE_S, PAUSE_MAX_S = 0.05, 1.0  # between two tries, doubled each time, less up to a half by chance
UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
A = TypeVar("A")
Event = Mapping[str, Any]


class EngineError(Exception):
    """The engine refused the call, or has not answered: the message says what and what to do next. `status` is HTTP's, 0 without an answer;
    `field` the parameter to mend, where there is one."""

    def __init__(self, message: str, status: int = 0, field: str | None = None) -> None:
        super().__init__(message)
        self.status, self.field = status, field


@dataclass(frozen=True)
class _Ask(Generic[A]):
    """One call: what is sent, what it is answered with, whether it may be sent twice."""

    method: str
    path: str
    answer: type[A]
    params: dict[str, Any] | None = None
    body: Any = None
    twice: bool = True


def _recommend(user: str, n: int, scene: str, context: Mapping[str, str] | None, explain: bool, preview: bool) -> _Ask[Recommendation]:
    params = {"user": user, "n": n, "scene": scene, "explain": int(explain), "preview": int(preview), "context": _fields(context)}
    return _Ask("GET", "/recommend", Recommendation, params, twice=preview)


def _features(user: str, item: str, ts_ms: int | None, context: Mapping[str, str] | None) -> _Ask[Features]:
    params = {"user": user, "item": item, "context": _fields(context)}
    return _Ask("GET", "/features", Features, params if ts_ms is None else {**params, "ts_ms": ts_ms})


def _near(path: str, name: str, value: str, k: int) -> _Ask[Near]:
    return _Ask("GET", path, Near, {name: value, "k": k})


def _score(user: str, items: Sequence[str], ts_ms: int | None, context: Mapping[str, str] | None) -> _Ask[Scores]:
    return _Ask("POST", "/score", Scores, body={"user": user, "items": list(items), "ts_ms": ts_ms, "context": dict(context or {})})


def _fields(context: Mapping[str, str] | None) -> list[str]:
    return [f"{name}={value}" for name, value in (context or {}).items()]


def _events(events: Event | Sequence[Event]) -> list[dict[str, Any]]:
    """Each with an event_id: a second try is then known for one."""
    given = [events] if isinstance(events, Mapping) else events
    return [{"event_id": uuid.uuid4().hex, **event} for event in given]


def _emit(events: Sequence[Event]) -> _Ask[Emitted]:
    return _Ask("POST", "/events", Emitted, body=list(events))


class _Emission:
    """Verdicts on events, of which those that did not get through to the log are sent again."""

    def __init__(self, events: list[dict[str, Any]]) -> None:
        self._events = events
        self._verdicts: list[Verdict | None] = [None] * len(events)
        self._left = list(range(len(events)))
        self._note = ""

    @property
    def left(self) -> list[dict[str, Any]]:
        return [self._events[at] for at in self._left]

    def take(self, answer: Emitted) -> None:
        for at, verdict in zip(self._left, answer.verdicts, strict=True):
            self._verdicts[at] = verdict
        self._note = answer.note or self._note
        self._left = [at for at in self._left if (found := self._verdicts[at]) is not None and found.reason == "undelivered"]

    def result(self) -> Emitted:
        verdicts = [verdict for verdict in self._verdicts if verdict is not None]
        accepted = sum(verdict.accepted for verdict in verdicts)
        return Emitted(accepted, len(verdicts) - accepted, verdicts, self._note)


class _Tries:
    """The tries of one call until its deadline."""

    def __init__(self, url: str, deadline_s: float) -> None:
        self._url, self._ends, self._pause_s = url, time.monotonic() + deadline_s, PAUSE_S
        self._away: httpx.Response | None = None  # says more than the time-out of the last try

    @property
    def left_s(self) -> float:
        return max(self._ends - time.monotonic(), 0.001)

    def pause(self, ask: _Ask[Any], said: httpx.Response | None, error: httpx.HTTPError | None) -> float | None:
        """Seconds until the next try; None when there is none: it is answered, not to be repeated, or too late."""
        if said is not None:
            self._away = said
            if said.status_code != 503:
                return None
        if said is None and not (ask.twice or isinstance(error, UNSENT)):
            return None
        wanted = self._pause_s * random.uniform(0.5, 1.0)
        if said is not None and (after := said.headers.get("retry-after", "")).isdigit():
            wanted = float(after)
        self._pause_s = min(2 * self._pause_s, PAUSE_MAX_S)
        return wanted if wanted < self.left_s else None

    def answer(self, ask: _Ask[A], said: httpx.Response | None, error: Exception | None) -> A:
        """The answer as its type. Raises EngineError."""
        said = self._away if said is None else said
        if said is None:
            raise EngineError(f"the engine at {self._url} does not answer ({type(error).__name__}); is the stack up?"
                              " `headrace status` says") from None
        where = f"{self._url}{ask.path}"
        if said.status_code in (200, 207) or (said.status_code == 422 and ask.answer is Emitted and b'"verdicts"' in said.content):
            try:
                return msgspec.json.decode(said.content, type=ask.answer)
            except msgspec.DecodeError as wrong:
                raise EngineError(f"{where} answered {said.status_code} with something else ({wrong}): is it a headrace engine?",
                                  said.status_code) from None
        try:
            body = said.json()
        except ValueError:
            raise EngineError(f"{where} answered {said.status_code} without JSON: is it a headrace engine?", said.status_code) from None
        if not isinstance(body, dict):
            raise EngineError(str(body), said.status_code)
        raise EngineError(f"{body.get('error', body)}; {body.get('next', '')}".rstrip("; "), said.status_code, body.get("field"))


def bearer(key: str | None) -> dict[str, str]:
    """The header of an API key; none without one."""
    return {"authorization": f"Bearer {key}"} if key else {}


def _request(ask: _Ask[Any]) -> dict[str, Any]:
    """httpx's arguments. Raises EngineError for a body that is no JSON."""
    if ask.body is None:
        return {"params": ask.params}
    try:
        return {"content": msgspec.json.encode(ask.body, enc_hook=_no_json), "headers": {"content-type": "application/json"}}
    except (TypeError, ValueError, OverflowError) as error:
        raise EngineError(f"the call cannot be sent as JSON: {error}") from None


def _no_json(value: Any) -> Any:
    raise TypeError(f"{type(value).__name__} {value!r:.60} is none of JSON's types")


class Client:
    """Calls an engine at `url`, each within `deadline_s` seconds. Safe between threads. All calls raise EngineError.

    `key` is the API key. `verify` and `transport` are httpx's: an authority of your own; an engine in the same process, a proxy.
    """

    def __init__(self, url: str = URL, deadline_s: float = DEADLINE_S, *, key: str | None = None, verify: ssl.SSLContext | bool = True,
                 transport: httpx.BaseTransport | None = None) -> None:
        self.url, self._deadline_s = url.rstrip("/"), deadline_s
        self._http = httpx.Client(trust_env=False, headers=bearer(key), verify=verify, transport=transport)  # no proxy to loopback

    def emit(self, events: Event | Sequence[Event]) -> Emitted:
        """Send one event or several, fields as in docs/engine.md; the accepted ones are in the log. What the log did not take is sent again
        until the deadline, under the event_id that it has or is given here."""
        emission, tries = _Emission(_events(events)), _Tries(self.url, self._deadline_s)
        pause_s = PAUSE_S
        while True:
            emission.take(self._call(_emit(emission.left), tries))
            if not emission.left or tries.left_s <= pause_s:
                return emission.result()
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_MAX_S)

    def recommend(self, user: str, n: int = 10, *, scene: str = "feed", context: Mapping[str, str] | None = None,
                  explain: bool = False, preview: bool = False) -> Recommendation:
        """The n best unread items; `context` are fields as in the log's interactions. Impressions are written unless `preview`."""
        return self._call(_recommend(user, n, scene, context, explain, preview))

    def recall(self, user: str, k: int = 10) -> Near:
        """The k items nearest to the user's vector."""
        return self._call(_near("/recall", "user", user, k))

    def similar(self, item: str, k: int = 10) -> Near:
        """The k items nearest to the item's vector."""
        return self._call(_near("/similar", "item", item, k))

    def score(self, user: str, items: Sequence[str], ts_ms: int | None = None, context: Mapping[str, str] | None = None) -> Scores:
        """Probabilities of the items; `ts_ms` (milliseconds since 1970) makes the answer repeatable. Nothing is written."""
        return self._call(_score(user, items, ts_ms, context))

    def features(self, user: str, item: str, ts_ms: int | None = None, context: Mapping[str, str] | None = None) -> Features:
        """What the ranker sees of the two: every slot with a value, by name. Nothing is written."""
        return self._call(_features(user, item, ts_ms, context))

    def explain(self, user: str, n: int = 10, *, scene: str = "feed", context: Mapping[str, str] | None = None) -> Recommendation:
        """`recommend` with what each slot adds to each score (items' `explain`); nothing is written."""
        return self._call(_recommend(user, n, scene, context, explain=True, preview=True))

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _call(self, ask: _Ask[A], tries: _Tries | None = None) -> A:
        tries, request = tries or _Tries(self.url, self._deadline_s), _request(ask)
        while True:
            said, error = None, None
            try:
                said = self._http.request(ask.method, self.url + ask.path, timeout=tries.left_s, **request)
            except httpx.HTTPError as failed:
                error = failed
            pause_s = tries.pause(ask, said, error)
            if pause_s is None:
                return tries.answer(ask, said, error)
            time.sleep(pause_s)


class AsyncClient:
    """Client for asyncio: the same calls, to be awaited."""

    def __init__(self, url: str = URL, deadline_s: float = DEADLINE_S, *, key: str | None = None, verify: ssl.SSLContext | bool = True,
                 transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.url, self._deadline_s = url.rstrip("/"), deadline_s
        self._http = httpx.AsyncClient(trust_env=False, headers=bearer(key), verify=verify, transport=transport)

    async def emit(self, events: Event | Sequence[Event]) -> Emitted:
        """See Client.emit."""
        emission, tries = _Emission(_events(events)), _Tries(self.url, self._deadline_s)
        pause_s = PAUSE_S
        while True:
            emission.take(await self._call(_emit(emission.left), tries))
            if not emission.left or tries.left_s <= pause_s:
                return emission.result()
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_MAX_S)

    async def recommend(self, user: str, n: int = 10, *, scene: str = "feed", context: Mapping[str, str] | None = None,
                        explain: bool = False, preview: bool = False) -> Recommendation:
        """See Client.recommend."""
        return await self._call(_recommend(user, n, scene, context, explain, preview))

    async def recall(self, user: str, k: int = 10) -> Near:
        """See Client.recall."""
        return await self._call(_near("/recall", "user", user, k))

    async def similar(self, item: str, k: int = 10) -> Near:
        """See Client.similar."""
        return await self._call(_near("/similar", "item", item, k))

    async def score(self, user: str, items: Sequence[str], ts_ms: int | None = None, context: Mapping[str, str] | None = None) -> Scores:
        """See Client.score."""
        return await self._call(_score(user, items, ts_ms, context))

    async def features(self, user: str, item: str, ts_ms: int | None = None, context: Mapping[str, str] | None = None) -> Features:
        """See Client.features."""
        return await self._call(_features(user, item, ts_ms, context))

    async def explain(self, user: str, n: int = 10, *, scene: str = "feed", context: Mapping[str, str] | None = None) -> Recommendation:
        """See Client.explain."""
        return await self._call(_recommend(user, n, scene, context, explain=True, preview=True))

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def _call(self, ask: _Ask[A], tries: _Tries | None = None) -> A:
        tries, request = tries or _Tries(self.url, self._deadline_s), _request(ask)
        while True:
            said, error = None, None
            try:
                said = await self._http.request(ask.method, self.url + ask.path, timeout=tries.left_s, **request)
            except httpx.HTTPError as failed:
                error = failed
            pause_s = tries.pause(ask, said, error)
            if pause_s is None:
                return tries.answer(ask, said, error)
            await asyncio.sleep(pause_s)
