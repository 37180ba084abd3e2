"""What admission and expiry do in a simulated world with items that are born and die: memory down, log-loss hardly up."""

import numpy as np
import pytest

from headrace import rows as rows_of
from headrace.commands.simulate import write
from headrace.config import Model
from headrace.features.layout import SIDE, SLOTS
from headrace.models.catalog import MODELS
from headrace.models.fields import fields_of
from headrace.models.progressive import MODEL
from headrace.models.train import Trainer, local_rate
from headrace.offline import Parameters, samples
from headrace.rpc.freshness import Newest
from headrace.schemas import mapping
from headrace.simulator.scenario import load
from headrace.simulator.world import World

DAY_S = 86_400
HALF_LIFE_S = 7 * DAY_S


def made(folder, users, items):
    """(rows, their samples) of ten days."""
    write(World(load("cold-start").sized(users, items, 10), 3), folder)
    rows = rows_of.load(folder / "log.parquet", mapping.load(folder / "mapping.toml"))
    return rows, list(samples(rows, HALF_LIFE_S))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return made(tmp_path_factory.mktemp("world"), 500, 6000)


def learnt(world, **room):
    """{rows, bytes, logloss of the second half, auc of items of the last three days} of a model with `room`."""
    rows, parts = world
    model = Model(**room)
    parameters, at_ms = Parameters(model), [0]

    def push(name, effect, causes, compute, newest=None):
        shard = parameters._shard
        shard.push(name, effect, causes, compute(np.arange(len(causes))), Newest(1, 0, int(causes.offset[-1]), at_ms[0]))
        shard.sweep(1 << 20)

    trainer = Trainer(MODELS[model.name](fields_of(SLOTS, SIDE)), parameters.pull, push, l2=model.l2,
                      rate=local_rate(model.optimizer, model.learning_rate))
    done, predicted = 0, []
    for batch, causes, popularity in parts:
        for start in range(0, len(batch), 256):
            at = np.arange(start, min(start + 256, len(batch)))
            at_ms[0] = int(rows.ts_ms[done + at[-1]])
            predicted.append(trainer.learn(batch.take(at), causes.take(at), popularity[at]))
        done += len(batch)
    scores, labels = np.concatenate(predicted).astype(float), np.concatenate([batch.label for batch, _, _ in parts])
    table, half = parameters._shard.tables[model.name, "weights"], len(labels) // 2
    p = np.clip(scores[half:], 1e-6, 1 - 1e-6)
    loss = -np.mean(labels[half:] * np.log(p) + (1 - labels[half:]) * np.log(1 - p))
    assert parameters.summary(MODEL)["samples"] == len(rows)
    return {"rows": len(table), "bytes": table.bytes, "logloss": loss, "auc_new": _auc(scores, labels, _new(rows))}


def _new(rows):
    """bool[n]: the first time that a row's item came lies in the last three days."""
    items = np.asarray(rows.item.to_pylist())
    _, first, inverse = np.unique(items, return_index=True, return_inverse=True)
    return rows.ts_ms[first[inverse]] > rows.ts_ms[-1] - 3 * DAY_S * 1000


def _auc(scores, labels, chosen):
    order = np.argsort(scores[chosen], kind="stable")
    label = labels[chosen][order]
    ranks = np.arange(1, len(label) + 1)
    positives = label.sum()
    return (ranks[label > 0.5].sum() - positives * (positives + 1) / 2) / (positives * (len(label) - positives))


@pytest.fixture(scope="module")
def everything(world):
    return learnt(world)


@pytest.mark.parametrize(("room", "share"), [
    ({"admission": "exact", "admit_after": 5}, 0.9), ({"admission": "bloom", "admit_after": 5, "bytes_max": 8 << 20}, 0.9),
    ({"ttl_s": DAY_S}, 0.6), ({"admission": "exact", "admit_after": 3, "ttl_s": 2 * DAY_S}, 0.8),
])
def test_rows_go_down_and_the_loss_hardly_up(world, everything, room, share):
    found = learnt(world, **room)
    assert found["rows"] < share * everything["rows"]
    assert found["logloss"] < everything["logloss"] + 0.004
    assert found["auc_new"] > everything["auc_new"] - 0.03


def test_a_budget_of_bytes_keeps_the_rows_that_matter(tmp_path):
    """Of a world with more items than there is room for: the least recently pushed rows go."""
    crowded = made(tmp_path, 250, 30_000)
    free, bounded = learnt(crowded), learnt(crowded, bytes_max=3_200_000)
    assert bounded["rows"] < 0.75 * free["rows"] and bounded["bytes"] < min(3_200_000, 0.75 * free["bytes"])
    assert bounded["logloss"] < free["logloss"] + 0.004
    assert bounded["auc_new"] > free["auc_new"] - 0.03
