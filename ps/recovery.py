"""A shard's folder: opened by one process, recovered as snapshot + log, and snapshotted.

FOLDER/lock, spec.json (the specs that the log was written under), snapshots/ and log/.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from headrace.ps import log as shard_log
from headrace.ps import snapshot
from headrace.ps.cutting import Cutting
from headrace.ps.log import Log
from headrace.ps.shard import Shard
from headrace.ps.snapshot import Cut, SnapshotError
from headrace.ps.spec import ModelSpec, SpecError, TableSpec
from headrace.rpc.errors import Unavailable

logger = logging.getLogger(__name__)
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK)  # of a file system without hard links
DELTA_SHARE = 0.5  # of a table's rows: what came since a full snapshot is no more than that, or a full one follows


class Store:
    """The folder of shard `index` of `shards`; `shard` is what it held, and pushes to it are logged here.

    `now_ms` gives the epoch: one that grows at every opening, so that what the shard publishes after a loss supersedes what it published
    before. Raises BlockingIOError when another process holds the folder, SpecError when a table's layout changed without a new version,
    LogError and SnapshotError when what is there cannot be trusted. `log_bytes_max`: of the log, beyond which `keep_log_short` has a
    snapshot made; 0 is none. `deltas`: after a full snapshot so many hold only what came since it, where others call the shard (`turn`).
    """

    def __init__(self, folder: Path, specs: list[ModelSpec], index: int, shards: int, rows_max: int, ring_length: int,
                 now_ms: Callable[[], int], log_bytes_max: int = 0, deltas: int = 0) -> None:
        self.folder = folder
        self._deltas, self._deltas_left, self._full = deltas, 0, 0  # _full: sequence since whose cut the tables note what came
        self.turn: Callable[[Callable[[], Any]], Any] | None = None  # the owner's `call`, where others call the shard too
        self.log_bytes_max, self._log_bytes = log_bytes_max, 0
        self._writing: threading.Thread | None = None
        for part in (folder, folder / "snapshots", folder / "log"):
            part.mkdir(parents=True, exist_ok=True)
        self._lock = open(folder / "lock", "w")  # noqa: SIM115 (held as long as the store)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.shard = self._recover(specs, index, shards, rows_max, ring_length, now_ms)
        except BaseException:
            self._lock.close()
            raise

    def _recover(self, specs: list[ModelSpec], index: int, shards: int, rows_max: int, ring_length: int,
                 now_ms: Callable[[], int]) -> Shard:
        before = self._specs_before(index, shards)
        then = {spec.model: spec for spec in before}
        _same_layout(then, specs)
        replayed = [then[s.model] if s.model in then and then[s.model].version == s.version else s for s in specs]
        shard = Shard(replayed, index, shards, rows_max, ring_length)
        cut = snapshot.read_newest(self.folder / "snapshots")
        if cut is not None:
            _restore(shard, cut)
        elif any((self.folder / "snapshots").glob("*.broken")) and not shard_log.reaches_back(self.folder / "log"):
            raise SnapshotError(f"no snapshot in {self.folder} holds together, and its log does not reach back to the beginning")
        for record in shard_log.read(self.folder / "log", shard.sequence):
            shard.replay(record)
        shard.epoch = max(shard.epoch + 1, now_ms())
        shard.log = Log(self.folder / "log", shard.sequence + 1)
        self.shard = shard
        if before != specs:
            if shard.sequence:
                self.snapshot()  # what was logged under the specs before is never replayed under these
            for spec in specs:
                shard.specs[spec.model] = spec
                for table in spec.tables:
                    _respec(shard, spec, table, rows_max)
            write_specs(self.folder, specs, index, shards)
        return shard

    def _specs_before(self, index: int, shards: int) -> list[ModelSpec]:
        path = self.folder / "spec.json"
        if not path.exists():
            return []
        body = json.loads(path.read_text())
        if (body["index"], body["shards"]) != (index, shards):
            raise SpecError(f"{self.folder} is shard {body['index']} of {body['shards']}, not {index} of {shards}: make them with"
                            f" `headrace ps reshard --shards {shards}`, or keep the number of addresses")
        return [ModelSpec.from_json(spec) for spec in body["models"]]

    def snapshot(self) -> Path:
        """Write a snapshot now and drop the log before the one it follows; its folder. Raises OSError and leaves all as it was. Not for a
        shard that others call (`turn`): they would all wait."""
        assert self.turn is None, "snapshot_aside, then written"
        self._wait()
        return self._write(self._cut())

    def snapshot_aside(self) -> None:
        """Begin a cut now and write it on a thread, unless one is being written or nothing has changed. With `turn` its rows are copied
        between pushes (ps/cutting.py), else at once."""
        held = snapshot.folders(self.folder / "snapshots")
        if (self._writing is not None and self._writing.is_alive()) or (held and held[-1][0] == self.shard.sequence):
            return
        if self.turn is None:
            work: Callable[[], object] = partial(self._write_logged, self._cut())
        else:
            assert self.shard.log is not None
            self.shard.log.rotate(self.shard.sequence + 1)
            base = self._full if self._deltas_left > 0 else 0
            if not base:
                self._full = 0  # until this one is written
            work = partial(self._copy_and_write, Cutting(self.shard, base, self._deltas > 0), self.turn)
        self._writing = threading.Thread(target=work, name="snapshot", daemon=True)
        self._writing.start()

    def written(self, sequence: int) -> Path:
        """Wait for a snapshot of `sequence` or later, begun if need be; its folder. Not in the shard's turn. Raises Unavailable when it
        cannot be written."""
        assert self.turn is not None, "for a shard that others call"
        for _ in range(2):  # the first may wait for one that was begun before
            if self.snapshotted < sequence:
                self.turn(self.snapshot_aside)
                self._wait()
        held = snapshot.folders(self.folder / "snapshots")
        sequence_held, path = held[-1] if held else (0, self.folder / "snapshots")  # of nothing there is none
        if sequence_held < sequence:
            raise Unavailable(f"the snapshot could not be written, the log is kept: the log of shard {self.shard.index} says why")
        return path

    def _copy_and_write(self, cutting: Cutting, turn: Callable[[Callable[[], Any]], Any]) -> None:
        try:
            while turn(cutting.step):
                pass
            cut = cutting.cut()
            self._full, self._deltas_left = self._next(cut, self._write_logged(cut))
        except Unavailable:  # the shard has stopped: its log suffices
            return
        except Exception:  # no memory, say: nothing may be put away for ever, and the next try is the timer's
            logger.exception("the cut at sequence %d could not be taken; the log is kept", cutting.sequence)
            self._full = self._deltas_left = 0
            turn(cutting.end)

    def _next(self, cut: Cut, written: bool) -> tuple[int, int]:
        """The full snapshot since which the tables note what came, and how many that hold only that may follow; (0, 0): a full one."""
        if not written:
            return 0, 0
        if not cut.base:
            return (cut.sequence, self._deltas) if self._deltas else (0, 0)
        said = snapshot.sealed(self.folder / "snapshots" / f"{cut.sequence:020d}")["tables"]
        most = max((table["delta"] / max(table["rows"], 1) for table in said), default=0.0)
        return (cut.base, self._deltas_left - 1) if most < DELTA_SHARE else (0, 0)

    def keep_log_short(self) -> None:
        """For a timer: begin a snapshot when the log has outgrown its bytes, and note by how much, for `pace_s`."""
        if self.log_bytes_max and self.shard.log is not None:
            self._log_bytes = self.shard.log.size_bytes
            if self._log_bytes > self.log_bytes_max:
                self.snapshot_aside()

    def pace_s(self) -> float:
        """How long a push waits before it is answered, so that a snapshot catches up with a log that is too long: nothing up to
        log_bytes_max, a second from twice that on."""
        beyond = self._log_bytes / self.log_bytes_max - 1 if self.log_bytes_max else 0.0
        return min(max(beyond, 0.0), 1.0)

    def _cut(self) -> Cut:
        assert self.shard.log is not None
        self.shard.log.rotate(self.shard.sequence + 1)
        return self.shard.cut()

    def _write(self, cut: Cut) -> Path:
        path = snapshot.write(self.folder / "snapshots", cut)
        held = snapshot.folders(self.folder / "snapshots")
        if len(held) > 1:
            assert self.shard.log is not None
            self.shard.log.prune(held[0][0])
        return path

    def _write_logged(self, cut: Cut) -> bool:
        try:
            self._write(cut)
        except (OSError, ValueError) as error:
            unlinked = cut.base > 0 and isinstance(error, OSError) and error.errno in NO_LINKS
            if unlinked:  # none is tried again before the next start
                self._deltas = 0
            logger.exception("the snapshot at sequence %d could not be written; the log is kept%s", cut.sequence,
                             f", and the next are full: {error}" if unlinked else "")
            return False
        return True

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.join()

    @property
    def snapshotted(self) -> int:
        """Sequence of the newest snapshot, 0 before the first."""
        return max((sequence for sequence, _ in snapshot.folders(self.folder / "snapshots")), default=0)

    def snapshot_age_s(self) -> float:
        """Seconds since the newest snapshot was finished, -1 before the first."""
        for _, path in reversed(snapshot.folders(self.folder / "snapshots")):
            try:
                return max(0.0, time.time() - path.stat().st_mtime)
            except FileNotFoundError:  # a newer one has just taken its place
                continue
        return -1.0

    def close(self) -> None:
        """Close the folder; the log suffices to open it again."""
        self._wait()
        if self.shard.log is not None:
            self.shard.log.close()
        self._lock.close()


def write_specs(folder: Path, specs: list[ModelSpec], index: int, shards: int) -> None:
    """spec.json of a shard's folder: which shard of how many, and what it holds."""
    path = folder / "spec.json"
    work = path.with_suffix(".writing")
    work.write_text(json.dumps({"index": index, "shards": shards, "models": [spec.to_dict() for spec in specs]}))
    with open(work) as file:
        os.fsync(file.fileno())
    work.rename(path)


