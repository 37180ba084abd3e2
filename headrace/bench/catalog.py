"""Name -> bench: the table that `headrace bench` reads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A bench: a module of headrace.bench with `measure(quick) -> list[Row]`, what it measures, and what must be installed for it.

    `stack`: it starts a stack of its own.
    `peer`: a program that it measures beside, which pip does not bring.
    `data`: it measures on real data, and its `measure(quick, data)` takes the folder of --data, None without.
    """

    module: str
    what: str
    needs: str = "headrace[serve]"
    data: bool = False
    stack: bool = False
    peer: str = ""


CATALOG: dict[str, Entry] = {
    "freshness": Entry("freshness", "ms from a click to its gradient, serving row, vector and recommendation, at 5,000 interactions/s",
                       "headrace[local]", stack=True),
    "pipeline": Entry("pipeline", "interactions/s through the jobs, each beside the same job with a function that does nothing",
                      "headrace[local]", stack=True),
    "ps.table": Entry("ps_table", "lookups and updates of a shard's table, of the random cache lines that a core reads"),
    "ps.rpc": Entry("ps_rpc", "pulls and pushes through one client and one shard process, of Redis's MGET and MSET over a unix socket",
                    peer="redis-server"),
    "ps.recovery": Entry("ps_recovery", "a killed shard of 10 M rows until it answers, and pushes beside snapshots, expiry and growth"),
    "ps.scale": Entry("ps_scale", "100 M rows in two shard processes: bytes a row, rows/s, snapshot, recovery; and the hashing trick"),
    "ps.sync": Entry("ps_sync", "ms from a gradient's acknowledgement to a replica's row, at the highest push rates; and the broker away",
                     "headrace[local]", stack=True),
    "ps.downgrade": Entry("ps_downgrade", "labels turned, a feature stuck, a slow drift: hours until the guard sees it and a good version"
                                          " serves, and false trips"),
    "features": Entry("features", "events/s folded into 12 features, of Redis over a unix socket; 500 rows read beside 20,000 updates/s",
                      peer="redis-server"),
    "samples": Entry("samples", "impressions/s through features and join with 12 features and a window of 30 min, of the same SQL alone;"
                     " bytes of state an open exposure", "headrace[local]", stack=True),
    "replay.encode": Entry("replay_encode", "interactions made from rows and encoded, into a null sink"),
    "ingest": Entry("ingest", "records/s of a topic of JSON into interactions, and ms that a record takes", "headrace[local]", stack=True),
    "ingest.rows": Entry("ingest_rows", "records of a JSON topic made into interactions by a mapping, of parsing and encoding alone"),
    "poison": Entry("poison", "featurize with 1 % poison against none, dead letters to a real broker", "headrace[local]"),
    "rpc": Entry("rpc_loopback", "calls over the Flight shell on loopback"),
    "strategies": Entry("strategies", "log-loss and calibration of wait, eager and fast under delays of hours, of an oracle that knows each"
                        " label at once"),
    "train.quality": Entry("train_quality", "AUC and log-loss of one pass over real logs, of Vowpal Wabbit on the same samples",
                           "headrace[serve,bench]", data=True),
    "world": Entry("world", "regret in simulated worlds with known click probabilities: ours, popularity, a daily copy; and after a shock"),
}
