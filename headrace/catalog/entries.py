"""Every topic, table and lake of a stack as entries, each with what it holds, who writes and who reads it.

An entry is a dictionary that JSON can say: name, kind (topic, features, parameters, replica, vectors, lake), owner, readers, schema,
rows or records, bytes (None where nobody tells), oldest_ms and newest_ms, retention. What does not answer is told by name and left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from headrace import ingests, kafka, kafka_admin
from headrace.catalog.flows import Flow, flows, readers, writers
from headrace.config import Config
from headrace.kafka_types import KafkaUnavailable
from headrace.lake.errors import LakeAbsent, LakeAway
from headrace.rpc.client import Client
from headrace.rpc.errors import RpcError

ASK_S = 5.0
NOBODY = "nobody here"
OUTSIDE = ("interactions", "materials", "relations", "labels")  # producers write these
FOREVER = "for ever"
Entry = dict[str, Any]


class Catalog(NamedTuple):
    """Entries in the order of their kinds, and name -> why it did not answer."""

    entries: list[Entry]
    silent: dict[str, str]


def table(config: Config) -> list[Flow]:
    """The declared flows of `config`'s stack, its ingests among them."""
    return flows(config, {f"{ingests.PREFIX}{name}": ingests.load(config, name).topic for name in ingests.names(config)})


def catalog(config: Config) -> Catalog:
    """All of a stack."""
    made, silent = list[Entry](), dict[str, str]()
    parts: dict[str, Callable[[Config], list[Entry]]] = {
        "topics": _topics, "features": _features, **{f"ps-{n}": _shard(n) for n in range(len(config.ps.reachable))},
        **{name: _replica(name, address) for name, address in zip(config.replica.names, config.replica.addresses, strict=True)},
        "vectors-index": _vectors, "lake": _lake}
    for name, ask in parts.items():
        try:
            made += ask(config)
        except (RpcError, KafkaUnavailable, LakeAway) as error:
            silent[name] = str(error)
    return Catalog(_merged(made), silent)


def _merged(entries: list[Entry]) -> list[Entry]:
    """A table that lies on several shards is one entry; of replicas, which hold the same, the largest is told."""
    found: dict[str, Entry] = {}
    for one in entries:
        held = found.setdefault(one["name"], one)
        if held is not one and one["kind"] == "parameters":
            held |= {key: held[key] + one[key] for key in ("rows", "bytes")}
        elif held is not one and one["rows"] > held["rows"]:
            found[one["name"]] = one
    return list(found.values())


def _topics(config: Config) -> list[Entry]:
    where, declared = config.kafka.cluster, table(config)
    names = sorted(name for name in kafka.partitions(where) if not name.startswith("__"))
    settings, groups = kafka_admin.topic_settings(where, names), kafka_admin.groups(where)
    return [topic_entry(config, name, settings[name], groups, declared) for name in names]


def topic_entry(config: Config, name: str, settings: dict[str, str], groups: dict[str, kafka_admin.Offsets], declared: list[Flow]) -> Entry:
    """`records` are offsets: the marks of transactions and what compaction took are counted too."""
    marks = kafka.watermarks(config.kafka.cluster, name)
    oldest_ms, newest_ms = kafka_admin.ends_ms(config.kafka.cluster, name, marks)
    kept_ms = int(settings["retention.ms"])
    compacted = settings["cleanup.policy"] == "compact"
    return {"name": name, "kind": "topic", "owner": _owners(declared, name), "readers": _readers(declared, name, groups, marks),
            "partitions": len(marks), "records": sum(high - low for low, high in marks.values()), "bytes": _disk(config, name),
            "oldest_ms": oldest_ms, "newest_ms": newest_ms, "retention_ms": None if compacted or kept_ms < 0 else kept_ms,
            "retention": "the newest of each key" if compacted else kept_of(kept_ms), "settings": settings,
            "offsets": {str(partition): list(span) for partition, span in marks.items()}}


def kept_of(ms: int) -> str:
    """A retention in words."""
    return FOREVER if ms < 0 else f"{ms / 86_400_000:g} days"


def _owners(declared: list[Flow], place: str) -> list[str]:
    made = [f"{flow.kind} {flow.name}" for flow in writers(declared, place)]
    return ["producers", *made] if place in OUTSIDE else made or [NOBODY]


def _readers(declared: list[Flow], place: str, groups: dict[str, kafka_admin.Offsets],
             marks: dict[int, tuple[int, int]]) -> list[dict[str, Any]]:
    """The declared ones, and every group that has committed here. lag: offsets behind the end as last committed; None: no group."""
    wanted = {group: f"{flow.kind} {flow.name}" for flow in declared for topic, group in flow.groups if topic == place}
    named: list[dict[str, Any]] = [{"name": f"{flow.kind} {flow.name}", "group": None, "lag": None} for flow in readers(declared, place)
                                   if place not in dict(flow.groups)]
    held = {group: offsets[place] for group, offsets in groups.items() if place in offsets}
    for group in sorted({*wanted, *held}):
        lag = sum(high - max(held[group].get(p, low), low) for p, (low, high) in marks.items()) if group in held else None
        named.append({"name": wanted.get(group, "group"), "group": group, "lag": lag})
    return named