def _restore(shard: Shard, cut: Cut) -> None:
    shard.sequence, shard.epoch = cut.sequence, cut.epoch
    shard.clocks |= {model: at_s for model, at_s in cut.clocks.items() if model in shard.specs}
    for (model, name), held in cut.tables.items():
        spec = shard.specs.get(model)
        if spec is None or spec.version != held.version:
            logger.warning("table %s of %s@%d in the snapshot belongs to no model served now: left out", name, model, held.version)
            continue
        table = shard.tables[model, name]
        assert list(table.spec.layout()) == held.layout, "spec.json and snapshot are of one version"
        try:
            table.restore(held.stored, cut.clocks.get(model, 0))
        except ValueError as error:
            raise SnapshotError(f"{model}/{name}: {error}") from None
    scopes = {spec.scope for spec in shard.specs.values()}
    for key, page, data in cut.rings:
        if key.scope in scopes:
            shard.rings.restore(key, page, data)
    for key, page, dropped in cut.firsts:
        if key.scope in scopes:
            shard.rings.restore_first(key, page, dropped)


def _respec(shard: Shard, spec: ModelSpec, table: TableSpec, rows_max: int) -> None:
    held = shard.tables[spec.model, table.name]
    if held.spec != table:
        try:
            shard.tables[spec.model, table.name] = held.respecced(table, rows_max, shard.clocks.get(spec.model, 0))
        except ValueError as error:
            raise SpecError(f"{spec.model}/{table.name} cannot be held as it is specified now: {error}") from None


def _same_layout(then: dict[str, ModelSpec], specs: list[ModelSpec]) -> None:
    for spec in specs:
        held = then.get(spec.model)
        if held is not None and held.version == spec.version:
            before, after = [t.layout() for t in held.tables], [t.layout() for t in spec.tables]
            if sorted(before) != sorted(after):
                raise SpecError(f"the tables of {spec.scope} were {before} and are now {after}: give the model a new version")
