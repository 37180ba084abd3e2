"""Arrays there and back, and everything else refused."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from headrace.rpc.errors import BadMessage
from headrace.rpc.message import DTYPES, SCHEMA, column, header_bytes, header_of, pack, unpack

arrays = st.dictionaries(st.text(max_size=8), st.sampled_from(sorted(DTYPES)).flatmap(
    lambda code: npst.arrays(DTYPES[code], npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))), max_size=5)


@given(arrays)
def test_round_trip(given_arrays):
    answer = unpack(pack(given_arrays))
    assert list(answer) == list(given_arrays)
    for name, array in given_arrays.items():
        assert answer[name].dtype == array.dtype and answer[name].shape == array.shape
        assert answer[name].tobytes() == array.tobytes()


def row(name="x", dtype="f4", shape=(1,), data=b"1234"):
    columns = [pa.array([name]), pa.array([dtype]), pa.array([list(shape)], pa.list_(pa.int64())), pa.array([data], pa.large_binary())]
    return pa.record_batch(columns, schema=SCHEMA)


@pytest.mark.parametrize(("batch", "says"), [
    (row(dtype="object"), "dtype 'object'"), (row(shape=(2,)), "shape"), (row(shape=(-1,)), "shape"), (row(data=b"123"), "bytes"),
    (row(name=None), "null"), (row(data=None), "null"), (pa.record_batch([pa.array([1])], names=["x"]), "schema"),
])
def test_anything_else_is_refused(batch, says):
    with pytest.raises(BadMessage, match=says):
        unpack(batch)


def test_bad_offsets_are_seen():
    good = pack({"x": np.zeros(1, np.float32), "y": np.zeros(1, np.float32)})
    offsets = pa.py_buffer(np.array([0, 1 << 40, 8], np.int64))
    bad = pa.Array.from_buffers(pa.large_binary(), 2, [None, offsets, good.column(3).buffers()[2]])
    with pytest.raises(BadMessage, match="hold together"):
        unpack(pa.RecordBatch.from_arrays([good.column(0), good.column(1), good.column(2), bad], schema=SCHEMA))


@pytest.mark.parametrize("metadata", [b"{", b"[1]", b"\xff"])
def test_a_header_is_a_json_object(metadata):
    with pytest.raises(BadMessage):
        header_of(pa.py_buffer(metadata))
    assert header_of(None) == {} and header_of(pa.py_buffer(header_bytes({"n": np.int64(3)}))) == {"n": 3}


def test_the_door_names_what_is_wrong():
    held = {"keys": np.zeros(3, np.uint64)}
    assert column(held, "keys", "uint64", (None,)) is held["keys"]
    wrong = (("values", "uint64", (None,), "missing"), ("keys", "int64", (None,), "expected int64"), ("keys", "uint64", (4,), "shape"))
    for name, dtype, shape, says in wrong:
        with pytest.raises(BadMessage, match=says):
            column(held, name, dtype, shape)