def _disk(config: Config, topic: str) -> int | None:
    """Bytes of its segments where the broker is the local stack's; another one does not say."""
    logs = list((config.stack.data_dir / "kafka").glob(f"**/{topic}-[0-9]*"))
    if config.kafka.external or not logs:
        return None
    return sum(file.stat().st_size for log in logs if log.name.rpartition("-")[0] == topic for file in log.glob("*.log"))


def _features(config: Config) -> list[Entry]:
    told = _asked(config.features.address)
    declared = table(config)
    return [_held(declared, "features", f"features/{name}", "features", **held) for name, held in sorted(told["families"].items())]


def _shard(number: int) -> Callable[[Config], list[Entry]]:
    def ask(config: Config) -> list[Entry]:
        return _tables(config, config.ps.reachable[number], "ps", "parameters")

    return ask


def _replica(name: str, address: str) -> Callable[[Config], list[Entry]]:
    def ask(config: Config) -> list[Entry]:
        return [one | {"name": one["name"].replace("replica/", f"{name}/", 1)} for one in _tables(config, address, "replica", "replica")]

    return ask


def _tables(config: Config, address: str, place: str, kind: str) -> list[Entry]:
    declared = table(config)
    return [_held(declared, f"{place}/{model}", f"{place}/{model}/{name}", kind, rows=held["rows"], bytes=held["bytes"])
            for model, of in _asked(address)["models"].items() for name, held in of["tables"].items()]


def _vectors(config: Config) -> list[Entry]:
    told, declared = _asked(config.ann.address), table(config)
    return [_held(declared, "vectors-index", f"vectors-index/{space}", "vectors", rows=held["rows"], bytes=4 * held["rows"] * held["dim"],
                  schema={"dim": held["dim"], "dtype": "float32"}) for space, held in told.items() if isinstance(held, dict)]


def _held(declared: list[Flow], place: str, name: str, kind: str, **more: Any) -> Entry:
    made = {"name": name, "kind": kind, "owner": _owners(declared, place), "readers": [
        {"name": f"{flow.kind} {flow.name}", "group": None, "lag": None} for flow in readers(declared, place)],
        "retention": FOREVER, "oldest_ms": None, "newest_ms": None}
    return made | more


def _lake(config: Config) -> list[Entry]:
    from headrace.lake import reader, summary
    from headrace.lake.columns import SCHEMA

    try:
        lake = reader.opened(config.lake_place)
    except LakeAbsent:
        return []
    files, told = lake.files, summary.stats(lake)
    return [{"name": "lake/samples", "kind": "lake", "owner": ["role lake"],
             "readers": [{"name": "headrace samples", "group": None, "lag": None}],
             **{name: told[name] for name in ("rows", "bytes", "files", "commits")}, "hours": len({file.hour for file in files}),
             "oldest_ms": min((file.ts_ms_min for file in files), default=None),
             "newest_ms": max((file.ts_ms_max for file in files), default=None), "retention": FOREVER, "folder": config.lake_place.where,
             "schema": {"fields": [{"name": field.name, "type": str(field.type)} for field in SCHEMA]}}]


def schema_of(config: Config, topic: str) -> dict[str, Any] | None:
    """Subject, version, id and fields of a topic's newest schema at the registry; None where it has none. Raises RegistryUnavailable."""
    from headrace.schemas.errors import UnknownSchema
    from headrace.schemas.registry import RegistryClient

    client = RegistryClient(config.registry.access)
    try:
        found = client.latest(f"{topic}-value")
    except UnknownSchema:
        return None
    finally:
        client.close()
    parsed = json.loads(found.text)
    return {"subject": found.subject, "version": found.version, "id": found.id,
            "fields": [{"name": one["name"], "type": _words(one["type"]), "doc": one.get("doc", "")} for one in parsed.get("fields", ())]}


def _words(avro: Any) -> str:
    if isinstance(avro, list):
        return " or ".join(_words(one) for one in avro)
    if isinstance(avro, dict):
        inner = avro.get("items") or avro.get("values")
        return f"{avro['type']} of {_words(inner)}" if inner else str(avro.get("logicalType") or avro["type"])
    return str(avro)


def _asked(address: str) -> dict[str, Any]:
    client = Client(address, ASK_S)
    try:
        return client.call("stats")[0]
    finally:
        client.close()

