"""Users of the world in front of a running engine: they ask, are shown a list, and answer with what they do.

The engine serves, and sends the impressions itself; the simulator sends the actions under the same request_id, each when it is due in
simulated time. A share of requests goes to a page that is not the engine's, the newest items: this is how the engine hears of items at
all, as a platform's other surfaces would tell it, and the simulator sends impressions and actions of it. So does a list that came back
with fewer items than there are places: the page fills it up.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from headrace.simulator import regret
from headrace.simulator.dice import uniform
from headrace.simulator.world import World

Event = dict[str, Any]
EVENTS_A_CALL = 500
FAILURES_MAX = 20


class EngineLost(Exception):
    """The engine failed many times one after the other: see that it runs, then simulate again."""


class Server(NamedTuple):
    """`recommend(user, n, context)` gives the engine's answer, `send(events)` its verdicts; both raise one of `failures` when they fail."""

    recommend: Callable[[str, int, Mapping[str, str]], dict[str, Any]]
    send: Callable[[Sequence[Event]], Any]
    failures: tuple[type[Exception], ...]


@dataclass(frozen=True)
class Limits:
    """`speed`: simulated seconds a second, None as fast as answers come; `page`: share of requests that go to the page of new items."""

    requests: int = 2000
    seconds: float = 60.0
    speed: float | None = None
    page: float = 0.1


@dataclass
class Tally:
    """What is counted while it runs; by request: day, best, shown, by_chance; by exposure of the engine: score and truth. `foreign`: items
    served that this world does not have, `dead`: items served that were not alive."""

    asked: int = 0
    page: int = 0
    failures: int = 0
    skipped: int = 0
    impressions: int = 0
    actions: int = 0
    clicks: int = 0
    refused: int = 0
    foreign: int = 0
    dead: int = 0
    fallback: int = 0
    day: list[float] = field(default_factory=list)
    best: list[float] = field(default_factory=list)
    shown: list[float] = field(default_factory=list)
    by_chance: list[float] = field(default_factory=list)
    score: list[float] = field(default_factory=list)
    truth: list[float] = field(default_factory=list)


