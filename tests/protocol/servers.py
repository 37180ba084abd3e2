"""The two owners of state as processes that die: the product's own shards and verbs, over folders that outlive them."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from headrace.features.service import FeatureService
from headrace.features.shard import FeatureShard
from headrace.features.store import FeatureStore
from headrace.models.spec import model_spec
from headrace.ps import log as shard_log
from headrace.ps.recovery import Store
from headrace.ps.service import shard_verbs
from headrace.ps.spec import ModelSpec
from headrace.rpc.message import decode, encode
from headrace.rpc.server import Verb
from tests.protocol.memory import MemoryStore
from tests.protocol.network import Died
from tests.protocol.wrong import Wrong

if TYPE_CHECKING:
    from tests.protocol.world import World

MODELS = ("fm", "lr")
HALF_LIFE_S = 3600.0
FACTORS, ROWS_MAX = 2, 8192


class Server:
    """Answers one message at a time. `kill` drops all that is in memory; the next message opens it again."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.verbs: Mapping[str, Verb] | None = None

    def answer(self, verb: str, message: bytes) -> bytes:
        """The answer's bytes. Raises the verb's error, and Died."""
        if self.verbs is None:
            self.open()
        assert self.verbs is not None
        try:
            answer = encode(*self.verbs[verb](*decode(pa.py_buffer(message))))
            if self.world.strike():
                self.world.say("%s dies after the work, before its answer to %s", self.name, verb)
                raise Died
        except Died:
            self.kill()
            raise
        return answer

    def kill(self) -> None:
        """kill -9."""
        if self.verbs is not None:
            self.world.counts["server kills"] += 1
            self.close()

    def open(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class FeatureServer(Server):
    """The feature shard over RocksDB, or over memory."""

    def __init__(self, world: World, folder: Path, ring_length: int, rocks: bool) -> None:
        super().__init__(world, "features")
        self.folder, self.ring_length, self.rocks = folder, ring_length, rocks
        self.memory = MemoryStore()
        self.store: Any = None
        self.shard: FeatureShard

    def open(self) -> None:
        self.store = FeatureStore(self.folder) if self.rocks else self.memory
        self.shard = self.world.ailment.feature_shard(self.store, half_life_s=HALF_LIFE_S, ring_length=self.ring_length)
        self.world.ailment.opened_features(self.shard)
        self.verbs = FeatureService(self.shard).verbs()
        self._struck(self.store, "write", "a batch is written")
        self._struck(self.store.log, "append", "a block is in their log")

    def _struck(self, whose: Any, name: str, what: str) -> None:
        real = getattr(whose, name)

        def struck(*given: Any) -> Any:
            if self.world.strike():
                self.world.say("features die before %s", what)
                raise Died
            answer = real(*given)
            if self.world.strike():
                self.world.say("features die after %s", what)
                raise Died
            return answer

        setattr(whose, name, struck)

    def close(self) -> None:
        del self.store.write, self.store.log.append
        self.store.close()
        self.verbs = None


class StruckLog:
    """A shard's log, whose process may die before, in the middle of and after an append."""

    def __init__(self, log: Any, server: ParameterServer) -> None:
        self._log, self._server = log, server

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def append(self, sequence: int, header: Any, arrays: Any) -> None:
        world, server = self._server.world, self._server
        if world.strike():
            server.expect(sequence - 1, server.digest())
            if world.chance.random() < 0.5:
                world.say("%s dies before the append of %d", server.name, sequence)
            else:
                raw = b"".join(shard_log.encode(sequence, header, arrays))
                os.write(self._log._fd, raw[: world.chance.randrange(1, len(raw))])
                world.counts["torn tails"] += 1
                world.say("%s dies in the middle of the append of %d", server.name, sequence)
            raise Died
        self._log.append(sequence, header, arrays)
        if world.strike():
            server.expect(sequence, "")
            world.say("%s dies after the append of %d, before it is applied", server.name, sequence)
            raise Died


class ParameterServer(Server):
    """A shard over its folder. Where it died, it must come back: same sequence, same bytes."""

    def __init__(self, world: World, folder: Path, index: int, shards: int, ring_length: int) -> None:
        super().__init__(world, f"ps-{index}")
        self.folder, self.index, self.shards, self.ring_length, self.version = folder, index, shards, ring_length, 1
        self.copy = folder.with_suffix(".copy")
        self._expected: tuple[int, str] | None = None
        self._clock = itertools.count(1)

    @property
    def specs(self) -> list[ModelSpec]:
        return [ModelSpec.from_json(model_spec(name, self.version, FACTORS, "adagrad", 0.05, 0.01)) for name in MODELS]

    def digest(self) -> str:
        return self.store.shard.digest()

    def expect(self, sequence: int, digest: str) -> None:
        """What recovery must bring back; a digest of "" for any."""
        self._expected = sequence, digest

    def forget(self) -> None:
        """It may come back as another one."""
        self._expected = None

    def open(self) -> None:
        self.store = Store(self.folder, self.specs, self.index, self.shards, ROWS_MAX, self.ring_length, self._clock.__next__)
        shard = self.store.shard
        if self._expected is not None and self.world.ailment.recovers:
            sequence, digest = self._expected
            Wrong.unless(shard.sequence == sequence, f"{self.name} came back at {shard.sequence}, it died at {sequence}")
            Wrong.unless(digest in ("", shard.digest()), f"{self.name} came back with other bytes")
        self._expected = None
        shard.log = StruckLog(shard.log, self)  # type: ignore[assignment]
        self.world.ailment.opened(shard)
        self.verbs = shard_verbs(self.store)

    def close(self) -> None:
        counts = self.store.shard.counts
        self.world.counts.update({"duplicate pushes": counts["duplicates"], "recuts": counts["recuts"]})
        if self._expected is None:
            self.expect(self.store.shard.sequence, self.digest())
        self.store.close()
        self.verbs = None

    def snapshot(self) -> None:
        """Write a snapshot, or die at one of its syncs."""
        try:
            if self.verbs is None:
                self.open()
            self.store.snapshot()
            self.world.counts["snapshots"] += 1
        except Died:
            self.world.say("%s dies in the middle of a snapshot", self.name)
            self.world.counts["torn snapshots"] += 1
            self.kill()

    def back_up(self) -> None:
        """Copy the folder."""
        shutil.rmtree(self.copy, ignore_errors=True)
        shutil.copytree(self.folder, self.copy)

    def put_back(self) -> None:
        """Lose the folder, and take the copy."""
        self.kill()
        shutil.rmtree(self.folder)
        self.copy.rename(self.folder)
        self.forget()
