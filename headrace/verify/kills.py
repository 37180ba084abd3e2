"""Processes ended at seeded moments while a stream runs, and how long each took to come back."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from headrace.verify.victims import NoVictim, StackVictims, Victim

PAUSE_S = (0.5, 4.0)  # between one process's return and the next kill
OVERLAP = 0.2  # share of kills that do not wait for the one before to be over
RECOVER_S = 180.0
# Training does not pass through these: they are back when they are ready again.
ASIDE = ("ann", "replica", "engine")


class NotRecovered(Exception):
    """A process that was ended, or the stream behind it, did not come back; the message names it. Its log in DATA_DIR/logs says why."""


@dataclass
class Kill:
    """One kill: seconds since the stream began, what, samples sent and not yet applied on every shard, and seconds until the process was
    ready again (and the stream moved on, where it passes through it)."""

    at_s: float
    process: str
    pid: int
    in_flight: int
    recovered_s: float | None = None


class Killer:
    """Ends `count` of the `victims`, each name in turn in a seeded order. `sent` and `applied` tell how far the
    stream is; `applied` may raise while shards are away."""

    def __init__(self, victims: StackVictims, count: int, seed: int, sent: Callable[[], int], applied: Callable[[], int],
                 say: Callable[[str], None]) -> None:
        self._victims, self._count, self._say = victims, count, say
        self._random = random.Random(seed)
        self._sent, self._applied = sent, applied
        self._began = time.monotonic()
        self.kills: list[Kill] = []
        self.failed: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="killer", daemon=True)
        self._watchers: list[threading.Thread] = []
        self._stop = threading.Event()

    def start(self) -> None:
        self._began = time.monotonic()
        self._thread.start()

    @property
    def over(self) -> bool:
        """All kills are done and all that was ended is back, or nothing more comes because something failed."""
        return not self._thread.is_alive()

    def stop(self) -> None:
        """End no more."""
        self._stop.set()
        self._thread.join(RECOVER_S)

    def _work(self) -> None:
        try:
            for name in self._order():
                if self._stop.wait(self._random.uniform(*PAUSE_S)) or self.failed:
                    return
                watcher = self._end(name)
                if self._random.random() >= OVERLAP:
                    watcher.join()
            for watcher in self._watchers:
                watcher.join()
        except BaseException as error:
            self.failed = error

    def _order(self) -> list[str]:
        """Names to end, one after the other: every name once before one comes again."""
        order: list[str] = []
        while len(order) < self._count:
            every = self._victims.names()
            self._random.shuffle(every)
            order += every
        return order[: self._count]

    def _end(self, name: str) -> threading.Thread:
        ends = time.monotonic() + RECOVER_S
        while True:
            try:
                victim = self._victims.find(name, self._random.choice)
                before = self._told(0)
                victim.kill()
                break
            except NoVictim as error:
                if time.monotonic() > ends:
                    raise NotRecovered(f"after {RECOVER_S:.0f} s: {error}") from None
                time.sleep(0.1)
        began = time.monotonic()
        kill = Kill(round(began - self._began, 2), name, victim.pid, max(0, self._sent() - before))
        self.kills.append(kill)
        self._say(f"{len(self.kills):>3} of {self._count}  at {kill.at_s:6.1f} s  {name} (pid {victim.pid}) ended,"
                  f" {kill.in_flight} in flight")
        watcher = threading.Thread(target=self._await, args=(victim, kill, began), name=f"back-{name}", daemon=True)
        watcher.start()
        self._watchers.append(watcher)
        return watcher

    def _await(self, victim: Victim, kill: Kill, began: float) -> None:
        """Note when `victim` is replaced and the stream has gone on since."""
        try:
            self._until(lambda: self._victims.is_back(victim), began, f"{victim.name} is not ready again")
            if victim.name.split("-")[0] not in ASIDE:
                base = self._told(-1)
                self._until(lambda: self._told(-1) > base >= 0 or self._told(-1) >= self._sent(), began,
                            f"nothing was learnt after {victim.name} came back")
            kill.recovered_s = round(time.monotonic() - began, 2)
        except NotRecovered as error:
            self.failed = error

    def _until(self, condition: Callable[[], bool], began: float, what: str) -> None:
        while not condition():
            if time.monotonic() - began > RECOVER_S:
                raise NotRecovered(f"{what} within {RECOVER_S:.0f} s")
            if self._stop.wait(0.1):
                return

    def _told(self, otherwise: int) -> int:
        """What `applied` says, or `otherwise` while shards are away."""
        try:
            return self._applied()
        except Exception:
            return otherwise


def by_process(kills: list[Kill]) -> dict[str, dict[str, Any]]:
    """{name: {kills, median_s, worst_s}} of the seconds to recover."""
    found: dict[str, dict[str, Any]] = {}
    for name in sorted({kill.process for kill in kills}):
        took = [kill.recovered_s for kill in kills if kill.process == name and kill.recovered_s is not None]
        found[name] = {"kills": sum(kill.process == name for kill in kills), "median_s": median(took) if took else None,
                       "worst_s": max(took, default=None)}
    return found


def as_rows(kills: list[Kill]) -> list[dict[str, Any]]:
    return [asdict(kill) for kill in kills]
