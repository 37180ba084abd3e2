"""A replica of a feature shard for readers: a copy of its rows, then its blocks as they come, so that no reader waits for a fold.

What a block did is done again word by word (row_memory.py), not folded again: a replica costs a tenth of its shard, and says at sequence n
what the shard said at n. The copy is fuzzy: rows are read while the shard goes on, blocks from before the first row on are kept, and done
over the rows once all are there (changes say what words are). The replica has a store and a log of its own: killed, it goes on from there.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headrace.features.block_log import Record
from headrace.features.feature_set import FeatureSet
from headrace.features.row_memory import BLOCK_KEY
from headrace.features.shard import FeatureShard
from headrace.features.store import FeatureStore, counts_bytes
from headrace.features.tail import records_of
from headrace.rpc.causes import Causes
from headrace.rpc.errors import Refused
from headrace.rpc.message import Arrays, Header

log = logging.getLogger(__name__)
NOTE = b"copied"  # of which store, as of which of its starts, once the copy is whole
Call = Callable[[str, Header, Arrays], tuple[Header, Arrays]]


class Replica(FeatureShard):
    """A shard that only follows. What it says of causes, names and popular items is not kept up: the shard is asked for them."""

    def freeze_and_fold(self, causes: Causes, events: Arrays, between: Callable[[], None] = lambda: None, block: int = 0) -> Any:
        raise Refused("a replica of features folds nothing: send events to the shard (features.address)")

    def erase(self, of: str, key: int) -> dict[str, int]:
        raise Refused("a replica of features erases nothing: what the shard erases, it forgets (features.address)")

    def sweep(self, count: int) -> int:
        return 0  # the shard does, and it follows

    def follow(self, records: Sequence[Record]) -> None:
        """Do blocks again, from the next one on. Raises Unavailable when the store cannot write: those done before stay done, the others
        are to be asked for again."""
        if self.failed:
            self.recover()
        for record in records:
            places: dict[str, np.ndarray] = {}
            self._written(lambda record=record, places=places: places.update(self._memory.follow(record)))  # type: ignore[misc]
            for _, family, key, value in record.writes.all:
                if (family, key) == ("meta", b"counts"):
                    self.counts = json.loads(value)
            self._popular(places.get("items", np.zeros(0, np.int64)))
            self._written(self._memory.settle)

    def _popular(self, items: np.ndarray) -> None:
        keys, rows = self._items.keys[items], self._rows[1][items]
        there = rows["version"] != 0
        self.popular.fold(keys[there], rows[there])
        self.popular.forget(*keys[~there].tolist())


class Follower:
    """Keeps a replica in `folder`. `call(verb, header, arrays)` asks the shard (Followed.verbs); `open_replica` makes one of a store. While
    there is none, or after the shard was begun anew, `replica` is None until its rows are copied."""

    def __init__(self, folder: Path, call: Call, feature_set: FeatureSet, open_replica: Callable[[FeatureStore], Replica]) -> None:
        self._folder, self._call, self._set, self._open = folder, call, feature_set, open_replica
        self.replica: Replica | None = None
        self.name, self.start, self.behind = "", 0, 0
        self.masked: list[str] = []
        if (folder / "CURRENT").exists():
            store = FeatureStore(folder)
            held = json.loads(store.note(NOTE) or b"{}")
            if held:
                self.name, self.start = held["name"], held["start"]
                self.replica = open_replica(store)
            else:
                store.close()

    def poll(self) -> list[Record] | None:
        """The blocks that come next, none when there are none; None when the replica has to be copied anew. Raises what `call` raises."""
        assert self.replica is not None
        number = self.replica.memory.number
        said, arrays = self._call("blocks", self._asked(number), {})
        if said["anew"]:
            return None
        if said["start"] != self.start:
            self._noted(self.replica.store, said["name"], said["start"])
        self.behind, self.masked = said["next"] - number, said["masked"]
        return list(records_of(arrays["data"].tobytes()))

    def copy(self, stopped: Callable[[], bool] = lambda: False) -> bool:
        """Copy all rows, and open the replica; False when it was `stopped`. What was there is deleted; the replica must be closed.
        Raises what `call` raises; then it is to be called again."""
        self.replica = None
        if self._folder.exists():
            shutil.rmtree(self._folder)  # rows of before beside new ones would be neither
        began, _ = self._call("copy", {"feature_set": self._set.name}, {})
        self.name, self.start = began["name"], began["start"]
        log.info("the rows of shard %s are copied, from block %d on", self.name, began["next"])
        store = FeatureStore(self._folder)
        try:
            for name in [name for name in began["families"] if name.startswith("group ")]:
                store.add_family(name)
            batch = store.batch()
            for name, note in began["notes"].items():
                batch.put("meta", name.encode(), note.encode())
            batch.put("meta", b"counts", counts_bytes(began["counts"]))
            batch.put("meta", BLOCK_KEY, (began["next"] - 1).to_bytes(8, "big"))
            store.write(batch)
            at = began["next"]
            for _ in self._rows(store, began):
                at = self._take(store, at)
                if stopped() or at < 0:
                    return False
            self._noted(store, self.name, self.start)
        finally:
            store.close()
        self.replica = self._open(FeatureStore(self._folder))
        log.info("copied: sequence %d, block %d", self.replica.sequence, self.replica.memory.number)
        return True

    def _rows(self, store: FeatureStore, began: Header) -> Iterator[None]:
        """Steps: until the shard's store has all from before, then all of its rows into ours; and one to the end."""
        while self._call("copy", {"feature_set": self._set.name}, {})[0]["first"] < began["next"]:
            yield
        for family in began["families"]:
            since: str | None = ""
            while since is not None:
                said, arrays = self._call("rows", {"feature_set": self._set.name, "family": family, "since": since}, {})
                batch, ends = store.batch(), np.cumsum(arrays["sizes"]).tolist()
                keys, rows, begin = arrays["keys"].tobytes(), arrays["rows"].tobytes(), 0
                for place, end in enumerate(ends):
                    batch.put(family, keys[8 * place : 8 * place + 8], rows[begin:end])
                    begin = end
                store.write(batch)
                since = said["next"] or None
                yield
        yield

    def _take(self, store: FeatureStore, at: int) -> int:
        """Blocks from `at` on into the log, as long as there are; the one that comes next, -1 when it is to begin anew."""
        while True:
            said, arrays = self._call("blocks", self._asked(at), {})
            if said["anew"]:
                return -1
            self.masked = said["masked"]
            for record in records_of(arrays["data"].tobytes()):
                store.log.append(record.number, record.words, record.writes)
                at = record.number + 1
            if at >= said["next"]:
                return at

    def _asked(self, number: int) -> Header:
        return {"feature_set": self._set.name, "name": self.name, "start": self.start, "next": number}

    def _noted(self, store: FeatureStore, name: str, start: int) -> None:
        self.name, self.start = name, start
        store.put_note(NOTE, json.dumps({"name": name, "start": start}).encode())
