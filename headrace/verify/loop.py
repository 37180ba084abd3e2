"""`headrace verify loop`: a stream through a stack of its own while its processes are ended, then everything counted from outside."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from headrace import submission
from headrace.choice import choice_of
from headrace.config import Config
from headrace.disorder import Shares
from headrace.drain import Stuck
from headrace.kafka import read_batches, watermarks
from headrace.live_taps import live_taps
from headrace.own_stack import UNJUDGED, own_stack
from headrace.recompute.live import live_join
from headrace.rows import Rows
from headrace.rpc.client import Client
from headrace.schemas.codec import Codec
from headrace.schemas.registry import RegistryClient
from headrace.taps import Taps
from headrace.verify import counts, frozen
from headrace.verify.kills import Killer, as_rows, by_process
from headrace.verify.stream import TOPIC, Stream
from headrace.verify.victims import StackVictims

JOBS = ["features", "samples", "train", "vectors"]
STUCK_S = 120.0
SETTLE_S = 60.0
LOOK_S = 0.3
QUIET_S = 2.0


class Plan(NamedTuple):
    """What is done to the stream: `kills` of the processes `only` (of all, when none is named), and `shares` of its events out of their
    order. At most `rate` rows a second, and not fewer than `rows_min`."""

    kills: int
    seed: int
    rate: float
    rows_min: int
    only: Sequence[str] = ()
    shares: Shares = Shares()


def run(data: Path, rows: Rows, plan: Plan, say: Callable[[str], None]) -> dict[str, Any]:
    """The result as JSON: kills, recovery by process, checks with both sides, duplicates dropped. `data` must be a new folder.

    Raises NotRecovered, Stuck, UnknownProcess, and what starting a stack raises.
    """
    with own_stack(data, say, settings=UNJUDGED) as config, live_taps(config) as taps:
        submission.submit(config, JOBS)
        say(f"jobs {', '.join(JOBS)} run; {plan.kills} kills, seed {plan.seed}, at most {plan.rate:.0f} rows/s of {len(rows)}")
        began = time.monotonic()
        with _Look(taps, config) as look:
            stream, killer = _stream(config, rows, plan, look, say)
            sent = stream.sent
            drained(sent.impressions, lambda: look.applied, lambda: _late(taps) if plan.shares.late else 0)
            seconds = time.monotonic() - began
            say(f"{sent.rows} rows sent and learnt in {seconds:.0f} s; counting")
            left = counts.read(taps)
            report = live_join(config, restarted=plan.kills > 0) if config.samples.strategy == "wait" else None
            found = counts.checks(left, rows.first(sent.rows), taps, config.ps.reachable, config.features.address, report,
                                  choice_of(config))
            if report is not None:
                found += counts.joined(report, sent.interactions, stream.disorder["duplicates"])
            found += frozen.compare(left.enriched, _interactions(config), config.features)
            found.append(served(config, taps.model))
            dropped = look.dropped
    return {"seed": plan.seed, "rows": sent.rows, "interactions": sent.interactions, "seconds": round(seconds, 1),
            "kills_planned": plan.kills, "disorder": stream.disorder, "join": report and report.told(),
            "kills_done": len(killer.kills), "kills": as_rows(killer.kills), "recovery": by_process(killer.kills), "checks": found,
            "copies": left.copies, "dead_letters_of_copies": len(left.dead), "duplicates_dropped": sum(dropped.values()),
            "dropped": dropped, "agree": all(one["agree"] for one in found) and len(killer.kills) == plan.kills}


def _stream(config: Config, rows: Rows, plan: Plan, look: _Look, say: Callable[[str], None]) -> tuple[Stream, Killer]:
    """Send while the killer works; raises what the killer failed with."""
    def share() -> float:
        back = sum(kill.recovered_s is not None for kill in killer.kills)
        return 1.0 if killer.over else min(back / plan.kills, 0.99)

    stream = Stream(config, rows, plan.rate, plan.rows_min, share, lambda: killer.failed is not None, plan.shares, plan.seed)
    victims = StackVictims(config.stack.data_dir, plan.only)
    killer = Killer(victims, plan.kills, plan.seed, lambda: stream.sent.impressions, lambda: look.applied, say)
    killer.start()
    try:
        stream.run()
    finally:
        killer.stop()
    if killer.failed is not None:
        raise killer.failed
    return stream, killer


class _Look:
    """Looks at the shards again and again: samples applied on all of them, and duplicates dropped, summed over restarts, at which the
    shards' own counts begin again from 0."""

    def __init__(self, taps: Taps, config: Config) -> None:
        self._taps, self._config = taps, config
        self.applied = 0
        self.dropped = {"pushes that were duplicates": 0, "pushes answered recut": 0, "events folded before": 0}
        self._last: dict[tuple[str, int], int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="look", daemon=True)

    def __enter__(self) -> _Look:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)

    def _work(self) -> None:
        features = Client(self._config.features.address, 5.0)
        shards = [Client(address, 5.0) for address in self._config.ps.reachable]
        while not self._stop.wait(LOOK_S):
            applied = []
            for index, client in enumerate([*shards, features]):
                try:
                    header, _ = client.call("stats", {}, {})
                except Exception:  # it is away: that is what is being tried
                    continue
                if client is features:
                    self._add("events folded before", index, header["duplicates"])
                    continue
                self._add("pushes that were duplicates", index, header["duplicates"])
                self._add("pushes answered recut", index, header["recuts"])
                applied.append(int(header["models"][self._taps.model]["applied"]))
            if len(applied) == len(shards):
                self.applied = min(applied)
        for client in (*shards, features):
            client.close()

    def _add(self, name: str, index: int, value: int) -> None:
        before = self._last.get((name, index), 0)
        self.dropped[name] += value - before if value >= before else value
        self._last[name, index] = value


