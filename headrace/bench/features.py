"""Features of one's own: events folded into 12 features of 3 entities, of Redis doing the same 12 updates; 500 rows read beside
20,000 updates/s; from an event to its being readable; bytes a user.

`fold`: calls of 1,024 events, as many as the features job has in one, of a shard in this process over RocksDB with its log as in
production, half full, so that each call writes rows that changed long before: built-in features, causes and retries, half-lives and
windows, exactly once. `fold.frozen`: the same
with every impression answered by its sample, which is kept with it (a log that is replayed). `fold.flight`: as `fold`, by the client to a
shard process, one call at a time. Redis does 13 commands an event (a list is pushed to and cut), a process of its own over a unix socket,
256 events a request, made beforehand, four on their way, answers only counted; it is in memory, writes nothing to disk, decays nothing,
knows no cause and reads nothing. Users are known to both before. Turns alternate, of each the best counts, by the clock; Redis and the
shard's thread have a core each where there are two. `fold.processor`: events a second of processor time, all threads of the process,
RocksDB's too, of Redis's: what a core does where others take of the clock.

`multiget.*`: one user with 500 items as the engine asks, all features, while another process folds 20,000 events/s in calls of what comes
in 20 ms. `local`: in the shard's process, in its turn behind the folds. `flight`: by the client to a shard process. `readable`: from an
event's being given to the client, alone in its call, until an answer to another client that asks without a pause shows it: the turns of
other folds, its own fold and write, and the read are in it; Kafka and the job before are not.

`user.*`: bytes of key and value of a user's rows. `definitions` are the 5 features of the user, of the memory of Redis's two keys of
them; `disk` all rows of users as they lie in the store's files after a compaction.
"""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import psutil

from headrace.bench.features_events import World, at, feature_set, requests_of
from headrace.bench.features_server import opened, served
from headrace.bench.features_writer import writing
from headrace.bench.redis_peer import ask_until_pong, redis_of, said
from headrace.bench.result import Row
from headrace.bench.serving import serving
from headrace.config import Flink
from headrace.features.client import FeatureClient
from headrace.features.shard import FeatureShard
from headrace.features.warm import compile_kernels
from headrace.goals import FEATURES_MS, FOLD_OF_REDIS
from headrace.rpc.causes import Causes
from headrace.rpc.memory import keep_freed

USERS, ITEMS = 20_000, 5_000
USERS_QUICK, ITEMS_QUICK = 1_000, 1_000
CALL = Flink().batch_rows
CALLS, CALLS_QUICK = 32, 4
TURNS, TURNS_QUICK = 4, 2
REQUEST = 256
CANDIDATES = 500
UPDATES = 20_000
READS, READS_QUICK = 1_500, 40
SHOWN, SHOWN_QUICK = 300, 10
LONGEST_S, LONGEST_QUICK_S = 20.0, 2.0  # of each of these: a machine that others use gives fewer
SAMPLED = 200  # users whose keys are measured in Redis
NUMBER = feature_set().numbers.index("user_last")
Fold = Callable[[Causes, dict[str, np.ndarray]], object]


class Best:
    """Events/s, the best of all turns: by the clock, and of processor time of a process."""

    def __init__(self, process: int) -> None:
        self._process = psutil.Process(process)
        self.rate = self.of_processor = 0.0

    def turn(self, events: int, work: Callable[[], object]) -> None:
        before, began = _processor_s(self._process), time.perf_counter()
        work()
        took, used = time.perf_counter() - began, _processor_s(self._process) - before
        self.rate = max(self.rate, events / took)
        self.of_processor = max(self.of_processor, events / max(used, 0.01))


def measure(quick: bool) -> list[Row]:
    """Rows fold, fold.frozen, fold.flight, fold.processor (events/s), user.definitions, user.disk (bytes), multiget.local.p99,
    multiget.flight.p99 and readable.p99 (ms)."""
    users, items = (USERS_QUICK, ITEMS_QUICK) if quick else (USERS, ITEMS)
    compile_kernels(feature_set())
    keep_freed()  # as a server does
    return [*folds(users, items, quick), *reads(users, items, quick)]


