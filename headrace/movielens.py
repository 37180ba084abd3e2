"""MovieLens 100K: fetched with pip inside the wheel of recbole 1.2.1, checked, joined, and written as one parquet in time order."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet

from headrace.arrow_memory import copied

REQUIREMENT = "recbole==1.2.1"
MEMBER = "recbole/dataset_example/ml-100k/ml-100k."
SHA256 = {
    "inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
    "user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
}
NAME = "movielens-100k"
TERMS = (Path(__file__).parent / "grouplens.txt").read_text(encoding="utf-8")
MAPPING = """# All ratings are impressions; a 4 or 5 is a click.
time_unit = "s"

[columns]
user_id = "user_id"
item_id = "item_id"
ts = "timestamp"
label = "rating >= 4"
action = "click"

[user]
fields = ["age", "gender", "occupation"]

[item]
fields = ["genre", "year"]
"""
_STAMP = b"headrace.sources"


class DataError(Exception):
    """The data set could not be had; the message says what failed and the way out."""


def get(to: Path, fetch: Callable[[Path], Path] | None = None, sha256: dict[str, str] | None = None) -> tuple[Path, bool]:
    """Write NAME.parquet, mapping.toml and TERMS.txt into folder `to`; returns the parquet's path and whether it was there already.

    `fetch` puts the wheel into a folder and returns its path (default: pip). Raises DataError.
    """
    sha256 = SHA256 if sha256 is None else sha256
    stamp = " ".join(sha256.values())
    path = to / f"{NAME}.parquet"
    if _stamp_of(path) == stamp and (to / "mapping.toml").exists() and (to / "TERMS.txt").exists():
        return path, True
    with tempfile.TemporaryDirectory() as folder:
        sources = _unpack((fetch or fetch_wheel)(Path(folder)), sha256)
    table = convert(sources)
    to.mkdir(parents=True, exist_ok=True)
    (to / "TERMS.txt").write_text(TERMS, encoding="utf-8")
    (to / "mapping.toml").write_text(MAPPING, encoding="utf-8")
    part = path.with_suffix(".part")
    pa.parquet.write_table(table.replace_schema_metadata({_STAMP: stamp}), part, compression="zstd")
    part.replace(path)
    return path, False


def fetch_wheel(folder: Path) -> Path:
    """Download the wheel without its dependencies through this Python's pip, under pip's own settings. Raises DataError."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(folder),
               REQUIREMENT]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    except subprocess.TimeoutExpired:
        raise DataError(f"pip download {REQUIREMENT} did not end within 600 s; look at the network and pip's settings") from None
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if "ERROR" in line] or lines or ["pip said nothing"]
        raise DataError(f"pip download {REQUIREMENT} failed: {errors[-1].strip()}; with the wheel at hand: pip's --find-links")
    return wheels[0]


def convert(sources: dict[str, bytes]) -> pa.Table:
    """Ratings joined with users and films, in time order, ties by row order.

    Columns: user_id, item_id, age, gender, occupation, genre (several split by |), year, title as text, rating int8, timestamp int64 (s).
    """
    ratings, users, films = (_tsv(sources[name]) for name in ("inter", "user", "item"))
    order = np.argsort(ratings["timestamp"].cast(pa.float64()).to_numpy(), kind="stable")
    ratings = ratings.take(pa.array(order))
    user = _positions(ratings["user_id"], users["user_id"], "user")
    film = _positions(ratings["item_id"], films["item_id"], "film")
    genres = pa.compute.replace_substring(films["class"], " ", "|")
    return pa.table({
        "user_id": ratings["user_id"],
        "item_id": ratings["item_id"],
        "rating": ratings["rating"].cast(pa.float64()).cast(pa.int8()),
        "timestamp": ratings["timestamp"].cast(pa.float64()).cast(pa.int64()),
        **{name: users[name].take(user) for name in ("age", "gender", "occupation")},
        "genre": genres.take(film), "year": films["release_year"].take(film), "title": films["movie_title"].take(film),
    })


def _unpack(wheel: Path, sha256: dict[str, str]) -> dict[str, bytes]:
    sources = {}
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name, expected in sha256.items():
                sources[name] = archive.read(MEMBER + name)
                got = hashlib.sha256(sources[name]).hexdigest()
                if got != expected:
                    raise DataError(f"{MEMBER}{name} in {wheel.name} has sha256 {got}, expected {expected}: "
                                    "not the data that this was made for")
    except (zipfile.BadZipFile, KeyError) as error:
        raise DataError(f"{wheel.name} does not hold MovieLens: {error}") from None
    return sources


def _tsv(data: bytes) -> pa.Table:
    """A table of texts; names in the header carry a type after a colon, which is dropped. Empty is null."""
    names = [name.split(":")[0] for name in data.split(b"\n", 1)[0].decode().strip().split("\t")]
    return pa.csv.read_csv(
        copied(data), pa.csv.ReadOptions(skip_rows=1, column_names=names), pa.csv.ParseOptions(delimiter="\t", quote_char=False),
        pa.csv.ConvertOptions(column_types={name: pa.string() for name in names}, strings_can_be_null=True, null_values=[""]),
    )


def _positions(ids: pa.ChunkedArray, of: pa.ChunkedArray, what: str) -> pa.Array:
    """Row in `of` of each id. Raises DataError for one that is not there."""
    found = pa.compute.index_in(ids, value_set=of).combine_chunks()
    if found.null_count:
        raise DataError(f"{found.null_count} ratings of a {what} that the wheel does not describe")
    return found


def _stamp_of(path: Path) -> str | None:
    try:
        metadata = pa.parquet.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException):
        return None
    return metadata.get(_STAMP, b"").decode()
