import sys

import pyarrow as pa
import pytest

from headrace import movielens
from headrace.arrow_memory import copied
from headrace.lake import files
from headrace.lake.place import Place
from headrace.lake.store import at
from tests.headrace.lake import worlds
from tests.headrace.lake.test_compare import table


def test_a_copy_holds_nothing_of_python():
    data = bytes(range(256)) * 3
    before = sys.getrefcount(data)
    assert copied(data).to_pybytes() == data and sys.getrefcount(data) == before


@pytest.fixture
def given(monkeypatch):
    """Everything that Arrow's readers were given."""
    found = []
    for module, name in ((files.pa, "BufferReader"), (movielens.pa.csv, "read_csv")):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda source, *rest, real=real: (found.append(source), real(source, *rest))[1])
    return found


def test_readers_get_no_memory_of_python(given, tmp_path, monkeypatch):
    store = at(Place(str(tmp_path)))
    made = files.put(store, "samples/day=2026-11-30/hour=07/00000001.parquet", table(worlds.sample(1)))
    data = store.get(made.path)
    monkeypatch.setattr(type(store), "get", lambda *_: data)
    assert len(files.read(store, made)) == 1
    text = b"a:token\tb:token\n1\t2\n"
    assert movielens._tsv(text).to_pylist() == [{"a": "1", "b": "2"}]
    assert len(given) == 2 and all(isinstance(one, pa.Buffer) for one in given)
    assert not any(one.address in (pa.py_buffer(data).address, pa.py_buffer(text).address) for one in given)