class Live:
    """Runs the requests of `world` against `server` within `limits`; `moved(tally)` is called after each."""

    def __init__(self, world: World, server: Server, limits: Limits, *, moved: Callable[[Tally], Any] = lambda tally: None,
                 now_s: Callable[[], float] = time.monotonic, sleep: Callable[[float], Any] = time.sleep) -> None:
        self._world, self._server, self._limits = world, server, limits
        self._moved, self._now_s, self._sleep = moved, now_s, sleep
        self._number = {world.items.name(item): item for item in range(len(world.items))}
        self._due: list[tuple[int, int, Event]] = []
        self._sent = self._in_a_row = 0
        self._seen: dict[int, set[int]] = {}
        self.tally = Tally()

    def run(self) -> dict[str, Any]:
        """The report, once requests, seconds or the world are at their end. Raises EngineLost."""
        requests, limits, started = self._world.requests, self._limits, self._now_s()
        first_ms = int(requests.ts_ms[0]) if len(requests) else 0
        ended = "world"
        for request in range(len(requests)):
            if request >= limits.requests:
                ended = "requests"
                break
            ts_ms = int(requests.ts_ms[request])
            if limits.speed is not None:
                self._wait(first_ms, started, ts_ms)
            if self._now_s() - started >= limits.seconds:
                ended = "seconds"
                break
            self._send_due(ts_ms)
            self._request(request, ts_ms)
            self._moved(self.tally)
        self._send_due(None)
        return self.report(ended, self._now_s() - started)

    def report(self, ended: str, seconds: float) -> dict[str, Any]:
        """Counts, regret in ten windows of as many requests, calibration of served scores against the truth of a click where they stood."""
        tally = self.tally
        best, shown, chance = (np.array(column) for column in (tally.best, tally.shown, tally.by_chance))
        score, truth, half = np.array(tally.score), np.array(tally.truth), len(tally.score) // 2
        tenth = np.arange(len(best)) * 10 // max(1, len(best))
        by_window = [{"requests": one["requests"], "day": round(float(np.array(tally.day)[tenth == n].mean()), 3),
                      **{name: one[name] for name in ("best", "shown", "regret")}, "by_chance": round(float(chance[tenth == n].mean()), 6)}
                     for n, one in zip(np.unique(tenth).tolist(), regret.windows(tenth, best, shown), strict=True)]
        counts = {name: value for name, value in vars(tally).items() if isinstance(value, int)}
        return {"ended_by": ended, "seconds": round(seconds, 3), **counts,
                "click_rate": tally.clicks / tally.impressions if tally.impressions else None,
                "regret": float((best - shown).mean()) if len(best) else None,
                "regret_by_chance": float((best - chance).mean()) if len(best) else None,
                "calibration": regret.calibration(score, truth), "calibration_second_half": regret.calibration(score[half:], truth[half:]),
                "windows": by_window}

    def _wait(self, first_ms: int, started: float, ts_ms: int) -> None:
        """Until `ts_ms` of the world has come, sending what falls due before it."""
        assert self._limits.speed is not None, "as fast as answers come is not waited for"
        while True:
            passed_s = self._now_s() - started
            reached_ms = first_ms + int(passed_s * self._limits.speed * 1000)
            if reached_ms >= ts_ms or passed_s >= self._limits.seconds:
                return
            self._send_due(reached_ms)
            self._sleep(min(0.05, (ts_ms - reached_ms) / self._limits.speed / 1000))

    def _request(self, request: int, ts_ms: int) -> None:
        world, user = self._world, int(self._world.requests.user[request])
        if world.lost(np.array([ts_ms]))[0]:
            self.tally.skipped += 1
            return
        if user >= world.users.people:
            self._show_page(request, user, ts_ms, world.requests.of(request)[: world.slots], 0, None)
            return
        answer: dict[str, Any] = {"request_id": None, "items": []}
        if uniform(world.seed, "page", np.array([request]), np.array([0]))[0] >= self._limits.page:
            asked = self._call(lambda: self._server.recommend(world.users.name(user), world.slots, world.context(ts_ms)))
            if asked is None:
                return
            answer = asked
            self.tally.asked += 1
            self.tally.fallback += bool(answer.get("fallback"))
        self._show(request, user, ts_ms, answer)

    def _show(self, request: int, user: int, ts_ms: int, answer: dict[str, Any]) -> None:
        world, tally = self._world, self.tally
        seen = self._seen.setdefault(user, set())
        live = world.items.live(ts_ms)
        unread = np.array([item for item in live.tolist() if item not in seen], np.int64)
        unread = live if len(unread) < world.slots else unread
        served = answer["items"][: world.slots]
        known = [self._number.get(str(one["item_id"]), -1) for one in served]
        tally.foreign += known.count(-1)
        at = np.array([n for n, item in enumerate(known) if item >= 0], np.int64)
        items = np.array(known, np.int64)[at]
        p = np.zeros(world.slots)
        if len(items):
            p[at] = world.click_probability(user, items, ts_ms)
            tally.dead += int(np.setdiff1d(items, live).size)
            truth = p[at] * world.model.examination(at)
            tally.score += [float(served[n]["score"]) for n in at.tolist()]
            tally.truth += truth.tolist()
            self._answer(request, user, ts_ms, items, at, answer["request_id"])
        free = world.slots - len(served)
        if free:
            fresh = np.setdiff1d(unread, items)
            fresh = fresh[np.argsort(-world.items.born_ms[fresh], kind="stable")][:free]
            places = np.arange(len(served), len(served) + len(fresh))
            p[places] = world.click_probability(user, fresh, ts_ms)
            self._show_page(request, user, ts_ms, fresh, len(served), answer["request_id"])
        best = world.best(user, world.slots, ts_ms, unread)
        tally.day.append(float(world.day(np.asarray(ts_ms))))
        tally.best.append(float(world.expected(world.click_probability(user, best, ts_ms))))
        tally.shown.append(float(world.expected(p)))
        even = world.click_probability(user, unread, ts_ms).mean()
        tally.by_chance.append(float(world.expected(np.full(world.slots, even))))
        tally.impressions += len(served)
        seen.update(items.tolist())

    def _show_page(self, request: int, user: int, ts_ms: int, items: np.ndarray, place: int, request_id: str | None) -> None:
        """Show items on the page from `place` on: impressions of the simulator's own."""
        request_id = request_id or f"page-{self._world.seed}-{request}"
        for n, item in enumerate(items.tolist()):
            self._later(ts_ms, self._event(f"{request_id}:{place + n}", request_id, user, item, "impression", 1.0, place + n, ts_ms))
        self.tally.page += 1
        self.tally.impressions += len(items)
        self._seen.setdefault(user, set()).update(items.tolist())
        self._answer(request, user, ts_ms, items, place + np.arange(len(items)), request_id)

    def _answer(self, request: int, user: int, ts_ms: int, items: np.ndarray, position: np.ndarray, request_id: str) -> None:
        n = len(items)
        done = self._world.answer(np.full(n, request), items, position, np.full(n, ts_ms), np.full(n, user))
        self.tally.clicks += int(done.clicked.sum())
        for row, item in enumerate(items.tolist()):
            place = int(position[row])
            for action, value, after in done.of(row):
                event = self._event(f"{request_id}:{place}:{action}", request_id, user, item, action, value, place, ts_ms)
                self._later(ts_ms + after, event)
                self.tally.actions += 1

    def _event(self, event_id: str, request_id: str, user: int, item: int, action: str, value: float, position: int, ts_ms: int) -> Event:
        world = self._world
        context = {f"user.{name}": value for name, value in world.users.fields(user).items()}
        context |= {f"item.{name}": value for name, value in world.items.fields(item).items()}
        return {"event_id": event_id, "request_id": request_id, "user_id": world.users.name(user), "item_id": world.items.name(item),
                "action": action, "value": value, "position": position, "context": world.context(ts_ms) | context}

    def _later(self, ts_ms: int, event: Event) -> None:
        self._sent += 1
        heapq.heappush(self._due, (ts_ms, self._sent, event))

    def _send_due(self, until_ms: int | None) -> None:
        """Send what is due by `until_ms` of the world, in order; None: all that is left."""
        batch: list[Event] = []
        while self._due and (until_ms is None or self._due[0][0] <= until_ms):
            batch.append(heapq.heappop(self._due)[2])
            if len(batch) == EVENTS_A_CALL or not self._due:
                self._post(batch)
                batch = []
        if batch:
            self._post(batch)

    def _post(self, batch: list[Event]) -> None:
        verdict = self._call(lambda: self._server.send(batch))
        self.tally.refused += len(batch) if verdict is None else int(verdict.get("refused", 0))

    def _call(self, what: Callable[[], Any]) -> Any:
        """What a call gives, None when it failed. Raises EngineLost after many failures in a row."""
        try:
            answer = what()
        except self._server.failures as error:
            self.tally.failures += 1
            self._in_a_row += 1
            if self._in_a_row >= FAILURES_MAX:
                raise EngineLost(f"the engine failed {self._in_a_row} times in a row, the last time: {error}") from None
            return None
        self._in_a_row = 0
        return answer
