"""Digests tell whether a replica holds what training serves: whatever the order of rows, the encoding and the numbers of shards."""

import contextlib

import numpy as np
import pytest

from headrace.ps import digest
from headrace.ps.client import ParameterClient
from headrace.ps.digest import compared, differing, digest_of
from headrace.ps.publish import Publisher
from headrace.ps.replica import Replica
from headrace.ps.service import replica_verbs, shard_verbs
from headrace.rpc.client import Client
from headrace.rpc.errors import Refused
from tests.ps import worlds


@pytest.mark.parametrize("encoding", ["float32", "float16", "int8"])
@pytest.mark.parametrize("serving", [1, 3])
def test_replicas_agree_until_one_bit_differs(tmp_path, monkeypatch, encoding, serving):
    monkeypatch.setattr(digest, "PAGE_ROWS", 50)
    spec, sent, rng = worlds.spec(encoding=encoding), [], np.random.default_rng(1)
    with contextlib.ExitStack() as stack:
        stores = [stack.enter_context(worlds.store(tmp_path / str(i), [spec], i, 2)) for i in range(2)]
        shards = [stack.enter_context(worlds.served(shard_verbs(store)))[0].address for store in stores]
        replicas = [Replica([spec], 2, 5000, lambda: 1, serving=(i % serving, serving)) for i in range(2 * serving)]
        served = [stack.enter_context(worlds.served(replica_verbs(one)))[0].address for one in replicas]
        pushing = ParameterClient(shards)
        for i in range(40):
            pushing.push("fm", "click", worlds.causes([i]), lambda index: worlds.push_of(rng))
            if i % 4 == 1 and i < 38:
                for store in stores:
                    Publisher(store.shard, lambda topic, key, record: sent.append(record), lambda: 1).run_pass()
        pushing.close()
        trained, held = [Client(one) for one in shards], [Client(one) for one in served]
        stack.callback(lambda: [one.close() for one in (*trained, *held)])
        for number, replica in enumerate(replicas):
            order = rng.permutation(64)  # of slots: rows then lie in another order
            replica.fold_many(sorted(sent, key=lambda block: order[block["slot"]]) if number else sent)
        found = compared(trained, held, "fm", "weights", lambda: False)
        assert any(found[2]), "what is not published yet differs"

        def publish():
            rest = []
            for store in stores:
                Publisher(store.shard, lambda topic, key, record: rest.append(record), lambda: 1).run_pass()
            for replica in replicas:
                replica.fold_many(rest)
            return True

        total, each, slots = compared(trained, held, "fm", "weights", publish)
        assert not any(slots) and total.still and total.rows.sum() == sum(int(one.rows.sum()) for one in each[:serving]) > 250
        assert serving > 1 or str(each[0]) == str(total)
        table = replicas[0].table("fm", "weights")
        key = table.stored().keys[:1]
        before = table.pull(key)
        one_bit = (before.view(np.uint32) ^ np.uint32([[0, 0, 1]])).view(np.float32)
        table.put(key, one_bit)
        (slot,) = differing(total, digest_of(held[0], "fm", "weights"))
        table.put(key, before)
        assert differing(total, digest_of(held[0], "fm", "weights")) == []
        table.remove(key, publish=False)
        assert differing(total, digest_of(held[0], "fm", "weights")) == [slot]
        with pytest.raises(Refused, match="not served"):
            digest_of(trained[0], "fm", "counts")


def test_what_changes_meanwhile_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(digest, "PAGE_ROWS", 5)
    rng = np.random.default_rng(1)
    with worlds.store(tmp_path) as store:
        store.shard.push("fm", "click", worlds.causes([1]), worlds.push_of(rng))
        verbs, asked = shard_verbs(store), []

        def moving(header, arrays):
            asked.append(1)
            store.shard.push("fm", "click", worlds.causes([1 + len(asked)]), worlds.push_of(rng))
            return verbs["digest"](header, arrays)

        with worlds.served({"digest": moving}) as (server, _), contextlib.closing(Client(server.address)) as client:
            assert not digest_of(client, "fm", "weights").still and len(asked) > 1
        with worlds.served(verbs) as (server, _), contextlib.closing(Client(server.address)) as client:
            assert digest_of(client, "fm", "weights").still
