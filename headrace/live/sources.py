"""All looks of the live page over one configuration, as the plain callables that the engine takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from headrace import kafka
from headrace.config import Config
from headrace.engine.console.figures import Flow, Point, Sources
from headrace.engine.console.sampler import Away
from headrace.flink_rest import FlinkRefused, FlinkRest, FlinkUnavailable
from headrace.job_names import job_names
from headrace.kafka import KafkaUnavailable
from headrace.live.flow import Asked, Cause, FlowLook, Record
from headrace.live.freshness import OWN, Ages, FreshnessLook
from headrace.live.labelling import Labelling
from headrace.live.learning import LearningLook
from headrace.live.processes import ProcessesLook, health
from headrace.live.trail import Trail
from headrace.ps.client import ParameterClient
from headrace.rpc.client import Client
from headrace.rpc.errors import RpcError
from headrace.rpc.freshness import Hop
from headrace.sampling import Samples
from headrace.schemas.codec import RegistryUnavailable
from headrace.schemas.errors import Malformed
from headrace.serve import Codecs
from headrace.taps import applied_of

TOPIC = "interactions"
CALL_S = 2.0
AWAY = (KafkaUnavailable, RpcError, RegistryUnavailable, FlinkUnavailable, FlinkRefused)
T = TypeVar("T")


def sources(config: Config, hop: Hop) -> tuple[Sources, Callable[[], None]]:
    """The looks, and what closes their connections, which are made when they are first used. `hop`: the engine's own freshness."""
    where, model, samples = config.kafka.cluster, config.model.name, config.samples
    parameters = ParameterClient(config.ps.reachable, CALL_S)
    shards = [Client(address, CALL_S) for address in config.ps.reachable]
    features = Client(config.features.address, CALL_S)
    flink = FlinkRest(config.flink.url, CALL_S)
    codecs = Codecs(config)

    def counts(keys: np.ndarray) -> np.ndarray:
        return np.asarray(parameters.pull(model, "metrics", keys)[0]).reshape(-1)

    def tail(topic: str, places: list[tuple[int, int]]) -> list[Record]:
        found: list[Record] = []
        for record in kafka.fetch(where, topic, places).values():
            try:
                found.append(codecs.of(topic).decode(record.value))
            except Malformed:
                continue  # of another writer: it tells nothing here
        return found

    def known(name: str, causes: list[Cause]) -> bool:
        columns = np.array(causes, np.int64).T
        arrays = {"source": columns[0].astype(np.int32), "partition": columns[1].astype(np.int32), "offset": columns[2].copy()}
        answers = [shard.call("known", {"model": name, "effect": config.target_of(name)}, arrays) for shard in shards]
        return all(bool(np.all(found["status"])) for _, found in answers)

    window_ms = samples.widest_ms + samples.out_of_orderness_ms
    learning = LearningLook(model, config.model.window_offsets, 20_000 + 2 * window_ms, lambda: kafka.watermarks(where, TOPIC),
                            lambda times: kafka.since_each(where, TOPIC, times), counts, note=_live(samples))
    flow = FlowLook(Asked(
        marks=lambda topic: kafka.watermarks(where, topic), tail=tail, states=flink.states,
        impressions=lambda: int(features.call("stats")[0]["impressions"]),
        applied=lambda name: min(applied_of(shard.call("stats")[0], name) for shard in shards), known=known, away=AWAY,
        collecting=flink.collecting),
        job_names(config), model, window_ms + config.engine.heartbeat_lag_ms, targets=len(samples.targets))
    ps = zip([*config.ps.addresses, *config.ps.standbys], [*config.ps.http_ports, *config.ps.standby_http_ports], strict=False)
    pages = {"gradient": [health(*one, "metrics") for one in ps],
             "serving_row": [health(*one, "metrics") for one in zip(config.replica.addresses, config.replica.http_ports, strict=False)],
             "vector": [health(config.ann.address, config.ann.http_port, "metrics")]}
    freshness = FreshnessLook({name: [page for page in listed if page] for name, listed in pages.items()},
                              lambda: Ages(hop.quantiles_ms(), hop.count), 0 if samples.live else window_ms)
    processes = ProcessesLook(config, lambda: _kafka(config))
    trail, labelling = Trail(config), Labelling(config)

    def flowing() -> tuple[Flow, Point]:
        trail.connect()
        return flow()

    def close() -> None:
        ends: list[Callable[[], None]] = [one.close for one in (parameters, features, freshness, processes, trail, labelling)]
        for end in (*ends, *(shard.close for shard in shards)):
            end()

    assert hop.name == OWN, "the engine's own hop"
    return Sources(_said(learning), _said(freshness), _said(flowing), _said(processes), trail, labelling), close


def _said(look: Callable[[], tuple[T, Point]]) -> Callable[[], tuple[T, Point]]:
    """`look`, with what is away as Away."""

    def asked() -> tuple[T, Point]:
        try:
            return look()
        except AWAY as error:
            raise Away(str(error)) from None

    return asked


def _kafka(config: Config) -> str:
    try:
        kafka.reach(config.kafka.cluster, CALL_S)
    except KafkaUnavailable as error:
        return str(error)
    return ""


def _live(samples: Samples) -> str:
    """What a strategy for live traffic means for the figures of the newest windows, "" under the other."""
    if not samples.live:
        return ""
    return (f"Under the strategy {samples.strategy} a positive is counted at once and a negative when its window of"
            f" {samples.window_ms / 1000:,.0f} s closes: the figures of so long are of positives before all, and better than they will be.")
