"""Manifests: one a commit, numbered from 1, JSON that says its own sha256. A file that no manifest names is not data.

manifests/00000001.json: {"sha256": of the bytes of the next value, "manifest": {number, topic, offsets, files, ...}}.
bases/00000001.json: one that stands for all commits up to its number, as the first rewriting (rewriting.py) left them; the newest counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import msgspec
import pyarrow as pa

from headrace import __version__
from headrace.lake.errors import LakeDamaged, LakeOvertaken
from headrace.lake.store import TEMPORARY, Store
from headrace.schemas.codec import schema_text

FORMAT = 2  # 2: of a base
FOLDER, BASES = "manifests", "bases"
REWRITTEN = "r"  # begins the name of a file that a rewriting made
DECIDING = ("columns.py", "known.py", "writer.py")
RESTORE = "restore it from a copy of the lake, or keep the folder and set lake.dir to a new one"


class Range(msgspec.Struct, frozen=True):
    """Offsets [first, stop) of a partition of the topic."""

    partition: int
    first: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.first


class Span(msgspec.Struct, frozen=True):
    """Causes of one source, partition and target lie between the offsets `first` and `last`, both among them."""

    target: str
    source: int
    partition: int
    first: int
    last: int


class Label(msgspec.Struct, frozen=True):
    """How many rows of a target there are, and of how many the label is above 0."""

    rows: int = 0
    positives: int = 0

    def __add__(self, other: Label) -> Label:
        return Label(self.rows + other.rows, self.positives + other.positives)


class Origin(msgspec.Struct, frozen=True):
    """The commits, the first and the last, whose rows a file of a base holds, and what they say of all of them."""

    first: int
    last: int
    topic_id: str
    code: str


class File(msgspec.Struct, frozen=True):
    """A Parquet file: its path from the lake's folder, rows, bytes, sha256, and what of its rows is asked without opening it."""

    path: str
    rows: int
    bytes: int
    sha256: str
    ts_ms_min: int
    ts_ms_max: int
    labels: dict[str, Label]
    causes: list[Span]
    origin: Origin | None = None

    @property
    def hour(self) -> str:
        """day=2026-11-30/hour=07"""
        return "/".join(self.path.split("/")[1:3])

    @property
    def day(self) -> str:
        """2026-11-30"""
        return self.path.split("/")[1].removeprefix("day=")


class Manifest(msgspec.Struct, frozen=True):
    """A commit: what was read of the topic, and what of it was written. `topic_id`: Kafka's uuid, another one when a topic is made anew.

    `offsets`: one of every partition, each beginning where the commit before ended it. records = rows of `files` + duplicates +
    unreadable + dropped. `gaps`: offsets within the ranges that retention took before they were read. `fault`: the first record not
    readable. `dropped`: rows that were erased or have expired. Of a base, `generation` counts from 1, sums are of all commits up to
    `number`, and `topics` are the uuids that they met.
    """

    number: int
    topic: str
    topic_id: str
    offsets: list[Range]
    files: list[File]
    records: int
    duplicates: int
    unreadable: int
    gaps: list[Range]
    feature_sets: dict[str, int]
    code: str
    written_ms: int
    fault: str = ""
    format: int = 1
    dropped: int = 0
    generation: int = 0
    topics: list[str] = []

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)


class _Sealed(msgspec.Struct):
    sha256: str
    manifest: msgspec.Raw


def name_of(number: int) -> str:
    return f"{FOLDER}/{number:08d}.json"


def base_of(generation: int) -> str:
    return f"{BASES}/{generation:08d}.json"


def newest_base(store: Store) -> int:
    """Its generation; 0 where nothing was ever rewritten."""
    names = [name for name in store.names(BASES) if not name.endswith(TEMPORARY)]
    return int(names[-1].rpartition("/")[2].removesuffix(".json")) if names else 0


def write(store: Store, manifest: Manifest, base: int = 0) -> int:
    """The last step of a commit, or of a rewriting: with its manifest in place it is made. `base`: the newest one when the commit was
    begun. The newest one now. Raises LakeOvertaken when another has made it before, and of a store without locks also when a rewriting
    stands for it, which has removed that other's manifest."""
    body = msgspec.json.encode(manifest)
    sealed = msgspec.json.encode(_Sealed(hashlib.sha256(body).hexdigest(), msgspec.Raw(body)))
    name = base_of(manifest.generation) if manifest.generation else name_of(manifest.number)
    store.create(name, pa.py_buffer(sealed + b"\n"))
    if store.locks:
        return base
    newest, through = _stands(store, manifest.generation or base)
    if newest > manifest.generation if manifest.generation else through >= manifest.number:
        raise LakeOvertaken(f"{store}/{name} was made by another before, and is rewritten: begin again behind it")
    return newest


