"""The folders of S shards as those of T: slots move, nothing else changes.

Every push goes to every shard, so shards that have drained (the trainer stopped, each push answered by all) hold equal rings, and any shard
may take any slot: with the rows go their optimizer's slots, their times, what is not published yet, and who waits to be let in. The new
shards go on at the highest sequence under a higher epoch, so that replicas take what they publish. Replicas serve meanwhile.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import numpy as np

from headrace.ps import kernels, snapshot
from headrace.ps.admission import State
from headrace.ps.index import kernel_input
from headrace.ps.lineage import made_by_a_person, owner_folder
from headrace.ps.recovery import Store, write_specs
from headrace.ps.shard import shard_of
from headrace.ps.snapshot import Cut, TableCut
from headrace.ps.spec import ModelSpec
from headrace.ps.stored import Stored
from headrace.ps.table import SLOTS
from headrace.rpc.causes import RingKey

_ALL = np.arange(SLOTS)


class ReshardError(Exception):
    """These folders cannot be made into others: the message says why and what to do first. Nothing was changed."""


class Moved(NamedTuple):
    """Rows of each new shard, and the sequence and epoch that all go on at."""

    rows: list[int]
    sequence: int
    epoch: int


def reshard(folder: Path, target: Path, shards: int, rows_max: int, ring_length: int, now_ms: Callable[[], int]) -> Moved:
    """Write the shards in `folder` (0/, 1/, ...) as `shards` shards to `target`, which must not exist. `folder` stays as it is.

    Takes the memory of all rows twice. Raises ReshardError, BlockingIOError while a shard runs, and what ps/recovery.py raises.
    """
    if not 1 <= shards <= SLOTS:
        raise ReshardError(f"{shards} shards: there are {SLOTS} slots, so 1 to {SLOTS} shards")
    if target.exists():
        raise ReshardError(f"{target} exists: remove it, or choose another")
    specs, count = _described(folder)
    with ExitStack() as opened:
        stores = [opened.enter_context(closing(Store(owner_folder(folder, i), specs, i, count, rows_max, ring_length, now_ms)))
                  for i in range(count)]
        cuts = [store.shard.cut() for store in stores]
    _drained(cuts)
    made = [_of_slots(cuts, _ALL[shard_of(_ALL, shards) == i]) for i in range(shards)]
    try:
        for i, cut in enumerate(made):
            place = target / str(i)
            snapshot.write(place / "snapshots", cut)
            (place / "log").mkdir()
            write_specs(place, specs, i, shards)
            made_by_a_person(place)
        _sync(target)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    rows = [sum(len(table.stored.keys) for table in cut.tables.values()) for cut in made]
    return Moved(rows, made[0].sequence, made[0].epoch)


def _described(folder: Path) -> tuple[list[ModelSpec], int]:
    """What spec.json of each shard says, which must be one thing."""
    first = folder / "0" / "spec.json"
    if not first.exists():
        raise ReshardError(f"no shard 0 in {folder}: is it the folder of the parameter server, and has it ever run?")
    count = int(json.loads(first.read_text())["shards"])
    bodies = []
    for i in range(count):
        path = folder / str(i) / "spec.json"
        if not path.exists():
            raise ReshardError(f"shard {i} of {count} is missing in {folder}: restore it from a copy")
        bodies.append(json.loads(path.read_text()))
    for i, body in enumerate(bodies):
        if (body["index"], body["shards"], body["models"]) != (i, count, bodies[0]["models"]):
            raise ReshardError(f"{folder / str(i)} is of shard {body['index']} of {body['shards']}, or of other models than shard 0: start"
                               " all shards once under one configuration")
    return [ModelSpec.from_json(spec) for spec in bodies[0]["models"]], count


def _drained(cuts: Sequence[Cut]) -> None:
    """Raises ReshardError unless all have applied the same causes."""
    held = [{(key, page): data for key, page, data in cut.rings if any(data)} for cut in cuts]
    for i, pages in enumerate(held):
        differ = {key.scope for key, page in pages.keys() ^ held[0].keys()}
        differ |= {at[0].scope for at in pages.keys() & held[0].keys() if pages[at] != held[0][at]}
        if differ or cuts[i].firsts != cuts[0].firsts:
            causes = sum(map(_bits, pages.values())) - sum(map(_bits, held[0].values()))
            scopes = ", ".join(sorted(differ)) or "all"
            raise ReshardError(f"shard {i} has not applied the causes that shard 0 has ({causes:+,} of {scopes}):"
                               " let the training job end its pushes (`headrace jobs stop train`), or `headrace backfill train`")


def _bits(page: bytes) -> int:
    return int(np.unpackbits(np.frombuffer(page, np.uint8)).sum())


def _of_slots(cuts: Sequence[Cut], slots: np.ndarray) -> Cut:
    """A cut of the slots int64[s], wherever they were."""
    tables = {at: TableCut(table.version, table.layout, _stored([cut.tables[at].stored for cut in cuts], slots, len(cuts)))
              for at, table in cuts[0].tables.items()}
    clocks = {model: max(cut.clocks.get(model, 0) for cut in cuts) for model in {model for cut in cuts for model in cut.clocks}}
    rings: list[tuple[RingKey, int, bytes]] = cuts[0].rings
    return Cut(max(cut.sequence for cut in cuts), max(cut.epoch for cut in cuts) + 1, tables, rings, cuts[0].firsts, clocks)


def _stored(parts: Sequence[Stored], slots: np.ndarray, shards: int) -> Stored:
    """Of the same table on each shard, what belongs to `slots`."""
    chosen = [np.isin(kernels.slots_of(kernel_input(part.keys)), slots) for part in parts]
    changed, before = [], 0
    for part, mine in zip(parts, chosen, strict=True):
        place = np.cumsum(mine) - 1 + before
        changed.append(place[part.changed[mine[part.changed]]])
        before += int(mine.sum())
    timed = all(len(part.touched) == len(part.keys) for part in parts)
    gone = np.concatenate([part.gone for part in parts])
    owner = shard_of(_ALL, shards)
    return Stored(
        keys=np.concatenate([part.keys[mine] for part, mine in zip(parts, chosen, strict=True)]),
        rows=np.concatenate([part.rows[mine] for part, mine in zip(parts, chosen, strict=True)]),
        touched=np.concatenate([part.touched[mine] for part, mine in zip(parts, chosen, strict=True)]) if timed else np.zeros(0, np.uint32),
        changed=np.concatenate(changed),
        gone=gone[np.isin(kernels.slots_of(kernel_input(gone)), slots)],
        published=np.array([parts[owner[slot]].published[slot] for slot in _ALL], np.int64),
        admission=_waiting([part.admission for part in parts], slots, owner))


def _waiting(states: Sequence[State], slots: np.ndarray, owner: np.ndarray) -> State:
    """Of an exact counter the keys of `slots`; of a filter the counters of `slots`, and none of others."""
    if not states[0]:
        return {}
    if "keys" in states[0]:
        keys = np.concatenate([state["keys"] for state in states])
        mine = np.isin(kernels.slots_of(kernel_input(keys)), slots)
        return {"keys": keys[mine], "counts": np.concatenate([state["counts"] for state in states])[mine]}
    made = {name: np.zeros_like(array) for name, array in states[0].items()}
    for slot in slots.tolist():
        for name, array in made.items():
            array.reshape(SLOTS, -1)[slot] = states[owner[slot]][name].reshape(SLOTS, -1)[slot]
    return made


def _sync(folder: Path) -> None:
    for path in (folder, folder.parent):
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
