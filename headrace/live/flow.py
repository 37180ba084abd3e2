"""Does it keep up: what each job has read and written, and what waits in it, from Kafka's offsets and the services' own counts.

- features: every record of `enriched` names the interaction that it is of, so what waits is what came behind the last ones.
- samples: exposures that the feature service has folded, less samples; those whose window is open wait too.
- train: samples less those that every shard has applied; at rest when the shards know the last sample of each partition.
- vectors: a vector is made for the last of an id's touches, so counts do not tell, and the times of the newest causes do.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from headrace.engine.console.figures import NOT_SUBMITTED, Flow, Job, Point
from headrace.live.waiting import Quiet, Waiting

TAIL, TAIL_TOUCHED = 5, 20  # records at the end of a partition that are read
USERS_MAX = 30
COLLECTING_MAX = 0.4  # of the last minute: a heap that is nearly full stands still without an error
FULL = ("a TaskManager spends {share:.0%} of its time in garbage collection: the state of the jobs does not fit its heap of {heap:,.0f} MB."
        " Raise flink.taskmanager_mb, or set flink.state_backend = \"rocksdb\" (docs/sizing.md)")
REST_MS = 25_000  # beyond Flink's heartbeat timeout: a job that hangs is not called running for so long
Marks = dict[int, tuple[int, int]]
Record = dict[str, Any]
Cause = tuple[int, int, int]


class Asked(NamedTuple):
    """What a FlowLook asks. marks(topic); tail(topic, places) -> decoded records of the places that are still there; states() -> Flink's
    word for each job by name; impressions() ever folded; applied(model) of the slowest shard; known(model, causes): all of them are applied
    everywhere. What each raises of `away` is said and the rest is shown. collecting(): the share of its time that a TaskManager spends
    in garbage collection, and its heap's bytes."""

    marks: Callable[[str], Marks]
    tail: Callable[[str, list[tuple[int, int]]], list[Record]]
    states: Callable[[], dict[str, str]]
    impressions: Callable[[], int]
    applied: Callable[[str], int]
    known: Callable[[str, list[Cause]], bool]
    away: tuple[type[Exception], ...]
    collecting: Callable[[], tuple[float, int]] = lambda: (0.0, 0)


class FlowLook:
    """`jobs`: their names in order; `model` is served, train-NAME learns NAME; an exposure waits at least `window_ms` by design,
    and has a sample of each of `targets`."""

    def __init__(self, asked: Asked, jobs: Sequence[str], model: str, window_ms: int,
                 now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000, targets: int = 1) -> None:
        self._asked, self._jobs, self._model, self._now_ms = asked, jobs, model, now_ms
        self._targets = targets
        self._waiting = {job: Waiting() for job in jobs}
        self._quiet = Quiet(REST_MS + window_ms)
        self._users: OrderedDict[str, None] = OrderedDict()

    def __call__(self) -> tuple[Flow, Point]:
        problems: list[str] = []
        states = self._try(self._asked.states, problems)
        topics = {name: self._asked.marks(name) for name in ("interactions", "enriched", "samples", f"touched.{self._model}", "vectors")}
        impressions = self._try(self._asked.impressions, problems)
        share, heap = self._try(self._asked.collecting, problems) or (0.0, 0)
        if share > COLLECTING_MAX:
            problems.append(FULL.format(share=share, heap=heap / 1e6))
        highs = {name: sum(high for _, high in marks.values()) for name, marks in topics.items()}
        samples = self._tail("samples", topics["samples"], TAIL)
        self._meet(samples)
        made = []
        for job in self._jobs:
            state = "" if states is None else states.get(job, NOT_SUBMITTED)
            if job == "features":
                made.append(Job(job, state, "interactions", "enriched", highs["interactions"], highs["enriched"], self._unread(topics)))
            elif job == "samples":
                made.append(self._of_samples(job, state, impressions, highs["samples"]))
            elif job == "train" or job.startswith("train-"):
                made.append(self._of_train(job, state, highs["samples"], samples, problems))
            elif job == "vectors":
                made.append(Job(job, state, "touches", "vectors", highs[f"touched.{self._model}"], highs["vectors"], None,
                                self._behind(topics)))
            else:
                made.append(Job(job, state, NONE, NONE, None, None))
        point = {f"{job.name}_{side}": getattr(job, side) for job in made for side in ("read", "written")}
        return Flow(made, list(reversed(self._users)), list(dict.fromkeys(problems))), point

    def _of_samples(self, job: str, state: str, impressions: int | None, samples: int) -> Job:
        waiting = None
        if impressions is not None:
            through = self._quiet.for_long(self._now_ms(), impressions, samples) and state == "RUNNING"
            waiting = self._waiting[job].of(impressions, samples // self._targets, through)
        return Job(job, state, "exposures", "samples", impressions, samples, waiting)

    def _of_train(self, job: str, state: str, samples: int, tail: list[Record], problems: list[str]) -> Job:
        model = self._model if job == "train" else job.removeprefix("train-")
        causes = [(one["source"], one["partition"], one["offset"]) for one in tail]
        through = not causes or bool(self._try(lambda: self._asked.known(model, causes), problems))
        applied = self._try(lambda: self._asked.applied(model), problems)
        waiting = None if applied is None else self._waiting[job].of(samples // self._targets, applied, through)
        return Job(job, state, "samples", "applied", samples, applied, waiting)

    def _unread(self, topics: dict[str, Marks]) -> int:
        """Interactions behind the last that `enriched` has of each partition."""
        reached: dict[int, int] = {}
        for record in self._tail("enriched", topics["enriched"], TAIL):
            reached[record["partition"]] = max(reached.get(record["partition"], -1), record["offset"])
        return sum(max(0, high - 1 - reached.get(partition, low - 1)) for partition, (low, high) in topics["interactions"].items())

    def _behind(self, topics: dict[str, Marks]) -> int | None:
        """ms between the newest cause of a touch and the newest of a vector; None before the first touch."""
        touched, vectors = (max((record["caused_ms"] or 0 for record in self._tail(name, topics[name], TAIL_TOUCHED)), default=None)
                            for name in (f"touched.{self._model}", "vectors"))
        return None if touched is None else max(0, touched - vectors) if vectors is not None else None

    def _tail(self, topic: str, marks: Marks, count: int) -> list[Record]:
        places = [(partition, offset) for partition, (low, high) in marks.items() for offset in range(max(low, high - count), high)]
        return self._asked.tail(topic, places) if places else []

    def _meet(self, samples: list[Record]) -> None:
        for record in samples:
            self._users[record["user_id"]] = None
            self._users.move_to_end(record["user_id"])
        while len(self._users) > USERS_MAX:
            self._users.popitem(last=False)

    def _try(self, ask: Callable[[], Any], problems: list[str]) -> Any:
        """What `ask` says; None, and its reason among `problems`, when who is asked is away."""
        try:
            return ask()
        except self._asked.away as error:
            problems.append(str(error))
            return None


NONE = "–"
