"""The verbs of docs/architecture.md on top of a Store and of a Replica, and their figures for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from headrace.ps import kernels
from headrace.ps.digest import page
from headrace.ps.encoding import encode
from headrace.ps.index import kernel_input
from headrace.ps.member import Member
from headrace.ps.recovery import Store
from headrace.ps.replica import Replica
from headrace.ps.shard import APPLIED, RECUT, Shard
from headrace.ps.table import SLOTS
from headrace.rpc.causes import Causes
from headrace.rpc.errors import BadMessage, Refused, Unavailable
from headrace.rpc.freshness import Hop, from_header, to_header
from headrace.rpc.message import Arrays, Header, column
from headrace.rpc.server import Later, Verb

PAGE_ROWS = 16384
LIVE = 0  # the version of what is being trained
TABLE_GAUGES = {"rows": "Rows of a table", "bytes": "Bytes in use of a table", "load": "Share of its index that is taken",
                "keys_waiting": "Keys counted and not let in; -1: the filter does not know"}
TABLE_COUNTS = {"admitted": "Keys let in after they had waited", "kept_out": "Gradients dropped of keys that wait",
                "removed": "Rows that went", "clipped": "Values that their encoding could not say, as often as published"}
Answer = tuple[Header, Arrays]


def shard_verbs(store: Store, hop: Hop | None = None, durable: bool = False,
                acknowledged: Callable[[int], Any] | None = None) -> dict[str, Verb]:
    """pull, push, pull_push, known, stats, export, digest, snapshot; `hop` notes how old the newest cause of a push is when it is applied.
    `durable`: a push is answered when the disk has it, else when the operating system has it. `acknowledged(sequence)`: called before, of a
    shard that has a standby; it raises Unavailable when the push may not be answered."""
    shard = store.shard
    if shard.log is not None:
        shard.log.durable = durable

    def snapshot(header: Header, arrays: Arrays) -> Answer | Later:
        told: Header = {"sequence": shard.sequence}
        try:
            if header.get("aside"):
                store.snapshot_aside()
                return told, {}
            if store.turn is None:
                return {**told, "path": str(store.snapshot())}, {}
            return Later(told, {}, lambda: told.update(path=str(store.written(told["sequence"]))))
        except OSError as error:
            raise Unavailable(f"the snapshot could not be written, the log is kept: {error}") from None

    def stats(header: Header, arrays: Arrays) -> Answer:
        return shard_stats(store), {}

    return {**_reads(shard), **_pushes(store, hop, durable, acknowledged), "snapshot": snapshot, "stats": stats}


def _pushes(store: Store, hop: Hop | None, durable: bool, acknowledged: Callable[[int], Any] | None) -> dict[str, Verb]:
    shard = store.shard

    def safe(sequence: int, wait_s: float) -> None:
        if wait_s:
            time.sleep(wait_s)
        if durable and shard.log is not None:
            try:
                shard.log.commit(sequence)
            except OSError as error:
                raise Unavailable(f"the push is applied, and not safe on the disk: {error}") from None
        if acknowledged is not None:
            acknowledged(sequence)

    def push(header: Header, arrays: Arrays) -> Answer | Later:
        newest, pulled = from_header(header.get("newest")), header.get("pulled")
        if pulled is not None and not isinstance(pulled, int):
            raise BadMessage(f"header 'pulled' is {pulled!r:.40}, expected a sequence")
        done = shard.push(_text(header, "model"), _text(header, "effect"), _causes(arrays), _tables(arrays), newest, pulled)
        if hop is not None and done.status == APPLIED:
            hop.observe(newest)
        bits = {"applied": done.applied.astype(np.uint8)} if done.status == RECUT and done.applied is not None else {}
        told, wait_s = {"status": done.status, "sequence": done.sequence}, store.pace_s()
        return Later(told, bits, lambda: safe(done.sequence, wait_s)) if durable or wait_s or acknowledged else (told, bits)

    def pull_push(header: Header, arrays: Arrays) -> Answer | Later:
        """A push, and then a pull in the same turn: of `tables`, the keys `pull.keys`."""
        keys, model, tables = column(arrays, "pull.keys", "uint64", (None,)), _text(header, "model"), _names(header)
        for table in tables:
            shard.pullable(model, table, keys)  # what is wrong with the pull is said before anything is applied
        done = push(header, {name: array for name, array in arrays.items() if name != "pull.keys"})
        values = {f"{table}.values": shard.pull(model, table, keys) for table in tables}
        if isinstance(done, Later):
            return Later(done.header, {**done.arrays, **values}, done.then)
        return done[0], {**done[1], **values}

    def erase(header: Header, arrays: Arrays) -> Answer | Later:
        rows = shard.erase(_text(header, "model"), column(arrays, "keys", "uint64", (None,)))
        told: Header = {"rows": rows, "sequence": shard.sequence}
        return Later(told, {}, lambda: safe(told["sequence"], 0.0)) if durable or acknowledged else (told, {})

    return {"push": push, "pull_push": pull_push, "erase": erase}


def _reads(shard: Shard) -> dict[str, Verb]:
    def pull(header: Header, arrays: Arrays) -> Answer:
        keys, model = column(arrays, "keys", "uint64", (None,)), _text(header, "model")
        if "tables" not in header:
            return {"sequence": shard.sequence}, {"values": shard.pull(model, _text(header, "table"), keys)}
        return {"sequence": shard.sequence}, {f"{table}.values": shard.pull(model, table, keys) for table in _names(header)}

    def known(header: Header, arrays: Arrays) -> Answer:
        return {"sequence": shard.sequence}, {"status": shard.known(_text(header, "model"), _text(header, "effect"), _causes(arrays))}

    def export(header: Header, arrays: Arrays) -> Answer:
        table = shard.table(_text(header, "model"), _text(header, "table"))
        keys, values, following = table.page(_cursor(header), PAGE_ROWS)
        if "slots" in header:
            first, stop = _range(header["slots"])
            slots = kernels.slots_of(kernel_input(keys))
            mine = (slots >= first) & (slots < stop)
            keys, values = keys[mine], values[mine]
        told = {"cursor": following, "sequence": shard.sequence, "epoch": shard.epoch}
        if not header.get("served"):
            return told, {"keys": keys, "values": values}
        found = encode(values, table.spec.encoding)
        return {**told, "encoding": table.spec.encoding}, {"keys": keys, "values": found.values, "scales": found.scales}

    def digest(header: Header, arrays: Arrays) -> Answer:
        table = shard.table(_text(header, "model"), _text(header, "table"))
        if not table.spec.served:
            raise Refused(f"table {table.spec.name} is not served: replicas do not have it")
        sums, following = page(table, _cursor(header), table.spec.encoding)
        return {"cursor": following, "slots": list(shard.slots), "state": [shard.epoch, shard.sequence]}, sums

    def held(header: Header, arrays: Arrays) -> Answer:
        return {"rows": shard.held(_text(header, "model"), column(arrays, "keys", "uint64", (None,)))}, {}

    return {"pull": pull, "known": known, "export": export, "digest": digest, "held": held}


def shard_stats(store: Store) -> Header:
    """models: {model: {version, applied, effects: {effect: applied}, tables: {table: {rows, bytes, load, sum (int64)}}}}, counts, sequence,
    epoch, slots, log_bytes."""
    shard = store.shard
    models: dict[str, Any] = {}
    for model, spec in shard.specs.items():
        tables: dict[str, Any] = {}
        for table in spec.tables:
            held = shard.tables[model, table.name]
            tables[table.name] = {"rows": len(held), "rows_max": held.rows_max, "bytes": held.bytes, "bytes_max": held.spec.bytes_max,
                                  "load": held.load, "waiting": held.waiting, **held.counts}
            if held.dtype == np.int64:
                tables[table.name]["sum"] = held.sum()
        models[model] = {"version": spec.version, "applied": shard.rings.count(spec.scope),
                         "effects": shard.rings.effects(spec.scope), "tables": tables}
    return {"models": models, **shard.counts, "removed": dict(shard.removed), "sequence": shard.sequence, "epoch": shard.epoch,
            "slots": list(shard.slots), "log_bytes": shard.log.size_bytes if shard.log else 0,
            "staleness": shard.staleness.told(), "snapshot_age_s": store.snapshot_age_s(),
            "unsnapshotted": shard.sequence - store.snapshotted}


def replica_verbs(replica: Replica) -> dict[str, Verb]:
    """pull, digest and stats of a replica."""

    def pull(header: Header, arrays: Arrays) -> Answer:
        model, keys = _text(header, "model"), column(arrays, "keys", "uint64", (None,))
        values = replica.pull(model, _text(header, "table"), keys)
        newest = to_header(replica.newest.get(model))
        return {"sequence": replica.sequence(model), "age_ms": replica.age_ms(model), "newest": newest, "version": LIVE,
                "whole": replica.whole}, {"values": values}

    def stats(header: Header, arrays: Arrays) -> Answer:
        models: dict[str, Any] = {}
        for (model, name), held in replica.held.items():
            entry = models.setdefault(model, {"sequence": replica.sequence(model), "age_ms": replica.age_ms(model), "tables": {}})
            entry["tables"][name] = {"rows": len(held.table), "bytes": held.table.bytes, "load": held.table.load}
        return {"models": models, **replica.counts, "open_gaps": [list(gap) for gap in sorted(replica.gaps)],
                "slots": list(replica.slots)}, {}

    def digest(header: Header, arrays: Arrays) -> Answer:
        table = replica.table(_text(header, "model"), _text(header, "table"))
        sums, following = page(table, _cursor(header), "float32")
        return {"cursor": following, "slots": list(replica.slots), "state": replica.changes}, sums

    return {"pull": pull, "digest": digest, "stats": stats}


class ShardFigures:
    """A Prometheus collector of a shard: integers that its thread writes, read as they are."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterable[Any]:
        shard = self._store.shard
        by_table = {name: GaugeMetricFamily(f"headrace_ps_{name}", text, labels=["model", "table"]) for name, text in TABLE_GAUGES.items()}
        counted = {name: CounterMetricFamily(f"headrace_ps_keys_{name}", text, labels=["model", "table"])
                   for name, text in TABLE_COUNTS.items()}
        for at, table in shard.tables.items():
            for name, value in (("rows", len(table)), ("bytes", table.bytes), ("load", table.load), ("keys_waiting", table.waiting)):
                by_table[name].add_metric(at, value)
            for name, metric in counted.items():
                metric.add_metric(at, table.counts[name])
        yield from by_table.values()
        yield from counted.values()
        went = CounterMetricFamily("headrace_ps_rows_removed", "Rows that went, by cause: ttl, lru or erased", labels=["cause"])
        for cause, count in shard.removed.items():
            went.add_metric([cause], count)
        yield went
        for name, count in shard.counts.items():
            yield CounterMetricFamily(f"headrace_ps_{name}", f"Pushes received: {name}", value=count)
        stale = HistogramMetricFamily("headrace_ps_staleness", "Pushes applied between the pull that a push is of and the push")
        stale.add_metric([], shard.staleness.buckets(), shard.staleness.sum)
        yield stale
        yield GaugeMetricFamily("headrace_ps_sequence", "Sequence of the shard", value=shard.sequence)
        yield GaugeMetricFamily("headrace_ps_snapshot_age_seconds", "Since the newest snapshot was taken; -1 before the first",
                                value=self._store.snapshot_age_s())
        yield GaugeMetricFamily("headrace_ps_log_bytes", "Bytes of the log", value=shard.log.size_bytes if shard.log else 0)


