"""Who reads and writes what: the one declared table of the platform's data flows. Its test compares it with what jobs and roles do.

A place is a topic by its name, or what a process keeps: `features`, `ps/MODEL`, `replica/MODEL`, `vectors-index`, `lake`.
"""

from __future__ import annotations

from dataclasses import dataclass

from headrace.config import Config
from headrace.schemas.topics import PROVISIONAL, touched_topic, weights_topic


@dataclass(frozen=True)
class Flow:
    """A job of Flink or a role that reads places and writes others. `groups`: topic -> the consumer group that it reads it with."""

    name: str
    kind: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    groups: tuple[tuple[str, str], ...] = ()


def flows(config: Config, ingests: dict[str, str] | None = None) -> list[Flow]:
    """Of a stack under `config`; `ingests`: name of an ingest job -> the topic that it reads."""
    served, fast = config.model.name, config.samples.strategy == "fast"
    provisional, owners = (PROVISIONAL,) if fast else (), ("ps-owners",) if config.ps.standbys else ()
    made = [
        _job("features", {"interactions": "features"}, ("features", "enriched", "dead-letters"),
             (f"replica/{served}",) if config.samples.live else ()),
        _job("samples", {"enriched": "samples"}, ("samples", "dead-letters", *provisional)),
        *(_train(model.name, "train" if model.name == served else f"train-{model.name}", provisional) for model in config.trained),
        _job("vectors", {touched_topic(served).name: f"vectors-{served}"}, ("vectors", "dead-letters"), (f"ps/{served}",)),
        *(_job(name, {topic: name}, ("interactions", "dead-letters")) for name, topic in (ingests or {}).items()),
        Flow("ps", "role", (*(f"ps/{model.name}" for model in config.trained), *owners),
             (*(weights_topic(model.name).name for model in config.trained), *owners)),
        Flow("replica", "role", (weights_topic(served).name, f"ps/{served}"), (f"replica/{served}",)),
        Flow("ann", "role", ("vectors",), ("vectors-index",)),
        Flow("engine", "role", ("features", f"replica/{served}", "vectors-index"), ("interactions",)),
    ]
    if config.watch.enabled:
        made.append(Flow("watch", "role", ("interactions", "enriched", "samples", "features", f"replica/{served}"), ()))
    if config.lake.enabled:
        made.append(Flow("lake", "role", ("samples",), ("lake",)))
    return made


def _job(name: str, reads: dict[str, str], writes: tuple[str, ...], asks: tuple[str, ...] = ()) -> Flow:
    return Flow(name, "job", (*reads, *asks), writes, tuple((topic, f"headrace-{group}") for topic, group in reads.items()))


def _train(model: str, name: str, provisional: tuple[str, ...]) -> Flow:
    reads = {"samples": f"train-{model}", **{topic: f"train-{model}-{PROVISIONAL}" for topic in provisional}}
    return _job(name, reads, (f"ps/{model}", touched_topic(model).name, "dead-letters"))


def writers(table: list[Flow], place: str) -> list[Flow]:
    """Who makes a place; nobody of ours makes `materials`, `relations` and `labels`."""
    return [flow for flow in table if place in flow.writes]


def readers(table: list[Flow], place: str) -> list[Flow]:
    return [flow for flow in table if place in flow.reads]


def places(table: list[Flow]) -> list[str]:
    return sorted({place for flow in table for place in (*flow.reads, *flow.writes)})


@dataclass(frozen=True)
class Step:
    """`flow` makes `to` of `of`; `depth`: how many flows lie between it and the place asked for, negative upstream."""

    depth: int
    of: tuple[str, ...]
    flow: str
    kind: str
    to: tuple[str, ...]


def lineage(table: list[Flow], place: str) -> list[Step]:
    """All that a place is made of, farthest first, and then all that is made of it. A loop, as impressions close, is told once."""
    return [*reversed(_walk(table, place, -1)), *_walk(table, place, 1)]


def _walk(table: list[Flow], place: str, way: int) -> list[Step]:
    found, front, seen, depth = list[Step](), [place], set[str](), 0
    while front:
        depth, following = depth + way, list[str]()
        for at in front:
            for flow in writers(table, at) if way < 0 else readers(table, at):
                if flow.name not in seen:
                    seen.add(flow.name)
                    found.append(Step(depth, flow.reads, flow.name, flow.kind, flow.writes))
                    following += flow.reads if way < 0 else flow.writes
        front = [one for one in dict.fromkeys(following) if one != place]
    return found
