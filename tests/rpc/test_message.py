"""Header and arrays there and back, and everything else refused."""

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from headrace.rpc.errors import BadMessage
from headrace.rpc.message import BYTES_MAX, DTYPES, NAMES_MAX, column, decode, encode

arrays = st.dictionaries(st.text(max_size=8), st.sampled_from(sorted(DTYPES)).flatmap(
    lambda code: npst.arrays(DTYPES[code], npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))), max_size=5)


def received(message, shift=0):
    """The message as Flight gives it: a read-only buffer that begins anywhere."""
    return pa.py_buffer(bytes(shift) + message).slice(shift)


@given(arrays, st.integers(0, 9), st.dictionaries(st.text(max_size=5), st.integers(-5, 5), max_size=3))
def test_round_trip(given_arrays, shift, given_header):
    header, answer = decode(received(encode(given_header, given_arrays), shift))
    assert header == given_header and list(answer) == list(given_arrays)
    for name, array in given_arrays.items():
        assert answer[name].dtype == array.dtype and answer[name].shape == array.shape
        assert answer[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("shift", range(8))
def test_arrays_are_aligned_and_read_only_wherever_the_message_lies(shift):
    sent = {"odd": np.arange(3, dtype=np.uint8), "keys": np.arange(5, dtype=np.uint64), "values": np.ones((2, 3), np.float32)}
    for array in decode(received(encode({"model": "fm"}, sent), shift))[1].values():
        assert array.flags.aligned and not array.flags.writeable


def test_numpy_numbers_may_stand_in_a_header():
    assert decode(received(encode({"n": np.int64(3)}, {})))[0] == {"n": 3}


def message(parts, data=b""):
    text = parts if isinstance(parts, bytes) else orjson.dumps(parts)
    head = len(text).to_bytes(4, "little") + text
    return head + bytes(-len(head) % 8) + data


def listed(name="x", dtype="f4", shape=(1,), data=b"12340000"):
    return message({"header": {}, "arrays": [[name, dtype, shape]]}, data)


@pytest.mark.parametrize(("sent", "says"), [
    (b"", "no message"), (b"123", "no message"), (message(b"{"), "no JSON"), (message(b"\xff"), "no JSON"), (message([1]), "no object"),
    (message({"arrays": []}), "no object"), (message({"header": [], "arrays": []}), "no object"), (message({"header": {}}), "no list"),
    (b"\xff\xff\xff\xff" + listed()[4:], "no JSON"), (message({"header": {}, "arrays": [1]}), "listed as 1"),
    (message({"header": {}, "arrays": [["x", "f4"]]}), "listed as"), (listed(name=7), "listed as"), (listed(shape=3), "listed as"),
    (listed(dtype="object"), "dtype 'object'"), (listed(dtype=[]), "dtype"), (listed(dtype=">f4"), "dtype"),
    (listed(shape=(3,)), "8 bytes"), (listed(shape=(-1,)), "shape"), (listed(shape=(1.0,)), "shape"), (listed(shape=(True,)), "shape"),
    (listed(shape=(1 << 62, 4)), "shape"), (listed(shape=(0, 1 << 40)), "shape"), (listed(shape=[1] * 40), "shape"),
    (listed(data=b"123"), "3 bytes are left"), (listed(data=b""), "0 bytes are left"), (listed(data=bytes(16)), "of which"),
    (message({"header": {}, "arrays": [["x", "u1", [0]]] * 2}), "come twice: 1"),
    (message({"header": {}, "arrays": [["x", "u1", [0]]] * (NAMES_MAX + 1)}), f"{NAMES_MAX + 1} arrays"),
    (bytes(BYTES_MAX + 8), "the limit is"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_anything_else_is_refused(sent, says):
    with pytest.raises(BadMessage, match=says):
        decode(received(sent))


def test_a_batch_without_a_message_is_refused():
    with pytest.raises(BadMessage, match="different versions"):
        decode(None)


@given(st.data())
def test_a_message_with_a_changed_or_missing_byte_is_read_or_refused(data):
    sent = bytearray(encode({"model": "fm"}, {"keys": np.arange(3, dtype=np.uint64), "t.grads": np.ones((2, 2), np.float32)}))
    at = data.draw(st.integers(0, len(sent) - 1))
    sent[at] = data.draw(st.integers(0, 255))
    for changed in (sent, sent[:at]):
        try:
            decode(received(bytes(changed)))
        except BadMessage:
            pass


def test_the_door_names_what_is_wrong():
    held = {"keys": np.zeros(3, np.uint64)}
    assert column(held, "keys", "uint64", (None,)) is held["keys"]
    wrong = (("values", "uint64", (None,), "missing"), ("keys", "int64", (None,), "expected int64"), ("keys", "uint64", (4,), "shape"))
    for name, dtype, shape, says in wrong:
        with pytest.raises(BadMessage, match=says):
            column(held, name, dtype, shape)