class MemberFigures:
    """A Prometheus collector of one of the two members of a shard."""

    def __init__(self, member: Member) -> None:
        self._member = member

    def collect(self) -> Iterable[Any]:
        told = self._member.told()
        yield GaugeMetricFamily("headrace_ps_owns", "1: this member serves the shard; 0: it stands by", value=int(told["owns"]))
        yield GaugeMetricFamily("headrace_ps_epoch", "Epoch of the shard", value=self._member.store.shard.epoch)
        if "in_sync" in told:
            yield GaugeMetricFamily("headrace_ps_standby_in_sync", "1: pushes wait for the standby", value=int(told["in_sync"]))
            yield GaugeMetricFamily("headrace_ps_standby_behind", "Pushes that it has not acknowledged; -1: it has not been heard",
                                    value=told["standby_behind"])
            yield CounterMetricFamily("headrace_ps_went_on_alone", "Times the shard went on without its standby", value=told["alone"])


class ReplicaFigures:
    """A Prometheus collector of a replica."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    def collect(self) -> Iterable[Any]:
        rows = GaugeMetricFamily("headrace_replica_rows", "Rows of a table", labels=["model", "table"])
        age = GaugeMetricFamily("headrace_replica_age_ms", "Milliseconds since the newest block folded was published", labels=["model"])
        for at, held in self._replica.held.items():
            rows.add_metric(at, len(held.table))
        for model in sorted({model for model, _ in self._replica.held}):
            age.add_metric([model], self._replica.age_ms(model))
        yield rows
        yield age
        for name, count in self._replica.counts.items():
            yield CounterMetricFamily(f"headrace_replica_{name}", f"Blocks: {name}", value=count)
        yield GaugeMetricFamily("headrace_replica_open_gaps", "Tables of shards to export again", value=len(self._replica.gaps))


def _causes(arrays: Arrays) -> Causes:
    causes = Causes(column(arrays, "source", "int32", (None,)), column(arrays, "partition", "int32", (None,)),
                    column(arrays, "offset", "int64", (None,)))
    if not len(causes.source) == len(causes.partition) == len(causes.offset):
        raise BadMessage("source, partition and offset differ in length")
    return causes


def _tables(arrays: Arrays) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """T.keys and T.grads, paired. Raises BadMessage for one without the other and for an array of another name."""
    tables = {}
    for array in arrays:
        name, _, kind = array.partition(".")
        if kind not in ("keys", "grads"):
            if array not in Causes._fields:
                raise BadMessage(f"array {array!r}: a push holds {', '.join(Causes._fields)}, and TABLE.keys and TABLE.grads")
        elif f"{name}.keys" not in arrays or f"{name}.grads" not in arrays:
            raise BadMessage(f"table {name!r}: keys and grads come together")
        else:
            tables[name] = (arrays[f"{name}.keys"], arrays[f"{name}.grads"])
    return tables


def _range(value: Any) -> tuple[int, int]:
    numbers = isinstance(value, list) and len(value) == 2 and all(isinstance(one, int) for one in value)
    if not numbers or not 0 <= value[0] < value[1] <= SLOTS:
        raise BadMessage(f"slots is {str(value)[:60]}, expected the first and the one after the last, of {SLOTS}")
    return value[0], value[1]


def _cursor(header: Header) -> int:
    cursor = header.get("cursor", 0)
    if not isinstance(cursor, int) or cursor < 0:
        raise BadMessage(f"cursor {cursor!r}: begin with 0 and go on with the cursor that was answered, until -1")
    return cursor


def _names(header: Header) -> list[str]:
    """`tables`. Raises BadMessage."""
    tables = header.get("tables")
    if not isinstance(tables, list) or not tables or not all(isinstance(one, str) for one in tables) or len(set(tables)) != len(tables):
        raise BadMessage(f"tables is {str(tables)[:100]}, expected a list of distinct names")
    return tables


def _text(header: Header, name: str) -> str:
    value = header.get(name)
    if not isinstance(value, str):
        raise BadMessage(f"header {name!r} is {value!r}, expected a string")
    return value
