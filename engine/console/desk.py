"""What the parts of the pages are made from."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.engine.console.figures import Labelling, Sources
from headrace.engine.console.sampler import Sampler
from headrace.engine.console.trials import Trials
from headrace.engine.events import Events
from headrace.engine.recommend import Engine


@dataclass(frozen=True)
class Desk:
    """The engine itself, what is sampled beside it, the clicks that are being tried, and what people are to label."""

    engine: Engine
    events: Events
    sampler: Sampler
    trials: Trials
    labelling: Labelling | None = None


def desk(engine: Engine, events: Events, sources: Sources) -> Desk:
    """Over what is handed in; nothing is asked before somebody looks."""
    looks = {"learning": sources.learning, "freshness": sources.freshness, "flow": sources.flow, "processes": sources.processes}
    return Desk(engine, events, Sampler(looks), Trials(engine, events, sources.trail), sources.labelling)
