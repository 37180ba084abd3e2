"""What the pages show besides the engine itself, as the callables that are handed in give it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

NOT_SUBMITTED = "not submitted"  # state of a job that the cluster does not know


@dataclass(frozen=True)
class Window:
    """A stretch of the stream that ended at `t_ms` (wall clock; of yesterday's windows a day is added), scored before it was learnt."""

    t_ms: int
    samples: int
    auc: float | None
    logloss: float | None
    popularity_auc: float | None
    popularity_logloss: float | None


@dataclass(frozen=True)
class Learning:
    """Windows oldest first. `no_yesterday`: why there are none of the day before, a sentence. `recent`: the last minute of learning, None
    when nothing was learnt in it; `learnt` samples and `positives` among them since the beginning. `note`: what is to
    be known of the figures, sentences."""

    model: str
    windows: list[Window]
    yesterday: list[Window]
    no_yesterday: str
    recent: Window | None
    learnt: int
    positives: int
    note: str = ""


@dataclass(frozen=True)
class Hop:
    """How old the newest cause was when it reached hop `name`, ms; None before the first. `problem`: why nobody says, a sentence."""

    name: str
    label: str
    goal_ms: float
    p50_ms: float | None = None
    p99_ms: float | None = None
    causes: int = 0
    problem: str = ""


@dataclass(frozen=True)
class Freshness:
    """Hops in the order of the loop; `note` says what the goals allow for."""

    hops: list[Hop]
    note: str = ""


@dataclass(frozen=True)
class Job:
    """A Flink job: what it has read and written, as counted from outside, ever. `waiting`: of what it reads (`reads`), not yet written;
    `behind_ms` where only times tell. None where it cannot be counted. `state` is Flink's word, "" when Flink does not say."""

    name: str
    state: str
    reads: str
    writes: str
    read: int | None
    written: int | None
    waiting: int | None = None
    behind_ms: int | None = None


@dataclass(frozen=True)
class Flow:
    """The jobs in the order of the stream; `users` seen of late; `problems`: what could not be asked, sentences."""

    jobs: list[Job]
    users: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Process:
    """A process of the stack or of somebody else: `memory_mb` and `restarts` are None where only its health page is known."""

    name: str
    state: str
    address: str = ""
    memory_mb: int | None = None
    restarts: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Processes:
    """`supervised`: the stack's own state file says so; else health pages alone. `serving`: which version is served and why, when it is
    not live by itself."""

    rows: list[Process]
    supervised: bool
    serving: str = ""


@dataclass(frozen=True)
class Doubt:
    """An item that is to be labelled next: how often it was shown, the uncertainty of that in bits, the model's mean score, how many people
    have labelled it, and how many items of the queue wait behind it."""

    item: str
    exposures: int
    bits: float
    score: float
    labelled: int
    behind: int


class Labelling(Protocol):
    """A queue of doubts. Both may raise sampler.Away."""

    target: str

    def next(self, labeller: str) -> Doubt | None:
        """What `labeller` has neither labelled nor put off; None when nothing is left."""

    def put(self, labeller: str, item: str, label: float | None) -> None:
        """Write a label; None puts the item off."""


Point = Mapping[str, float | None]
Learnt = Callable[[], bool]


@dataclass(frozen=True)
class Sources:
    """What is handed in. Each `look` may be slow and may raise sampler.Away. `trail(user, event_id, since_ms)` gives a callable that says
    whether training has applied that event on every shard; it may raise Away too. `labelling`: None where nobody keeps a queue."""

    learning: Callable[[], tuple[Learning, Point]]
    freshness: Callable[[], tuple[Freshness, Point]]
    flow: Callable[[], tuple[Flow, Point]]
    processes: Callable[[], tuple[Processes, Point]]
    trail: Callable[[str, str, int], Learnt]
    labelling: Labelling | None = None