def folds(users: int, items: int, quick: bool) -> list[Row]:
    """What a shard folds, beside Redis, and what both take for a user."""
    calls, turns = (CALLS_QUICK, TURNS_QUICK) if quick else (CALLS, TURNS)
    world, n = World(users, items), calls * CALL
    drawn = (*world.chosen(n), *world.outcome(n))
    events, frozen = world.events(*drawn), World(users, items, frozen=True).events(*drawn)
    requests = requests_of(world, *drawn, REQUEST)
    with (tempfile.TemporaryDirectory() as folder, redis_of() as (peer, number),
          serving("headrace.bench.features_server", str(Path(folder) / "served")) as address):
        shard, client = opened(Path(folder) / "own"), FeatureClient(address, feature_set=feature_set())
        feeds = {"fold": Feed(shard.freeze_and_fold, events), "fold.frozen": Feed(shard.freeze_and_fold, frozen, source=2),
                 "fold.flight": Feed(client.freeze_and_fold, events)}
        best = {name: Best(os.getpid()) for name in feeds}
        theirs = Best(number)
        every_user(world, feeds, peer)
        while not quick and not shard.memory.settling:  # from here on each block writes rows of before, as it does for ever
            feeds["fold"].turn()
        for _ in range(turns):
            for name, feed in feeds.items():
                best[name].turn(n, feed.turn)
                theirs.turn(n, partial(ask_until_pong, peer, requests))
        note = f"goal {FOLD_OF_REDIS:g} times; calls of {CALL:,}, best of {turns} turns of {n:,} events"
        rows = [Row(name, one.rate, "events/s", "redis", theirs.rate, note) for name, one in best.items()]
        rows.append(Row("fold.processor", best["fold"].of_processor, "events/s", "redis", theirs.of_processor,
                        f"of processor time; {best['fold.frozen'].of_processor:,.0f} with frozen samples; {note}"))
        rows += sizes(shard, peer, users)
        client.close()
        shard.close()
    return rows


class Feed:
    """Gives the same events again as new ones, in calls of 1,024."""

    def __init__(self, fold: Fold, events: dict[str, np.ndarray], source: int = 1) -> None:
        self.fold, self._events, self._source, self._given = fold, events, source, 0

    def turn(self) -> None:
        for start in range(0, len(self._events["user"]), CALL):
            self.give(self._events, slice(start, start + CALL))

    def give(self, events: dict[str, np.ndarray], rows: slice) -> None:
        causes, part = at(events, rows, self._given, self._source)
        self._given += len(causes)
        self.fold(causes, part)


def every_user(world: World, feeds: dict[str, Feed], peer: socket.socket) -> None:
    """Each user once, to each shard and to Redis."""
    user, (_, item), outcome = np.arange(len(world.users)), world.chosen(len(world.users)), world.outcome(len(world.users))
    events = world.events(user, item, *outcome)
    for start in range(0, len(user), CALL):
        for name in ("fold", "fold.flight"):
            feeds[name].give(events, slice(start, start + CALL))
    ask_until_pong(peer, requests_of(world, user, item, *outcome, REQUEST))


def sizes(shard: FeatureShard, peer: socket.socket, users: int) -> list[Row]:
    """Bytes of a user's rows, here and in Redis."""
    shard.flush()
    own, built_in = (_bytes_a_row(shard, family) for family in ("group user", "users"))
    of_redis = sum(int(said(peer, b"MEMORY", b"USAGE", b"%s%d" % (kind, user), b"SAMPLES", b"0"))
                   for user in range(SAMPLED) for kind in (b"u", b"l")) / SAMPLED
    on_disk = sum(shard.store.compacted_bytes(family) for family in ("group user", "users")) / users
    pairs = shard.counts["group user x item.author"] / users
    return [Row("user.definitions", own, "bytes a user", "redis", of_redis, f"key and value of the row of 5 features; {pairs:.1f} rows of"
                f" {_bytes_a_row(shard, 'group user x item.author'):.0f} bytes a user and author, of 3 features, come beside it"),
            Row("user.disk", on_disk, "bytes a user", "key and value", own + built_in,
                f"after a compaction (LZ4), of {users:,} users, most of whom had few events; the built-in features and the"
                f" last 64 items and events are {built_in:.0f}")]


def _bytes_a_row(shard: FeatureShard, family: str) -> float:
    """In the mean, key and value."""
    held = [len(key) + len(value) for key, value in shard.store.scan(family)]
    return sum(held) / len(held)