def drained(wanted: int, applied: Callable[[], int], late: Callable[[], int] = lambda: 0) -> None:
    """Return when every shard has applied `wanted` samples, or all but the exposures that were refused as `late`, which is asked when
    nothing has moved for two seconds. Raises Stuck when nothing has for two minutes."""
    last, since = applied(), time.monotonic()
    while (now := applied()) < wanted:
        if now == last and time.monotonic() - since > QUIET_S and now >= wanted - late():
            return
        if now != last:
            last, since = now, time.monotonic()
        if time.monotonic() - since > STUCK_S:
            raise Stuck(f"{now} of {wanted} samples were learnt and nothing has moved for {STUCK_S:.0f} s; `headrace jobs logs NAME` and"
                        " the logs of the data folder say where")
        time.sleep(0.2)


def _late(taps: Taps) -> int:
    """Exposures that were refused as late and have no sample."""
    left = counts.read(taps)
    return sum("late" in left.dead.get(cause[1:], ()) for cause, record in left.enriched.items()
               if record["action"] == "impression" and cause not in left.samples)


def served(config: Config, model: str) -> counts.Check:
    """Every copy served against the shards, once it has had the time to fold the rest; what is still missing then is a difference."""
    ends = time.monotonic() + SETTLE_S
    while True:
        found = counts.served(model, config.ps.reachable, config.replica.copies, config.model.weights_dtype)
        if found["agree"] or time.monotonic() > ends:
            return found
        time.sleep(0.5)


def _interactions(config: Config) -> dict[tuple[int, int], dict[str, Any]]:
    """What producers sent, by (partition, offset), heartbeats aside."""
    codec, found = Codec(TOPIC, RegistryClient(config.registry.access)), {}
    highs = {p: high for p, (_, high) in watermarks(config.kafka.cluster, TOPIC).items()}
    open_partitions = {p for p, high in highs.items() if high}
    stop = threading.Event()
    for batch in read_batches(config.kafka.cluster, TOPIC, stop, dict.fromkeys(highs, 0), records_max=2000, wait_s=0.05):
        for record in batch:
            if record.offset < highs[record.partition] and record.value is not None:
                decoded = codec.decode(record.value)
                if decoded["action"] != "heartbeat":
                    found[record.partition, record.offset] = decoded
            if record.offset >= highs[record.partition] - 1:
                open_partitions.discard(record.partition)
        if not open_partitions:
            stop.set()
    return found
