"""Rows of somebody taken out of every table, logged, so that a shard that comes back does not have them either."""

import numpy as np

from headrace.ps.shard import APPLIED, DUPLICATE
from tests.ps import worlds


def test_rows_go_with_the_log_and_their_causes_stay_applied(tmp_path):
    rng = np.random.default_rng(1)
    with worlds.store(tmp_path) as made:
        digest, model, keys = erased(made, rng)
    with worlds.store(tmp_path) as again:
        assert again.shard.digest() == digest and not any(again.shard.held(model, keys).values())


def erased(made, rng):
    """Push, erase, push again; the digest then, the model, the keys that went."""
    shard, push = made.shard, worlds.push_of(rng)
    model = next(iter(shard.specs))
    assert shard.push(model, "click", worlds.causes([1]), push).status == APPLIED
    keys = next(iter(push.values()))[0][:3]
    held = shard.held(model, keys)
    before = {name: len(table) for (_, name), table in shard.tables.items()}
    assert max(held.values()) == 3
    sequence = shard.sequence
    assert shard.erase(model, keys) == held and not any(shard.held(model, keys).values())
    assert {name: len(table) for (_, name), table in shard.tables.items()} == {name: before[name] - held[name] for name in before}
    assert shard.sequence == sequence + sum(rows > 0 for rows in held.values()) and shard.removed["erased"] == sum(held.values())
    assert shard.erase(model, keys) == dict.fromkeys(held, 0) and shard.sequence == sequence + sum(rows > 0 for rows in held.values())
    assert shard.push(model, "click", worlds.causes([1]), push).status == DUPLICATE
    return shard.digest(), model, keys
