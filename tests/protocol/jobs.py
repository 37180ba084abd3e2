"""The stages as Flink runs them: positions and state in a checkpoint, outputs at least once, a new life from the last checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from headrace.features.layout import FEATURE_SET, NUMBERS, RETRY, SIDE, SLOTS
from headrace.models.batch import Batch
from headrace.models.catalog import MODELS
from headrace.models.fields import fields_of
from headrace.models.train import Trainer
from headrace.ps.backfill import Backfill
from headrace.ps.client import ParameterClient
from headrace.rpc.causes import Causes
from headrace.rpc.errors import TooOld, Unavailable
from tests.protocol.join import Join, Sample
from tests.protocol.network import Killed, Link
from tests.protocol.plan import SOURCE, Event

if TYPE_CHECKING:
    from tests.protocol.world import World

_CTR = NUMBERS.index("item_ctr")
EFFECT = "click"


class Enriched(NamedTuple):
    """An event and its frozen sample, as bytes; empty for an action."""

    event: Event
    keys: bytes
    values: bytes
    numbers: bytes


class Answer(NamedTuple):
    """What the feature shard said of a cause: its sequence before the event, and whether the event was a retry."""

    sequence: int
    retry: bool


def causes_of(pairs: list[tuple[int, int]]) -> Causes:
    n = len(pairs)
    return Causes(np.full(n, SOURCE, np.int32), np.array([p for p, _ in pairs], np.int32), np.array([o for _, o in pairs], np.int64))


def columns_of(events: list[Event]) -> dict[str, np.ndarray]:
    """layout.EVENT_COLUMNS."""
    n = len(events)
    plain = {name: np.array([getattr(event, name) for event in events], dtype) for name, dtype in
             (("ts_ms", np.int64), ("action", np.uint8), ("user", np.uint64), ("item", np.uint64), ("event", np.uint64))}
    item_fields, context = np.zeros((n, 6), np.uint64), np.zeros((n, 4), np.uint64)
    item_fields[:, 0], context[:, 0] = plain["item"] % 4 + 1000, plain["ts_ms"] % 3 + 2000
    return plain | {"value": np.ones(n, np.float32), "user_fields": np.zeros((n, 4), np.uint64), "item_fields": item_fields,
                    "context": context, "served": np.zeros(n, np.uint8)}


def batch_of(samples: list[Sample]) -> tuple[Batch, Causes, np.ndarray]:
    """Samples of distinct causes as a trainer takes them, with the baseline's probabilities."""
    n = len(samples)

    def matrix(column: str, dtype: type) -> np.ndarray:
        return np.frombuffer(b"".join(getattr(sample, column) for sample in samples), dtype).reshape(n, -1)

    batch = Batch(matrix("keys", np.uint64), matrix("values", np.float32), np.array([s.label for s in samples], np.float32),
                  np.ones(n, np.float32))
    return batch, causes_of([sample.cause for sample in samples]), matrix("numbers", np.float32)[:, _CTR]


def _copied(state: dict[str, Any]) -> dict[str, Any]:
    return {name: [one.copy() if isinstance(one, Join) else one for one in values] for name, values in state.items()}


class Job:
    """`state` holds lists. `life` counts the starts: what an earlier life still does is an orphan's work, whose outputs and positions
    count for nothing."""

    def __init__(self, world: World, name: str, state: dict[str, Any]) -> None:
        self.world, self.name = world, name
        self.life, self.at_work = 0, set[int]()
        self.stopped = ""
        self.state, self._saved = state, _copied(state)

    @property
    def free(self) -> bool:
        return self.life not in self.at_work and not self.stopped

    def checkpoint(self) -> None:
        self._saved = _copied(self.state)

    def kill(self) -> None:
        """kill -9, and the next life begins at the last checkpoint."""
        self.world.counts["job kills"] += 1
        self.life += 1
        self.state = _copied(self._saved)

    def step(self) -> None:
        """One batch. A server that stays away restarts the job; a cause before the ring stops it."""
        life = self.life
        self.at_work.add(life)
        try:
            self.work(life)
        except Killed:
            pass
        except Unavailable as error:
            self.world.say("%s restarts: %s", self.name, error)
            if self.life == life:
                self.kill()
        except TooOld as error:
            self.world.say("%s meets %s", self.name, error)
            self.world.counts["too old"] += 1
            if self.life == life:
                self.stopped = str(error)
        finally:
            self.at_work.discard(life)

    def idle(self) -> bool:
        raise NotImplementedError

    def work(self, life: int) -> None:
        raise NotImplementedError

    def emit(self, life: int, write: Any, *record: Any) -> None:
        """One record of output, after which the job may be killed. Raises Killed when it already is."""
        if self.life != life:
            raise Killed
        write(*record)
        if self.world.strike():
            self.world.say("%s is killed among its outputs", self.name)
            self.kill()


