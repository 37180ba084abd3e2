"""A user or an item taken out of a lake: from its files, and from what its writer has read and not committed yet.

removals/00000001.json says who, by the sha256 of the id, and up to which causes: a sample of theirs whose exposure lay in `interactions`
before the erasure is never written again, however late it comes; exposures after it are somebody's new ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.lake import files, manifest
from headrace.lake.errors import LakeAbsent, LakeOvertaken
from headrace.lake.manifest import File
from headrace.lake.rewriting import ABSENT, New, Rewritten, rewrite
from headrace.lake.store import TEMPORARY, Store

FOLDER = "removals"


class Removal(msgspec.Struct, frozen=True):
    """`of`: user or item; `hash`: sha256 of "user_id=ID" or "item_id=ID". A sample is before it when its cause's offset is below
    `stops[partition]` of `source`, or it is of another source that the lake knew by then."""

    of: str
    hash: str
    at_ms: int
    source: int
    stops: dict[int, int]
    older: list[int]


def hash_of(of: str, name: str) -> str:
    """What an erasure calls somebody: who guesses the id can check it, nobody can read it."""
    return hashlib.sha256(f"{of}_id={name}".encode()).hexdigest()


def load(store: Store) -> list[Removal]:
    return [msgspec.json.decode(store.get(name), type=Removal) for name in store.names(FOLDER) if not name.endswith(TEMPORARY)]


def erase(store: Store, of: str, name: str, at_ms: int, source: int, stops: dict[int, int]) -> Rewritten:
    """Take out the samples of somebody whose causes lie before `stops` of `source`; killed anywhere, it may be called again.

    Raises LakeAbsent, LakeDamaged, LakeHeld, OSError, LakeAway.
    """
    if not store.there():
        raise LakeAbsent(ABSENT.format(store))
    with store.held("commit", wait=True):  # a commit is before, and is rewritten, or behind, and knows
        older = sorted({span.source for one in manifest.load(store) for file in one.files for span in file.causes} - {source})
        removal = Removal(of, hash_of(of, name), at_ms, source, stops, older)
        _add(store, removal)
    if not store.locks:
        with suppress(LakeOvertaken):  # a commit came between: it is before; one that was begun since has seen who is removed
            manifest.fence(store, at_ms)

    def change(held: list[File], new: New) -> list[File]:
        made: list[File] = []
        for file in held:
            table = files.read(store, file)
            kept = without(table, [removal])
            if len(kept) == len(table):
                made.append(file)
            elif len(kept):
                made.append(new.put(file.hour, kept, [file]))
        return made

    return rewrite(store, change)


def _add(store: Store, removal: Removal) -> None:
    """Under the next number: of two who erase at once each gets one."""
    while True:
        held = [name for name in store.names(FOLDER) if not name.endswith(TEMPORARY)]
        number = int(held[-1].rpartition("/")[2].partition(".")[0]) + 1 if held else 1
        with suppress(LakeOvertaken):
            return store.create(f"{FOLDER}/{number:08d}.json", pa.py_buffer(msgspec.json.encode(removal)))


def count(store: Store, of: str, name: str) -> int:
    """Committed samples of somebody; every file is read."""
    held = [file for one in manifest.load(store) for file in one.files]
    return sum(int(pc.sum(pc.equal(files.read(store, file, [f"{of}_id"])[f"{of}_id"], name)).as_py() or 0) for file in held)


def without(table: pa.Table, removals: Sequence[Removal]) -> pa.Table:
    """The samples that no removal takes out."""
    keep = np.ones(len(table), bool)
    for of in {one.of for one in removals}:
        column = table[f"{of}_id"].combine_chunks().dictionary_encode()
        place = column.indices.to_numpy()
        hashes = {hash_of(of, name): number for number, name in enumerate(column.dictionary.to_pylist())}
        for one in removals:
            if one.of == of and one.hash in hashes:
                keep &= ~((place == hashes[one.hash]) & _before(table, one))
    return table if keep.all() else table.filter(pa.array(keep))


def _before(table: pa.Table, one: Removal) -> np.ndarray:
    """bool[n]"""
    source, partition, offset = (table[name].to_numpy() for name in ("source", "partition", "offset"))
    stops = np.zeros(max([*one.stops, *partition.tolist()], default=0) + 1, np.int64)
    for where, stop in one.stops.items():
        stops[where] = stop
    before: np.ndarray = ((source == one.source) & (offset < stops[partition])) | np.isin(source, one.older)
    return before