def _stands(store: Store, known: int) -> tuple[int, int]:
    """The newest base and the last commit that it stands for; that is 0 where the base is `known`."""
    while True:
        newest = newest_base(store)
        try:
            return newest, _read(store, base_of(newest)).number if newest != known else 0
        except LakeDamaged:
            if newest_base(store) == newest:
                raise


def fence(store: Store, now_ms: int) -> Manifest:
    """Commit nothing, so that who has begun a commit on the same lake cannot end it. Raises LakeOvertaken when somebody has committed
    meanwhile."""
    found = load(store)
    last = found[-1] if found else Manifest(0, "", "", [], [], 0, 0, 0, [], {}, code(), now_ms)
    one = Manifest(last.number + 1, last.topic, last.topic_id, [Range(read.partition, read.stop, read.stop) for read in last.offsets], [],
                   0, 0, 0, [], {}, code(), now_ms)
    write(store, one, found[0].generation if found else 0)
    return one


def load(store: Store) -> list[Manifest]:
    """The newest base, where there is one, and all commits behind it, in order; [] of an empty lake. Raises LakeDamaged."""
    while True:
        generation = newest_base(store)
        try:
            return _load(store, generation)
        except LakeDamaged:
            if newest_base(store) == generation:  # else it was rewritten meanwhile, and what is missing is not missed
                raise


def _load(store: Store, generation: int) -> list[Manifest]:
    found = [_read(store, base_of(generation))] if generation else []
    through = found[0].number if found else 0
    names = [name for name in store.names(FOLDER) if not name.endswith(TEMPORARY) and name > name_of(through)]
    wanted = [name_of(number) for number in range(through + 1, through + len(names) + 1)]
    if names != wanted:
        absent = next((name for name in wanted if name not in names), "")
        raise LakeDamaged(f"{store}/{absent} is missing, and later manifests are there: {RESTORE}")
    found += [_read(store, name, number) for number, name in enumerate(names, through + 1)]
    if not found:
        _check_empty(store)
    _check_chain(store, found)
    return found


def _check_empty(store: Store) -> None:
    """A lake without a manifest may hold what its first commit left, and nothing that was rewritten. Raises LakeDamaged."""
    name = next((name for name in store.names("samples") if name.rpartition("/")[2].startswith(REWRITTEN)), "")
    if name:
        raise LakeDamaged(f"{store}/{name} was rewritten, and the manifest that names it is missing in {store}/{BASES}: {RESTORE}")


def _read(store: Store, name: str, number: int | None = None) -> Manifest:
    try:
        sealed = msgspec.json.decode(store.get(name), type=_Sealed)
        if hashlib.sha256(sealed.manifest).hexdigest() != sealed.sha256:
            raise LakeDamaged(f"{store}/{name} does not have the sha256 that it says: {RESTORE}")
        made = msgspec.json.decode(sealed.manifest, type=Manifest)
    except FileNotFoundError:
        raise LakeDamaged(f"{store}/{name} is missing: {RESTORE}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise LakeDamaged(f"{store}/{name} is no manifest ({error}): {RESTORE}") from None
    if made.format > FORMAT:
        raise LakeDamaged(f"{store}/{name} has format {made.format}, and this headrace ({__version__}) knows {FORMAT}: use a newer one")
    if number is not None and made.number != number:
        raise LakeDamaged(f"{store}/{name} says that it is commit {made.number}: {RESTORE}")
    return made


def _check_chain(store: Store, manifests: Sequence[Manifest]) -> None:
    """Each commit begins where the one before ended."""
    topic_id, at = "", dict[int, int]()
    for one in manifests:
        if one.topic_id != topic_id:
            topic_id, at = one.topic_id, {}
        for read in one.offsets:
            begins = at.get(read.partition, read.first)
            if begins != read.first:
                raise LakeDamaged(f"{store}/{name_of(one.number)} begins partition {read.partition} at {read.first}, and the commits before"
                                  f" it end at {begins}: {RESTORE}")
            at[read.partition] = read.stop


def positions(manifests: Sequence[Manifest]) -> tuple[str, dict[int, int]]:
    """The newest topic's uuid, and where the next record of each of its partitions is read; ("", {}) of an empty lake."""
    return (manifests[-1].topic_id, {read.partition: read.stop for read in manifests[-1].offsets}) if manifests else ("", {})


def topics(manifests: Sequence[Manifest]) -> list[str]:
    """The uuids of the topics that they are of, each once, in order."""
    return list(dict.fromkeys(topic for one in manifests for topic in one.topics or [one.topic_id] if topic))


@lru_cache(1)
def code() -> str:
    """What wrote: the version, and 8 hex digits of the sha256 of the schema and of the files that decide what a row is."""
    told = hashlib.sha256(schema_text("samples").encode())
    for name in DECIDING:
        told.update((Path(__file__).parent / name).read_bytes())
    return f"{__version__}+{told.hexdigest()[:8]}"
