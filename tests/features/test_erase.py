"""Rows of one user or item deleted: others as they were, causes stay applied, the next event begins a new row."""

import numpy as np

from headrace.features.layout import REPEATED
from headrace.rpc.causes import Causes
from tests.features.events import columns, random_rows, shard_at


def test_rows_go_and_a_repetition_does_not_bring_them_back(tmp_path):
    shard = shard_at(tmp_path)
    causes, events = columns(random_rows(200, 1))
    shard.freeze_and_fold(causes, events)
    user, item = int(events["user"][0]), int(events["item"][0])
    others = {int(key): shard.user(int(key)).impressions for key in np.unique(events["user"]) if key != user}
    shard.store.put_names([user], ["user_id=somebody"])
    users, popular = shard.counts["users"], len(shard.popular.top(100)[0])
    assert shard.held("user", user) == shard.erase("user", user) == {"users": 1, "names": 1}
    assert shard.held("user", user) == {"users": 0, "names": 0} and shard.erase("user", user) == {"users": 0, "names": 0}
    assert not shard.user(user).found and shard.counts["users"] == users - 1
    assert {key: shard.user(key).impressions for key in others} == others
    again = shard.freeze_and_fold(causes, events)
    assert (again.status[again.status != 2] == REPEATED).all() and not shard.user(user).found
    assert shard.erase("item", item)["items"] == 1 and item not in shard.popular.top(100)[0] and len(shard.popular.top(100)[0]) <= popular
    last = columns(random_rows(1, 2, first_offset=500))
    new = {**last[1], "user": np.array([user], np.uint64), "action": np.array([1], np.uint8)}
    shard.freeze_and_fold(Causes(*last[0]), new)
    assert shard.user(user).impressions == 1
    shard.store.close()
    reopened = shard_at(tmp_path)
    assert reopened.user(user).impressions == 1 and reopened.counts["users"] == users
    assert item not in reopened.popular.top(100)[0] or int(new["item"][0]) == item
    reopened.store.close()