class FeaturesJob(Job):
    """interactions -> freeze_and_fold -> enriched, in the order of a partition."""

    def __init__(self, world: World) -> None:
        super().__init__(world, "features-job", {"positions": [0] * world.plan.partitions})

    def idle(self) -> bool:
        return not self.world.interactions.unread(self.state["positions"])

    def work(self, life: int) -> None:
        world, positions = self.world, self.state["positions"]
        partition = world.chance.choice(world.interactions.unread(positions))
        events = world.interactions.read(partition, positions[partition], world.chance.randint(1, 16))
        causes = causes_of([event.cause for event in events])
        _, answer = world.network.call(self, life, world.features, "freeze_and_fold", {"feature_set": FEATURE_SET},
                                       {**causes._asdict(), **columns_of(events)})
        for row, event in enumerate(events):
            retry = bool(answer["status"][row] == RETRY)
            world.answered(event, Answer(int(answer["sequence"][row]), retry))
            if not retry:
                frozen = [answer[name][row].tobytes() if answer["values"][row, 0] else b"" for name in ("keys", "values", "numbers")]
                self.emit(life, world.enriched.write, partition, Enriched(event, *frozen))
        if self.life == life:
            positions[partition] += len(events)


class SamplesJob(Job):
    """enriched -> join -> samples, whose order is lost within a window of 30; records of one cause keep theirs."""

    LOST = 30

    def __init__(self, world: World) -> None:
        partitions = world.plan.partitions
        super().__init__(world, "samples-job", {"positions": [0] * partitions, "waiting": [],
                                                "joins": [Join(world.plan.eager) for _ in range(partitions)]})

    def idle(self) -> bool:
        return not self.world.enriched.unread(self.state["positions"]) and not (self.world.ending and self.state["waiting"])

    def work(self, life: int) -> None:
        world, state = self.world, self.state
        unread = world.enriched.unread(state["positions"])
        if unread:
            partition = world.chance.choice(unread)
            records = world.enriched.read(partition, state["positions"][partition], world.chance.randint(1, 16))
            for record in records:
                state["waiting"] += state["joins"][partition].take(record)
            state["positions"][partition] += len(records)
        self._leave(life, state["waiting"], 0 if world.ending and not unread else self.LOST)

    def close(self) -> None:
        """Event time goes on to its end in every partition."""
        for join in self.state["joins"]:
            self.state["waiting"] += join.close()

    def _leave(self, life: int, waiting: list[Sample], left: int) -> None:
        while len(waiting) > left:
            chosen = self.world.chance.choice(waiting).cause
            sample = waiting.pop(next(i for i, one in enumerate(waiting) if one.cause == chosen))
            self.emit(life, self.world.samples.write, sample.cause[0], sample)


class TrainJob(Job):
    """samples -> the product's Trainer and ParameterClient -> the product's shards."""

    def __init__(self, world: World, model: str) -> None:
        super().__init__(world, f"train-{model}", {"positions": [0] * world.plan.partitions})
        self.model = model

    def idle(self) -> bool:
        return not self.world.samples.unread(self.state["positions"])

    def client(self, life: int) -> ParameterClient:
        return ParameterClient(callers=[Link(self.world.network, self, life, server) for server in self.world.shards])

    def work(self, life: int) -> None:
        world, positions = self.world, list(self.state["positions"])
        taken: dict[tuple[int, int], Sample] = {}
        for partition in world.samples.unread(positions):
            for sample in world.samples.read(partition, positions[partition], world.chance.randint(0, 8)):
                taken.setdefault(sample.cause, sample)
                positions[partition] += 1
        if taken:
            self.learn(self.client(life), batch_of(list(taken.values())))
        if self.life == life:
            self.state["positions"] = positions

    def learn(self, client: ParameterClient, samples: tuple[Batch, Causes, np.ndarray]) -> None:
        Trainer(MODELS[self.model](fields_of(SLOTS, SIDE)), client.pull, client.push, 0.01, 256, EFFECT).learn(*samples)


class BackfillJob(TrainJob):
    """`samples` from its beginning, each shard sent what it lacks; it keeps no checkpoint."""

    def __init__(self, world: World, model: str) -> None:
        super().__init__(world, model)
        self.name = f"backfill-{model}"

    def learn(self, client: ParameterClient, samples: tuple[Batch, Causes, np.ndarray]) -> None:
        backfill = Backfill(client, len(self.world.shards))
        batch, causes, popularity = samples
        at = np.nonzero(backfill.lacking(self.model, EFFECT, causes))[0]
        trainer = Trainer(MODELS[self.model](fields_of(SLOTS, SIDE)), client.pull, backfill.push, 0.01, 256, EFFECT)
        trainer.learn(batch.take(at), causes.take(at), popularity[at])
        self.world.counts["backfilled"] += sum(tally.applied for tally in backfill.tallies)


class ReadJob(Job):
    """Assembles samples of random pairs, as the engine does, and keeps what it was answered."""

    def __init__(self, world: World) -> None:
        super().__init__(world, "reader", {})

    def idle(self) -> bool:
        return True

    def work(self, life: int) -> None:
        world, chance = self.world, self.world.chance
        n, now = chance.randint(1, 4), world.plan_times
        asked = {"user": np.array([chance.randint(1, 9) for _ in range(n)], np.uint64),
                 "item": np.array([chance.randint(101, 115) for _ in range(n)], np.uint64),
                 "context": np.zeros((n, 4), np.uint64), "ts_ms": np.array([chance.randint(*now) for _ in range(n)], np.int64)}
        header, answer = world.network.call(self, life, world.features, "assemble", {}, asked)
        world.reads.append((header["sequence"], asked, answer))
