"""Name -> bench: the table that `headrace bench` reads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A bench: a module of headrace.bench with `measure(quick) -> list[Row]`, what it measures, and what must be installed for it.

    `stack`: it starts a stack of its own.
    `data`: it measures on real data, and its `measure(quick, data)` takes the folder of --data, None without.
    """

    module: str
    what: str
    needs: str = "headrace[serve]"
    data: bool = False
    stack: bool = False


CATALOG: dict[str, Entry] = {
    "freshness": Entry("freshness", "ms from a click to its gradient, serving row, vector and recommendation, at 5,000 interactions/s",
                       "headrace[local]", stack=True),
    "pipeline": Entry("pipeline", "interactions/s through the jobs, each beside the same job with a function that does nothing",
                      "headrace[local]", stack=True),
    "ps.table": Entry("ps_table", "lookups and updates of a shard's table, of the random cache lines that a core reads"),
    "replay.encode": Entry("replay_encode", "interactions made from rows and encoded, into a null sink"),
    "poison": Entry("poison", "featurize with 1 % poison against none, dead letters to a real broker", "headrace[local]"),
    "rpc": Entry("rpc_loopback", "calls over the Flight shell on loopback"),
    "train.quality": Entry("train_quality", "AUC and log-loss of one pass over real logs, of Vowpal Wabbit on the same samples",
                           "headrace[serve,bench]", data=True),
    "world": Entry("world", "regret in simulated worlds with known click probabilities: ours, popularity, a daily copy; and after a shock"),
}
