"""Each thing that headrace is connected to, tried, and what is wrong with it in a sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

import httpx

from headrace import access, kafka, secrets
from headrace.config import Config
from headrace.flink_rest import FlinkRest
from headrace.schemas.codec import schema_text
from headrace.schemas.registry import RegistryClient
from headrace.schemas.topics import settings

FLINK = "2.3"


class Tried(NamedTuple):
    """`todo` is "" when all is well."""

    name: str
    ok: bool
    found: str
    todo: str = ""


PARTS = ("kafka", "topics", "registry", "flink", "secrets for flink", "engine")


class UnknownPart(Exception):
    """`headrace connect check --only` names something that is not tried."""


def check(config: Config, only: Sequence[str] = PARTS) -> list[Tried]:
    """Kafka, its topics, the registry and its schemas, Flink, what its hosts need, the engine: those of `only`. Raises UnknownPart.

    Topics are left out where Kafka does not answer, secrets where none are needed.
    """
    for name in only:
        if name not in PARTS:
            raise UnknownPart(f"{name!r} is not tried; the parts are {', '.join(PARTS)}")
    work = {"kafka": _kafka, "topics": _topics, "registry": _registry, "flink": _flink, "secrets for flink": _secrets, "engine": _engine}
    made: list[Tried] = []
    for name in PARTS:
        away = name == "topics" and any(one.name == "kafka" and not one.ok for one in made)
        if name in only and not away and (name != "secrets for flink" or secrets.needed(config)):
            made.append(_tried(name, partial(work[name], config)))
    return made


def _tried(name: str, work: Callable[[], Tried]) -> Tried:
    try:
        return work()
    except Exception as error:  # whatever it is, the others are tried too
        own = type(error).__module__.startswith("headrace")
        said = str(error) if own else f"{type(error).__name__}: {error}"
        what, _, todo = said.partition(": look at ")
        return Tried(name, False, what, f"look at {todo}" if todo else _NEXT.get(name, "see the sentence before"))


_NEXT = {
    "kafka": "mend [kafka] of headrace.toml, or start the cluster; `headrace up` starts a local one",
    "topics": "`headrace up` creates what is missing; topics that exist keep their partitions",
    "registry": "mend [registry] of headrace.toml, or start the registry; `headrace up` starts a local one",
    "flink": "mend flink.url, or start the cluster; `headrace up` starts a local one",
    "engine": "`headrace status` says whether it runs",
}


def _kafka(config: Config) -> Tried:
    kafka.reach(config.kafka.cluster)
    how = config.kafka.security + (f", {config.kafka.mechanism} as {config.kafka.username}" if config.kafka.username else "")
    return Tried("kafka", True, f"{config.kafka.bootstrap} answers ({how})")


def _topics(config: Config) -> Tried:
    wanted = settings([model.name for model in config.trained], config.kafka.partitions)
    there = kafka.partitions(config.kafka.cluster)
    absent = [topic.name for topic in wanted if topic.name not in there]
    odd = [f"{topic.name} has {there[topic.name]} partitions and not {topic.partitions}" for topic in wanted
           if topic.name in there and topic.partitions and there[topic.name] != topic.partitions]
    if odd:
        return Tried("topics", False, "; ".join(odd), "causes name partitions: set kafka.partitions to what is there, or make them anew")
    if absent:
        return Tried("topics", False, f"missing: {', '.join(absent)}", _NEXT["topics"])
    return Tried("topics", True, f"{len(wanted)} there")


def _registry(config: Config) -> Tried:
    wanted = settings([model.name for model in config.trained], config.kafka.partitions)
    with closing(RegistryClient(config.registry.access)) as client:
        there = set(client.subjects())
        other = [name for topic in wanted if (name := f"{topic.name}-value") in there
                 and client.latest(name).text != schema_text(topic.schema)]
    who = f" as {config.registry.username}" if config.registry.username else ""
    known = sum(f"{topic.name}-value" in there for topic in wanted)
    note = f"; of another version: {', '.join(other)}" if other else ""
    return Tried("registry", True, f"{config.registry.url} answers{who}, {known} of {len(wanted)} subjects there{note}")


def _flink(config: Config) -> Tried:
    overview = FlinkRest(config.flink.url).overview()
    version, slots = overview["flink-version"], overview["slots-available"]
    found = f"{config.flink.url} answers, version {version}, {slots} of {overview['slots-total']} slots free"
    if not version.startswith(FLINK):
        return Tried("flink", False, found, f"the jobs are planned by Flink {FLINK}, and a cluster of another version refuses them")
    jobs = len([name for name, job in FlinkRest(config.flink.url).running().items() if job["state"] == "RUNNING"])
    if slots == 0 and not jobs:
        return Tried("flink", False, found, "no job can run: give the cluster TaskManagers, or slots")
    return Tried("flink", True, f"{found}, {jobs} jobs run")


def _secrets(config: Config) -> Tried:
    where = secrets.folder(config)
    if config.flink.external:
        return Tried("secrets for flink", True, f"expected in {where} on every Flink host; that cannot be looked at from here",
                     "`headrace connect secrets FOLDER` writes it" if not Path(where).is_dir() else "")
    return Tried("secrets for flink", True, f"{where}, written when the stack starts and when jobs are submitted")


def _engine(config: Config) -> Tried:
    answer = httpx.get(f"{config.engine.url}/ready", timeout=5.0, verify=access.trust(config.engine))
    missing = answer.json().get("missing", [])
    return Tried("engine", not missing, f"{config.engine.url} answers" + (f", and lacks {missing}" if missing else ", ready"),
                 _NEXT["engine"] if missing else "")
