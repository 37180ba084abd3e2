"""Pulls of serving rows: by slot to the serving shards, of each shard from any copy that answers.

The copy that answered last is asked first. One that fails, is slow or has not fetched all rows yet is left for a second while there is
another; nobody asks in the background, so a copy that comes back is used again when it is needed. A query fails when a shard has no copy
that answers.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from headrace.ps import kernels
from headrace.ps.index import kernel_input
from headrace.ps.shard import shard_of
from headrace.rpc.client import Client
from headrace.rpc.errors import Unavailable
from headrace.rpc.freshness import Newest, from_header, newer
from headrace.rpc.message import Arrays, Header

LEFT_S = 1.0
PATIENCE_S = 0.1  # of a call, while another copy may be asked instead
PAUSE_S = 0.02  # between two rounds over all copies
Answer = tuple[Header, Arrays]


class Served(NamedTuple):
    """Rows [n, dim] in the order of the keys. Of the parts that shards gave: the lowest `sequence`, the highest age (milliseconds since the
    newest block folded was published, -1: none yet), the newest cause that one has seen, and the one `version` of all (0: live)."""

    values: np.ndarray
    sequence: int
    age_ms: int
    newest: Newest | None = None
    version: int = 0


@dataclass
class _Copy:
    """A process that serves a shard, and connections to it that nobody uses now, by the seconds that their calls may take."""

    address: str
    left_until: float = 0.0
    idle: dict[float, list[Client]] = field(default_factory=dict)


class ServingClient:
    """A client of serving processes: process i of `addresses` holds shard i % shards. Safe between threads: none waits for
    another.

    A call has `patience_s` while another copy of its shard is worth asking, four times that while the others are left, twice as much in
    each further round over the copies, and `timeout_s` where there is one copy only; it may take twice these.
    """

    def __init__(self, addresses: Sequence[str], shards: int = 1, timeout_s: float = 5.0, patience_s: float = PATIENCE_S) -> None:
        assert addresses and len(addresses) % shards == 0, "as many copies of each shard"
        self._copies = [[_Copy(address) for address in addresses[shard::shards]] for shard in range(shards)]
        first = random.randrange(len(self._copies[0]))  # not every client the same one
        self._first = [first] * shards
        self._timeout_s, self._patience_s = timeout_s, patience_s
        self._lock = threading.Lock()
        self._closed = False

    def pull(self, model: str, table: str, keys: np.ndarray, deadline_s: float = 0.0, version: int | None = None) -> Served:
        """The rows of distinct keys uint64[n]; copies are tried again until `deadline_s` is over, each once at least. `version`: of a
        published one instead of what is served (0: live).

        Raises Unavailable, and Refused and the like as soon as one copy says so.
        """
        until = time.monotonic() + deadline_s
        keys = kernel_input(np.asarray(keys, np.uint64))
        parts, header = self._parts(keys), {"model": model, "table": table} | ({} if version is None else {"version": version})
        while True:
            asked = [(shard, "pull", header, {"keys": keys if at is None else keys[at]}) for shard, at in parts]
            answers = self._all(asked, until)
            versions = {int(told.get("version", 0)) for told, _ in answers}
            if len(versions) == 1:
                return _joined(len(keys), parts, answers, versions.pop())
            if time.monotonic() >= until:
                raise Unavailable(f"serving shards answer with versions {', '.join(map(str, sorted(versions)))}: a change is under way")
            time.sleep(PAUSE_S)

    def reach(self, deadline_s: float = 0.0) -> None:
        """Return when of every shard a copy answers. Raises Unavailable."""
        self._all([(shard, "stats", {}, {}) for shard in range(len(self._copies))], time.monotonic() + deadline_s)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle = [client for copies in self._copies for copy in copies for kept in copy.idle.values() for client in kept]
            for copies in self._copies:
                for copy in copies:
                    copy.idle.clear()
        for client in idle:
            client.close()

    def _parts(self, keys: np.ndarray) -> list[tuple[int, np.ndarray | None]]:
        """(shard, places of its keys; None for all of them) of each shard that is to be asked."""
        if len(self._copies) == 1 or not len(keys):
            return [(0, None)]  # of no keys: the dim is the shard's knowledge
        shard = shard_of(kernels.slots_of(keys), len(self._copies))
        order = np.argsort(shard, kind="stable")
        ends = np.searchsorted(shard[order], np.arange(len(self._copies) + 1))
        return [(s, order[ends[s] : ends[s + 1]]) for s in range(len(self._copies)) if ends[s] < ends[s + 1]]

    def _all(self, calls: Sequence[tuple[int, str, Header, Arrays]], until: float) -> list[Answer]:
        """All answers, in order: every shard works on its call before the first answer is waited for."""
        begun = [_Call(self, *call) for call in calls]
        try:
            for one in begun:
                one.begin()
            return [one.answer(until) for one in begun]
        finally:
            for one in begun:
                one.end()

    def order(self, shard: int) -> list[_Copy]:
        """Copies in the order to be asked: the one that answered last and those after it, then those that are left, longest left first."""
        now = time.monotonic()
        with self._lock:
            copies, first = self._copies[shard], self._first[shard]
            turned = copies[first:] + copies[:first]
            return sorted(turned, key=lambda copy: copy.left_until if copy.left_until > now else 0.0)

    def seconds(self, others: Sequence[_Copy], rounds: int) -> float:
        """What a call may take, with `others` left to be asked in this round, after `rounds`."""
        if len(self._copies[0]) == 1:
            return self._timeout_s
        now = time.monotonic()
        doubled = rounds if any(copy.left_until <= now for copy in others) else rounds + 2
        return min(self._timeout_s, self._patience_s * 2.0**doubled)

    def taken(self, copy: _Copy, seconds: float) -> Client:
        """A connection to `copy`, of nobody else until `given`."""
        with self._lock:
            kept = copy.idle.get(seconds)
            return kept.pop() if kept else Client(copy.address, seconds)

    def given(self, copy: _Copy, client: Client, seconds: float) -> None:
        with self._lock:
            if not self._closed:
                copy.idle.setdefault(seconds, []).append(client)
                return
        client.close()

    def answered(self, shard: int, copy: _Copy) -> None:
        """Note that `copy` is to be asked first."""
        with self._lock:
            copy.left_until = 0.0
            self._first[shard] = self._copies[shard].index(copy)

    def leave(self, copy: _Copy) -> None:
        with self._lock:
            copy.left_until = time.monotonic() + LEFT_S


class _Call:
    """A call to one shard: begun at the first of its copies, then asked of one after the other."""

    def __init__(self, client: ServingClient, shard: int, verb: str, header: Header, arrays: Arrays) -> None:
        self._client, self._shard, self._call = client, shard, (verb, header, arrays)
        self._round, self._rounds = client.order(shard), 0
        self._open: tuple[_Copy, Client, float, Callable[[], Answer]] | None = None
        self._partly: Answer | None = None  # of a copy that has not fetched all rows yet: better than nothing
        self._failed = Unavailable("nobody was asked")

    def begin(self) -> None:
        """Send the call to the next copy of this round that takes it."""
        while self._open is None and self._round:
            copy = self._round.pop(0)
            seconds = self._client.seconds(self._round, self._rounds)
            client = self._client.taken(copy, seconds)
            try:
                self._open = copy, client, seconds, client.begin(*self._call)
            except BaseException as error:
                self._client.given(copy, client, seconds)
                self._gone(copy, error)

    def answer(self, until: float) -> Answer:
        """Of the first copy that has one. Raises Unavailable, and what a copy says that is no such thing."""
        while True:
            while self._open is not None:
                found = self._finish()
                if found is not None:
                    return found
                self.begin()
            if self._partly is not None:
                return self._partly
            if time.monotonic() >= until:
                raise self._failed
            time.sleep(PAUSE_S)
            self._round, self._rounds = self._client.order(self._shard), self._rounds + 1
            self.begin()

    def end(self) -> None:
        """Wait for what was begun and nobody waited for, since another shard failed: its connection is to be used again."""
        if self._open is not None:
            copy, client, seconds, finish = self._open
            with suppress(Exception):
                finish()
            self._client.given(copy, client, seconds)

    def _finish(self) -> Answer | None:
        assert self._open is not None, "it was begun"
        (copy, client, seconds, finish), self._open = self._open, None
        try:
            found = finish()
        except BaseException as error:
            self._gone(copy, error)
            return None
        finally:
            self._client.given(copy, client, seconds)
        if found[0].get("whole", True):
            self._client.answered(self._shard, copy)
            return found
        if self._partly is None or self._partly[0]["sequence"] < found[0]["sequence"]:
            self._partly = found
        self._client.leave(copy)
        return None

    def _gone(self, copy: _Copy, error: BaseException) -> None:
        if not isinstance(error, Unavailable):
            raise error
        self._failed = error
        self._client.leave(copy)


def _joined(n: int, parts: Sequence[tuple[int, np.ndarray | None]], answers: Sequence[Answer], version: int) -> Served:
    headers: list[dict[str, Any]] = [header for header, _ in answers]
    newest: Newest | None = None
    for header in headers:
        newest = newer(newest, from_header(header.get("newest")))
    values = answers[0][1]["values"]
    if parts[0][1] is not None:
        values = np.empty((n, values.shape[1]), values.dtype)
        for (_, at), (_, arrays) in zip(parts, answers, strict=True):
            values[at] = arrays["values"]
    return Served(values, min(int(one["sequence"]) for one in headers), max(int(one.get("age_ms", -1)) for one in headers), newest, version)
