"""The real logs of bench train.quality, as the samples that the feature shard freezes of them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headrace import kuairand, movielens, rows
from headrace.config import Features
from headrace.features.layout import SLOTS
from headrace.models.batch import Batch
from headrace.offline import Part, joined, samples
from headrace.schemas import mapping

FOLDER = Path(".headrace/data")  # where `headrace data get` writes
_IDS = ("user_id", "item_id", "context.")
_FIELDS = (*_IDS, "bias", "user.", "item.")


@dataclass(frozen=True)
class Log:
    """Samples of one log in time order, in parts and as one."""

    name: str
    parts: list[Part]
    batch: Batch
    popularity: np.ndarray

    def only(self, slots: np.ndarray) -> Log:
        """The same samples with the other slots of bool[F] empty."""
        parts = [(Batch(batch.keys, batch.values * slots, batch.label, batch.weight), causes, popularity)
                 for batch, causes, popularity in self.parts]
        return Log(self.name, parts, joined(parts)[0], self.popularity)


def ids() -> np.ndarray:
    """bool[F]: user, item and the moment's fields, as a learner without a feature service has them."""
    return np.array([name.startswith(_IDS) for name in SLOTS])


def fields() -> np.ndarray:
    """bool[F]: ids, fields of user and item, bias; what the feature shard counts is left out."""
    return np.array([name.startswith(_FIELDS) for name in SLOTS])


def logs(data: Path | None, rows_max: int | None) -> tuple[list[Log], list[str]]:
    """The logs that are there, of at most `rows_max` rows each, and a sentence for each that is not.

    MovieLens comes by pip when it is not in .headrace/data. KuaiRand: kuairand.parquet as `headrace data get` writes it, or its source
    file, in `data`; else in .headrace/data/kuairand.
    """
    found, missing = [], []
    for name, source in (("movielens", _movielens), ("kuairand", _kuairand)):
        with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
            try:
                path = source(data, Path(folder))
                table = rows.load(path, mapping.load(path.with_name("mapping.toml")))
            except (movielens.DataError, OSError) as error:
                missing.append(f"{name} was left out: {error}")
                continue
        parts = list(samples(table if rows_max is None else table.first(rows_max), Features().half_life_s))
        batch, _, popularity = joined(parts)
        found.append(Log(name, parts, batch, popularity))
    return found, missing


def _movielens(data: Path | None, scratch: Path) -> Path:
    for folder in _folders(data, movielens.NAME):
        if (folder / f"{movielens.NAME}.parquet").exists():
            return folder / f"{movielens.NAME}.parquet"
    return movielens.get(FOLDER / movielens.NAME)[0]


def _kuairand(data: Path | None, scratch: Path) -> Path:
    for folder in _folders(data, kuairand.NAME):
        if (folder / f"{kuairand.NAME}.parquet").exists():
            return folder / f"{kuairand.NAME}.parquet"
        if (folder / kuairand.SOURCE).exists():
            return kuairand.get(folder, scratch)
    raise movielens.DataError(f"no {kuairand.SOURCE}; say --data DIR, the folder that holds it")


def _folders(data: Path | None, name: str) -> Iterator[Path]:
    if data is not None:
        yield from (data, data / name)
    yield FOLDER / name
