"""How served rows travel: bounds of what is lost, no infinity, and replicas that agree bit for bit whichever way a row came."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from headrace.ps.encoding import ENCODINGS, decode, encode, of_block, served_as
from headrace.ps.index import kernel_input
from headrace.ps.publish import Publisher
from headrace.ps.replica import Gap, Replica
from headrace.ps.resync import close_gap
from headrace.ps.service import shard_verbs
from headrace.ps.spec import SpecError
from headrace.rpc.client import Client
from headrace.rpc.errors import BadMessage
from headrace.rpc.owner import Owner
from headrace.schemas.codec import Codec
from headrace.schemas.registry_store import SchemaStore
from tests import naive
from tests.ps import worlds

KEYS = np.arange(300, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
SHAPES = arrays_of.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=20)
FINITE = arrays_of.arrays(np.float32, SHAPES, elements=st.floats(width=32, allow_nan=False, allow_infinity=False))
ANY = arrays_of.arrays(np.float32, SHAPES, elements=st.floats(width=32))
LEARNT = arrays_of.arrays(np.float32, SHAPES, elements=st.floats(-100, 100, width=32))


@given(weights=ANY, encoding=st.sampled_from(ENCODINGS[1:]))
def test_nothing_becomes_infinite_or_no_number_and_what_is_held_is_counted(weights, encoding):
    found = encode(weights, encoding)
    assert np.isfinite(served_as(weights, encoding)).all()
    limit = {"float16": 65504, "int8": np.float32(3.4e38)}[encoding]
    assert found.clipped == (~(np.abs(weights) <= limit)).sum()
    assert (encode(kernel_input(weights), encoding).values == found.values).all(), "read-only memory too"


@given(weights=LEARNT)
def test_float16_is_off_by_half_of_its_last_place(weights):
    error = np.abs(served_as(weights, "float16") - weights)
    assert (error <= np.maximum(np.abs(weights) * 2.0**-11, 2.0**-25)).all()
    assert encode(weights, "float16").clipped == 0


@given(weights=FINITE.filter(lambda one: one.size and np.abs(one).max() <= 3e38))
def test_int8_is_off_by_half_a_scale_and_follows_the_definition(weights):
    codes, scales, clipped = encode(weights, "int8")
    assert clipped == 0 and codes.dtype == np.int8 and len(scales) == len(weights)
    for row, found, scale in zip(weights, codes, scales, strict=True):
        wanted, wanted_scale = naive.quantized(row)
        assert (found.tolist(), scale) == (wanted, wanted_scale)
    lost = np.abs(decode(codes, scales).astype(np.float64) - weights)
    half = np.where(scales > 0, scales, 127 * np.finfo(np.float32).tiny * 2)[:, None].astype(np.float64) / 2
    assert (lost <= half * (1 + 1e-5)).all()


def test_float32_is_what_it_was():
    weights = np.array([[1e38, -0.0, np.inf]], np.float32)
    assert served_as(weights, "float32").tobytes() == weights.tobytes() and encode(weights, "float32").clipped == 0


def test_a_block_of_other_bytes_is_refused():
    found = encode(np.ones((2, 3), np.float32), "int8")
    assert (of_block("int8", found.values.tobytes(), found.scales.tobytes(), 2, 3) == 1).all()
    for wrong in (("int8", found.values.tobytes(), b""), ("int8", b"1", found.scales.tobytes()), ("float16", found.values.tobytes(), b""),
                  ("float32", np.ones(6, np.float32).tobytes(), found.scales.tobytes()), ("int4", b"", b"")):
        with pytest.raises(BadMessage):
            of_block(*wrong, 2, 3)
    with pytest.raises(SpecError, match="encoding 'int4'; known: float32, float16, int8"):
        worlds.spec(encoding="int4")


def pushed(store, rng, i, scale=1.0):
    tables = worlds.push_of(rng)
    keys, grads = tables["weights"]
    store.shard.push("fm", "click", worlds.causes([i]), {**tables, "weights": (keys, grads * np.float32(scale))})


def same(replica, store, encoding):
    held = store.shard.tables["fm", "weights"].stored().keys
    return replica.pull("fm", "weights", held).tobytes() == served_as(store.shard.pull("fm", "weights", held), encoding).tobytes()


@pytest.mark.parametrize("encoding", ENCODINGS)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000))
def test_replicas_agree_bit_for_bit_whichever_way_a_row_came(tmp_path_factory, encoding, seed):
    """One by all blocks, as Kafka holds them; one by an export in the middle and the blocks after; one by an export at the end."""
    spec, rng, sent, codec = worlds.spec(encoding=encoding), np.random.default_rng(seed), [], Codec("weights", SchemaStore())
    owner = Owner("replica")
    owner.start()
    by_blocks, late, last = (Replica([spec], 1, 5000, lambda: 1) for _ in range(3))
    by_blocks.gaps.clear()
    with worlds.store(tmp_path_factory.mktemp("shard"), [spec]) as store, worlds.served(shard_verbs(store)) as (server, _):
        client = Client(server.address)
        publisher = Publisher(store.shard, lambda topic, key, record: sent.append(codec.decode(codec.encode(record))), lambda: 1)
        for i in range(10):
            pushed(store, rng, i)
            publisher.run_pass()
            if i == 5:
                close_gap(late, owner, client, Gap("fm", "weights", 0))
        assert {block["encoding"] for block in sent} == {encoding}
        by_blocks.fold_many(sent)
        late.fold_many(sent)
        close_gap(last, owner, client, Gap("fm", "weights", 0))
        for replica in (by_blocks, late, last):
            assert same(replica, store, encoding) and not replica.gaps
        client.close()
    owner.stop()


def test_values_beyond_float16_are_held_and_counted(tmp_path):
    spec, sent = worlds.spec(encoding="float16", optimizer="sgd", params={"learning_rate": 1.0}), []
    with worlds.store(tmp_path, [spec]) as store:
        store.shard.push("fm", "click", worlds.causes([1]), {"weights": (KEYS[:2], np.full((2, 3), -1e6, np.float32))})
        Publisher(store.shard, lambda topic, key, record: sent.append(record), lambda: 1).run_pass()
        replica = Replica([spec], 1, 5000, lambda: 1)
        replica.fold_many(sent)
        assert (replica.pull("fm", "weights", KEYS[:2]) == 65504).all()
        assert store.shard.tables["fm", "weights"].counts["clipped"] == 6


def test_a_block_of_before_is_read_as_float32():
    """What an older shard left in the topic: neither encoding nor scales."""
    replica = Replica([worlds.spec()], 1, 5000, lambda: 1)
    key, values = KEYS[:1], np.array([[1, 2, 3]], np.float32)
    block = {"model": "fm", "table": "weights", "slot": 0, "epoch": 1, "first_sequence": 1, "last_sequence": 1, "dim": 3,
             "keys": key.tobytes(), "values": values.tobytes(), "deleted": b"", "ts_ms": 1, "newest": None}
    assert replica.fold_many([block]) == 1 and (replica.pull("fm", "weights", key) == values).all()


def test_another_encoding_reaches_rows_that_do_not_change_any_more(tmp_path):
    rng, sent, owner = np.random.default_rng(1), [], Owner("replica")
    owner.start()
    replica = Replica([worlds.spec()], 1, 5000, lambda: 1)
    replica.gaps.clear()
    for encoding in ("float32", "int8", "float16"):
        with worlds.store(tmp_path, [worlds.spec(encoding=encoding)]) as store, worlds.served(shard_verbs(store)) as (server, _):
            if encoding == "float32":
                for i in range(10):
                    pushed(store, rng, i)
            sent.clear()
            Publisher(store.shard, lambda topic, key, record: sent.append(record), lambda: 1).run_pass()
            replica.fold_many(sent)
            assert (encoding == "float32") == (not replica.gaps), "it is seen that the other rows are served otherwise now"
            client = Client(server.address)
            for gap in list(replica.gaps):
                close_gap(replica, owner, client, gap)
            client.close()
            assert same(replica, store, encoding)
            store.snapshot()  # all is published: nothing of it is in the log any more
    owner.stop()
