"""One progressive pass over real exposures (KuaiRand, CC BY-SA 4.0): user, video, duration bucket, hour. Prints the AUCs (-s)."""

from pathlib import Path

import numpy as np
import pytest

from headrace.config import Model as Defaults
from headrace.models import progressive
from headrace.models.batch import Batch
from headrace.models.catalog import MODELS
from headrace.models.fields import fields_of
from headrace.models.train import Trainer
from tests.models.worlds import Shards, causes_of

EVENTS = Path(__file__).resolve().parents[3] / "shared" / "data" / "kuairand_events.parquet"
FIELDS = fields_of(["bias", "user_id", "item_id", "context.0", "context.1"], np.array([0, 1, 2, 0, 0]))
BASELINE_AUC = 0.70  # after a third of the log; the rest is learnt too slowly in dictionaries for a unit test


def exposures(rows):
    import pyarrow.parquet as pq

    table = pq.read_table(EVENTS).slice(0, rows)
    columns = {name: table[name].to_numpy() for name in ("ts_ms", "user_id", "video_id", "duration_ms", "is_click")}
    n = len(columns["ts_ms"])
    fields = [np.zeros(n, np.uint64), columns["user_id"], columns["video_id"], columns["duration_ms"] // 10_000,
              (columns["ts_ms"] // 3_600_000 + 8) % 24]
    keys = np.stack([np.asarray(field, np.uint64) + np.uint64(number << 40) for number, field in enumerate(fields)], 1)
    return Batch(keys, np.ones(keys.shape, np.float32), columns["is_click"].astype(np.float32), np.ones(n, np.float32))


@pytest.mark.skipif(not EVENTS.exists(), reason="needs ../shared/data/kuairand_events.parquet")
def test_fm_with_the_defaults_beats_lr():
    batch, auc = exposures(14_000), {}
    for name, kind in MODELS.items():
        shards = Shards(shards=1, learning_rate=Defaults().learning_rate, init_scale=Defaults().init_scale)
        shards.dim = kind.dim(Defaults().factors)
        trainer = Trainer(kind(FIELDS), shards.pull, shards.push, l2=Defaults().l2, rate=Defaults().learning_rate)
        for start in range(0, len(batch), 256):
            at = np.arange(start, min(start + 256, len(batch)))
            trainer.learn(batch.take(at), causes_of(at), np.full(len(at), 0.5, np.float32))
        sums = shards.sums("metrics")
        auc[name] = progressive.summary(np.array([sums.get(key, 0) for key in progressive.keys_of(0).tolist()]))["auc"]
    print({name: round(value, 4) for name, value in auc.items()})
    assert auc["fm"] > auc["lr"] and auc["fm"] > BASELINE_AUC, auc
