"""One seed's world in one thread: who moves next is drawn, and so is who dies."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from tests.protocol.ailments import Healthy
from tests.protocol.jobs import Answer, BackfillJob, Enriched, FeaturesJob, Job, ReadJob, SamplesJob, TrainJob
from tests.protocol.join import Sample
from tests.protocol.network import Died, Network
from tests.protocol.plan import Event, Plan
from tests.protocol.servers import MODELS, FeatureServer, ParameterServer
from tests.protocol.topic import Topic
from tests.protocol.wrong import Wrong

DEPTH_MAX = 2
STEPS_MAX = 20_000


class World:
    """`run` lets everything move and die until all is read, then lets it come to rest. `counts` says what happened, `trace` how."""

    def __init__(self, plan: Plan, folder: Path, ailment: Healthy, trace: Callable[[str], None] | None = None) -> None:
        self.plan, self.ailment, self._trace = plan, ailment, trace
        self.chance = random.Random(f"world {plan.seed}")
        self.counts: Counter[str] = Counter()
        self.log = plan.interactions()
        self.plan_times = min(e.ts_ms for e in self.log), max(e.ts_ms for e in self.log)
        self._arrived = 0
        self.ending = False
        self._calm = False
        self._depth, self._syncs_left = 0, -1
        self.interactions, self.enriched, self.samples = (Topic[Event](plan.partitions), Topic[Enriched](plan.partitions),
                                                          Topic[Sample](plan.partitions))
        features_ring, ps_ring = plan.rings
        self.network = Network(self)
        self.features = FeatureServer(self, folder / "features", features_ring, plan.rocks)
        self.shards = [ParameterServer(self, folder / str(i), i, plan.shards, ps_ring) for i in range(plan.shards)]
        self.features_job, self.samples_job = FeaturesJob(self), SamplesJob(self)
        self.trainers = [TrainJob(self, model) for model in MODELS]
        self.reader = ReadJob(self)
        self.backfills: list[BackfillJob] = []
        self.answers: dict[tuple[int, int], Answer] = {}
        self.reads: list[tuple[int, dict[str, Any], dict[str, Any]]] = []

    @property
    def jobs(self) -> list[Job]:
        return [self.features_job, self.samples_job, *self.trainers, *self.backfills]

    def say(self, text: str, *args: Any) -> None:
        if self._trace is not None:
            self._trace("  " * self._depth + text % args)

    def strike(self, share: float = 1.0) -> bool:
        """Whether the worst happens here and now."""
        return not self._calm and self.chance.random() < share * self.plan.danger

    def answered(self, event: Event, answer: Answer) -> None:
        """A cause has one answer for ever."""
        held = self.answers.setdefault(event.cause, answer)
        Wrong.unless(held == answer, f"cause {event.cause} was answered {held}, and later {answer}")

    def run(self) -> None:
        """Until all that can move has come to rest."""
        with mock.patch("os.fsync", self._sync):
            for _ in range(STEPS_MAX):
                if self._arrived == len(self.log) and all(job.idle() or job.stopped for job in self.jobs):
                    break
                self.step()
            self._come_to_rest()

    def step(self) -> None:
        """One move of somebody."""
        movers: list[tuple[float, Callable[[], None]]] = [(4, job.step) for job in self.jobs if job.free and not job.idle()]
        if self._arrived < len(self.log):
            movers.append((2, self._arrive))
        if self.reader.free:
            movers.append((0.3, self.reader.step))
        if self.network.late:
            movers.append((1, lambda: self.network.deliver_late(self.chance.randrange(len(self.network.late)))))
        movers += [(1.5, self._checkpoint), (0.3, self._snapshot), (0.4, self._kill_job), (0.15, self._kill_server)]
        if self.plan.older:
            movers += [(0.2, self._back_up), (0.1, self._put_back)]
        if self.plan.backfills:
            movers.append((0.05, self._backfill))
        self.chance.choices([move for _, move in movers], [weight for weight, _ in movers])[0]()

    def interleave(self) -> None:
        """Others move in the middle of somebody's work."""
        if not self._calm and self._depth < DEPTH_MAX and self.chance.random() < 0.2:
            self._depth += 1
            try:
                for _ in range(self.chance.randint(1, 3)):
                    self.step()
            finally:
                self._depth -= 1

    def rest(self, *jobs: Job) -> None:
        """Let `jobs` do what is left, with nobody dying."""
        for _ in range(STEPS_MAX):
            waiting = [job for job in jobs if job.free and not job.idle()]
            if not waiting:
                return
            self.chance.choice(waiting).step()
        raise AssertionError("the world does not come to rest")

    def _come_to_rest(self) -> None:
        self._calm = True
        self.rest(self.features_job)
        self.rest(self.samples_job)
        self.ending = True
        self.samples_job.close()
        self.rest(*self.jobs)
        while self.network.late:
            self.network.deliver_late(0)
        if self.counts["older shards"]:  # without one nothing may be missing that a backfill would hide
            self.backfills = [BackfillJob(self, model) for model in MODELS]
            self.rest(*self.backfills)
        self.rest(*self.jobs)

    def _arrive(self) -> None:
        for event in self.log[self._arrived : self._arrived + self.chance.randint(1, 20)]:
            self.interactions.write(event.partition, event)
            self._arrived += 1

    def _checkpoint(self) -> None:
        ready = [job for job in self.jobs if job.free]
        if ready:
            self.chance.choice(ready).checkpoint()

    def _kill_job(self) -> None:
        alive = [job for job in [*self.jobs, self.reader] if not job.stopped]
        if alive:
            job = self.chance.choice(alive)
            self.say("%s is killed%s", job.name, " at work" if not job.free else "")
            job.kill()

    def _kill_server(self) -> None:
        server = self.chance.choice([self.features, *self.shards])
        self.say("%s is killed", server.name)
        server.kill()

    def _snapshot(self) -> None:
        if self.strike(10):
            self._syncs_left = self.chance.randint(0, 24)
        self.chance.choice(self.shards).snapshot()
        self._syncs_left = -1

    def _sync(self, _fd: int) -> None:
        """In the place of os.fsync: a moment at which a snapshot's writer may die."""
        if self._syncs_left == 0:
            self._syncs_left = -1
            raise Died
        self._syncs_left -= self._syncs_left > 0

    def _back_up(self) -> None:
        shard = self.chance.choice(self.shards)
        if shard.folder.exists():
            self.say("the folder of %s is copied", shard.name)
            shard.back_up()

    def _put_back(self) -> None:
        copied = [shard for shard in self.shards if shard.copy.exists()]
        if copied:
            shard = self.chance.choice(copied)
            self.say("the folder of %s is put back as it was", shard.name)
            self.counts["older shards"] += 1
            shard.put_back()

    def _backfill(self) -> None:
        running = [job for job in self.backfills if not job.idle() and not job.stopped]
        if not running:
            self.backfills = [BackfillJob(self, self.chance.choice(MODELS))]
            self.counts["backfills"] += 1
