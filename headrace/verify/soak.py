"""A soak: a stack of its own under a constant stream for a long time, looked at every ten seconds, then everything counted from outside."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from headrace import kafka, submission
from headrace.access import given
from headrace.choice import choice_of
from headrace.clock import StackClock
from headrace.config import Config
from headrace.features.shard import FROZEN_OFFSETS
from headrace.kafka import Producer
from headrace.live_taps import live_taps
from headrace.own_stack import UNJUDGED, own_stack
from headrace.replay import Send, close
from headrace.schemas.codec import Codec
from headrace.schemas.registry import RegistryClient
from headrace.taps import Taps
from headrace.verify import counts, flatness
from headrace.verify.gauges import Gauges, topics_mb
from headrace.verify.loop import JOBS, drained, served
from headrace.verify.steady import BEGIN_MS, Steady
from headrace.verify.tally import Tally

TOPIC = "interactions"
EVERY_S = 10.0
LOOKS_MIN = 20  # of a short run, which is looked at more often
SAY_S = 60.0
CLAIM_MS = 86_400_000  # the engine's heartbeats stay so far behind the rows
WARM_ROWS, WARM_SHARE, WARM_S = 1000, 0.25, 60.0  # samples learnt at a share of the rate before the stream begins, waited for so long
BEHIND_S = 120.0
# Measured, and half more: what an interaction adds to all topics; to the feature store's log, up to where RocksDB cuts it; the rest.
TOPICS_BYTES, STORE_BYTES, STORE_BYTES_MAX, REST_BYTES = 1000, 3000, 8e9, 1e9


class NoRoom(Exception):
    """The disk would be full before the end: another folder (--data), a lower --rate or fewer --minutes."""


class Behind(Exception):
    """The stack does not keep up with the rate, so nothing about standing still can be said: a lower --rate."""


def run(data: Path, *, seconds: float, rate: float, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """The result as JSON: looks, flatness, what grows by nature, accounts with both sides. `data` must be a new folder.

    Raises NoRoom, Behind, Stuck, and what starting a stack raises.
    """
    _room(data, rate * seconds)
    with own_stack(data, say, settings=UNJUDGED) as config, live_taps(config) as taps:
        submission.submit(config, JOBS)
        steady = Steady(seed, rate)
        say(f"jobs {', '.join(JOBS)} run; {rate:,.0f} interactions/s for {seconds / 60:.1f} minutes, seed {seed}")
        gauges = _stream(config, steady, seconds, say, lambda: min(taps.applied()))
        sent = steady.sent
        drained(sent.impressions, lambda: min(taps.applied()))
        say(f"{sent.interactions:,} interactions sent and learnt; counting")
        began = time.monotonic()
        replica = served(config, taps.model)
        tally = tallied(config, steady, say)
        found = [counts.check(*one) for one in tally.accounts() + _stores(config, taps, tally, steady)] + [replica]
        topics = {name: round(size * 1e6 / sent.interactions, 1) for name, size in topics_mb(config.stack.data_dir).items()}
    flat = flatness.judge(gauges.samples, seconds, _full(config, steady, seconds))
    return {"minutes": round(seconds / 60, 2), "rate": rate, "seed": seed, "rows": sent.rows, "interactions": sent.interactions,
            "sent_s": round(sent.seconds, 1), "counted_s": round(time.monotonic() - began, 1), "looks_failed": gauges.failed,
            "looks": gauges.samples, "flatness": flat, "by_nature": flatness.by_nature(gauges.samples, seconds),
            "topic_bytes_an_interaction": topics, "checks": found, "copies": tally.copies, "dead_letters": dict(tally.reasons),
            "flat": all(one["flat"] is not False for one in flat), "agree": all(one["agree"] for one in found)}


def _room(data: Path, interactions: float) -> None:
    above = next(folder for folder in (data, *data.parents) if folder.exists())
    free = shutil.disk_usage(above).free
    wanted = interactions * TOPICS_BYTES + min(interactions * STORE_BYTES, STORE_BYTES_MAX) + REST_BYTES
    if wanted > free:
        raise NoRoom(f"{interactions:,.0f} interactions take some {wanted / 1e9:.0f} GB and {above} has {free / 1e9:.0f} GB free: fewer"
                     " --minutes, a lower --rate, or --data on another disk")


def _stream(config: Config, steady: Steady, seconds: float, say: Callable[[str], None], applied: Callable[[], int]) -> Gauges:
    """Send while the stack is looked at. Raises Behind, and what the looks failed with."""
    every_s, said, behind = min(EVERY_S, max(seconds / LOOKS_MIN, 1.0)), 0.0, 0

    def told(sample: dict[str, Any]) -> None:
        nonlocal said, behind
        behind = sample["lag"] if sample["lag"] > BEHIND_S * steady.rate else 0
        if sample["at_s"] - said >= min(SAY_S, seconds / 4):
            said = sample["at_s"]
            p50, p99 = (f"{ms:,.0f}" if (ms := sample[f"latency_{q}_ms"]) is not None else "-" for q in ("p50", "p99"))
            say(f"{sample['at_s']:,.0f} s: latency p50 {p50}, p99 {p99} ms; {sample['lag']:,} samples to come; memory"
                f" {sample['memory_total_mb']:,}, disk {sum(sample['disk_mb'].values()):,.0f} MB")

    with _sending(config, steady) as send:
        # Workers start with the first rows: were those sent at the full rate, the stream would begin with what has piled up meanwhile.
        steady.run(send, WARM_S, config.kafka.partitions, lambda: applied() >= min(WARM_ROWS, steady.rate), WARM_SHARE)
        with Gauges(config, every_s, lambda: steady.sent.impressions, steady.positive, told) as gauges:
            steady.run(send, seconds, config.kafka.partitions, lambda: behind > 0 or gauges.error is not None)
    if gauges.error is not None:
        raise gauges.error
    if behind:
        raise Behind(f"{behind:,} samples were still to come after {steady.sent.seconds:.0f} s, two minutes' worth: this machine does not"
                     f" keep up with {steady.rate:,.0f} interactions/s; a lower --rate")
    return gauges


@contextmanager
def _sending(config: Config, steady: Steady) -> Iterator[Send]:
    """A `send(key, record)`; at the end everything is at the broker, and event time beyond the last window.

    Raises Undelivered, EngineUnavailable.
    """
    producer, codec, wanted = Producer(config.kafka.cluster), Codec(TOPIC, RegistryClient(config.registry.access)), config.samples

    def send(key: bytes, record: dict[str, Any]) -> None:
        producer.send(TOPIC, key, codec.encode(record))

    with closing(StackClock(**given(config.engine))) as clock:
        clock.set("log", BEGIN_MS - CLAIM_MS)
        yield send
        reached = close(steady.sent, send, config.kafka.partitions, wanted.widest_ms, wanted.out_of_orderness_ms)
        producer.flush()
        clock.set("log", reached)


def tallied(config: Config, steady: Steady, say: Callable[[str], None]) -> Tally:
    """Everything that lies in `enriched`, `samples` and `dead-letters`, counted as it is read."""
    bootstrap, registry = config.kafka.cluster, RegistryClient(config.registry.access)
    tally = Tally(kafka.topic_source(bootstrap, TOPIC), steady.digest, steady.made.labels, choice_of(config))

    def read(topic: str) -> Any:
        codec, stop = Codec(topic, registry), {p: high for p, (_, high) in kafka.watermarks(bootstrap, topic).items()}
        say(f"{sum(stop.values()):,} records of {topic}")
        return ((one.value, codec.decode(one.value)) for one in kafka.read_between(bootstrap, topic, {}, stop) if one.value is not None)

    tally.enriched(read("enriched"))
    target = config.target_of()
    tally.samples(record for _, record in read("samples") if record["target"] == target)
    tally.dead(record for _, record in read("dead-letters"))
    return tally


def _stores(config: Config, taps: Taps, tally: Tally, steady: Steady) -> list[tuple[str, int, int]]:
    """Shards and feature store against the samples and the log."""
    made = [(f"samples applied by shard {shard}", applied, steady.sent.rows) for shard, applied in enumerate(taps.applied())]
    made += counts.parameters(*tally.keys.counted(), taps.model, config.ps.reachable)
    for of in ("user", "item"):
        names = sorted(steady.made.shown[of])
        shown, clicked = (np.array([counted[name] for name in names], np.int64) for counted in (steady.made.shown[of],
                                                                                               steady.made.clicked[of]))
        made.append(counts.totals(of, names, shown, clicked, config.features.address))
    return made


def _full(config: Config, steady: Steady, seconds: float) -> bool:
    """Whether each partition had passed as many offsets as frozen samples are kept for before the second quarter began."""
    return steady.rate * seconds / 4 / config.kafka.partitions >= min(FROZEN_OFFSETS, config.features.ring_length)