def reads(users: int, items: int, quick: bool) -> list[Row]:
    """Multi-gets in the shard's process and from without, and an event's way to a reader, beside updates."""
    count, shown, longest_s = (READS_QUICK, SHOWN_QUICK, LONGEST_QUICK_S) if quick else (READS, SHOWN, LONGEST_S)
    world, found = World(users, items, seed=2), list[Row]()
    with tempfile.TemporaryDirectory() as folder:
        with served(Path(folder) / "own") as here:
            fill(world, here.shard.freeze_and_fold)
            with writing(here.address, UPDATES, users, items, 2) as rate:
                took = times(world, lambda *asked: here.owner.call(partial(here.shard.assemble, *asked)), count, longest_s)
            found.append(_times_row("multiget.local", took, rate.reached))
        with serving("headrace.bench.features_server", str(Path(folder) / "served")) as address:
            clients = [FeatureClient(address, feature_set=feature_set()) for _ in range(2)]
            fill(world, clients[0].freeze_and_fold)
            with writing(address, UPDATES, users, items, 2) as rate:
                took = times(world, clients[0].assemble, count, longest_s)
            found.append(_times_row("multiget.flight", took, rate.reached))
            with writing(address, UPDATES, users, items, 4) as rate:
                took = until_readable(world, clients[0], clients[1], shown, longest_s)
            found.append(_times_row("readable", took, rate.reached))
            for client in clients:
                client.close()
    return found


def fill(world: World, fold: Fold) -> None:
    """Each user and each item is met."""
    n = max(len(world.users), len(world.items))
    user, item = np.arange(n) % len(world.users), np.arange(n) % len(world.items)
    Feed(fold, world.events(user, item, *world.outcome(n))).turn()


def times(world: World, ask: Callable[..., object], count: int, longest_s: float) -> np.ndarray:
    """Milliseconds of each of `count` questions for a user with 500 items, or of as many as there is time for."""
    random, took, ends = np.random.default_rng(5), list[float](), time.monotonic() + longest_s
    context, now = np.zeros((CANDIDATES, 4), np.uint64), np.full(CANDIDATES, time.time_ns() // 1_000_000)
    while len(took) < count and (not took or time.monotonic() < ends):
        user = np.full(CANDIDATES, random.choice(world.users))
        item = random.choice(world.items, CANDIDATES, replace=False)
        began = time.perf_counter()
        ask(user, item, context, now)
        took.append(1000 * (time.perf_counter() - began))
        time.sleep(0.002)  # an engine has other work between two questions
    return np.array(took)


def until_readable(world: World, writer: FeatureClient, reader: FeatureClient, count: int, longest_s: float) -> np.ndarray:
    """Milliseconds from giving the event of a user who was never seen until an answer tells of it, of `count` or as many as there is time
    for."""
    strangers = World(count, len(world.items), seed=7)
    strangers.users = strangers.users ^ np.uint64(1 << 63)
    events = strangers.events(np.arange(count), np.arange(count) % len(world.items), *strangers.outcome(count))
    took, ends = list[float](), time.monotonic() + longest_s
    context, now = np.zeros((1, 4), np.uint64), np.full(1, time.time_ns() // 1_000_000)
    while len(took) < count and (not took or time.monotonic() < ends):
        causes, event = at(events, slice(len(took), len(took) + 1), len(took), source=3)
        giving = threading.Thread(target=writer.freeze_and_fold, args=(causes, event))
        began = time.perf_counter()
        giving.start()
        while reader.assemble(event["user"], event["item"], context, now).numbers[0, NUMBER] < 0:
            pass
        took.append(1000 * (time.perf_counter() - began))
        giving.join()
    return np.array(took)


def _times_row(name: str, took: np.ndarray, reached: float) -> Row:
    beside = f"beside {reached:,.0f} updates/s of {UPDATES:,} asked"
    asked = f"{len(took)} of {CANDIDATES} rows x {feature_set().K} numbers and {feature_set().F} keys with values" if "multiget" in name \
        else f"{len(took)} events, each alone in its call"
    return Row(f"{name}.p99", float(np.percentile(took, 99)), "ms", "goal", FEATURES_MS[name],
               f"p50 {np.percentile(took, 50):.2f}; {asked}; {beside}")


def _processor_s(process: psutil.Process) -> float:
    used = process.cpu_times()
    return float(used.user + used.system)
