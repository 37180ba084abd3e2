import numpy as np
import pytest

from headrace.models import progressive
from headrace.models.batch import Batch, unique
from headrace.models.catalog import MODELS
from headrace.models.fm import probability
from headrace.models.kernels import CONFIRMED, PROVISIONAL
from headrace.models.train import STALE_MAX, NotFinite, Trainer
from headrace.rpc.errors import Stale
from tests.models.worlds import FIELDS, Shards, causes_of, films


def learn_all(trainer, batch, size=256, offset=0):
    for start in range(0, len(batch), size):
        at = np.arange(start, min(start + size, len(batch)))
        trainer.learn(batch.take(at), causes_of(at + offset), np.full(len(at), 0.5, np.float32))


def summary(shards, series=progressive.MODEL, window=progressive.TOTAL):
    sums = shards.sums("metrics")
    return progressive.summary(np.array([sums.get(key, 0) for key in progressive.keys_of(series, window).tolist()]))


def test_fm_learns_interactions_that_lr_cannot():
    batch, auc = films(), {}
    for name in MODELS:
        shards = Shards(learning_rate=0.1)
        shards.dim = MODELS[name].dim(8)
        learn_all(Trainer(MODELS[name](FIELDS), shards.pull, shards.push, l2=1e-3), batch)
        auc[name] = summary(shards, window=11)["auc"]  # the last thousand
    assert auc["fm"] > 0.75 and auc["lr"] < 0.6, auc


def test_counts_and_metrics_are_exact_whatever_is_retried():
    batch = films(900)
    shards = Shards()
    trainer = Trainer(MODELS["fm"](FIELDS), shards.pull, shards.push, l2=1e-3, window_offsets=100, rate=0.1)
    rng = np.random.default_rng(2)
    for start in range(0, 900, 100):
        for _ in range(3):  # a push, and two that overlap with what was pushed before
            low = max(0, start - int(rng.integers(0, 150)))
            at = rng.permutation(np.arange(low, start + 100))
            trainer.learn(batch.take(at), causes_of(at), np.full(len(at), 0.5, np.float32))
    keys, counts = np.unique(batch.keys, return_counts=True)
    assert shards.sums("counts") == dict(zip(keys.tolist(), counts.tolist(), strict=True))
    for series in (progressive.MODEL, progressive.POPULARITY):
        assert summary(shards, series)["samples"] == 900 and summary(shards, series)["positives"] == int(batch.label.sum())
        assert [summary(shards, series, window)["samples"] for window in range(9)] == [100] * 9


def test_a_retry_after_a_crash_between_two_shards_keeps_the_metrics_exact():
    """One shard has the push, the other does not, the parameters have moved on: the retry falls into other bins."""
    batch, shards = films(600), Shards()
    trainer = Trainer(MODELS["fm"](FIELDS), shards.pull, shards.push, l2=0.0)
    at, half = np.arange(300), np.full(300, 0.5, np.float32)
    shards.down = 1
    trainer.learn(batch.take(at), causes_of(at), half)
    shards.down = None
    learn_all(trainer, batch.take(np.arange(300, 600)), offset=300)
    trainer.learn(batch.take(at), causes_of(at), half)
    out = summary(shards)
    assert (out["samples"], out["positives"]) == (600, int(batch.label.sum()))


def test_scores_of_the_exposure_are_what_is_counted_and_a_sample_without_one_is_learnt_alone():
    batch, shards = films(400), Shards()
    trainer = Trainer(MODELS["fm"](FIELDS), shards.pull, shards.push, l2=0.0)
    scores = np.where(batch.label > 0.5, 0.9, 0.1)
    scores[::4] = np.nan
    at = np.arange(400)
    trainer.learn(batch, causes_of(at), np.full(400, 0.5, np.float32), scores)
    for series in (progressive.MODEL, progressive.POPULARITY):
        assert summary(shards, series)["samples"] == 300
    assert summary(shards)["auc"] == 1.0
    keys, counts = np.unique(batch.keys, return_counts=True)
    assert shards.sums("counts") == dict(zip(keys.tolist(), counts.tolist(), strict=True))


def test_of_two_stages_the_first_is_counted_the_second_is_scored_and_together_they_are_calibrated():
    """Every exposure provisional, its final label 512 samples later; what is served meanwhile, beside what learns the labels at once."""
    batch, half, model = films(8192), np.full(8192, 0.5, np.float32), MODELS["fm"](FIELDS)
    early, at_once = Shards(), Shards()
    first, second, whole = (Trainer(model, held.pull, held.push, l2=0.0, rate=0.1) for held in (early, early, at_once))
    provisional = Batch(batch.keys, batch.values, 0 * batch.label, batch.weight, np.full(len(batch), PROVISIONAL, np.uint8))
    final = batch.staged(np.full(len(batch), CONFIRMED, np.uint8))
    scores, served = np.random.default_rng(3).random(len(batch)), np.zeros((2, len(batch)))
    for start in range(0, len(batch) + 512, 32):
        late, at = np.arange(max(start - 512, 0), max(start - 480, 0)), np.arange(start, start + 32)
        if start < len(batch):
            keys, index = unique(batch.take(at))
            for row, held in zip(served, (early, at_once), strict=True):
                row[at] = probability(model.predict(held.pull("fm", "weights", keys)[0], index, batch.values[at]))
            whole.learn(batch.take(at), causes_of(at), half[at])
            first.learn(provisional.take(at), causes_of(at + len(batch)), half[at])  # their own offsets: this double knows no effects
        second.learn(final.take(late), causes_of(late), half[late], scores[late])
    keys, counts = np.unique(batch.keys, return_counts=True)
    assert early.sums("counts") == dict(zip(keys.tolist(), counts.tolist(), strict=True))
    told = summary(early)
    assert (told["samples"], told["positives"]) == (len(batch), int(batch.label.sum()))
    assert told["calibration"] == pytest.approx(scores.sum() / batch.label.sum(), abs=1e-3), "scores are those of the exposures"
    later = slice(4096, None)
    truth = batch.label[later]
    assert served[0, later].mean() == pytest.approx(truth.mean(), rel=0.03)
    loss = [-np.log(np.where(truth > 0, row[later], 1 - row[later])).mean() for row in served]
    assert loss[0] < loss[1] + 0.05, loss


def test_predictions_are_made_before_learning():
    batch, half = films(256), np.full(256, 0.5, np.float32)
    shards = Shards(init_scale=0.0)
    first = Trainer(MODELS["fm"](FIELDS), shards.pull, shards.push, l2=0.0).learn(batch, causes_of(np.arange(256)), half)
    assert first.tolist() == [0.5] * 256
    assert summary(shards)["auc"] == 0.5


@pytest.mark.parametrize("name", MODELS)
def test_a_prediction_knows_the_samples_before_it_and_no_label_from_its_own_on(name):
    batch, half = films(100), np.full(100, 0.5, np.float32)

    def predicted(label):
        shards = Shards(init_scale=0.0)
        shards.dim = MODELS[name].dim(8)
        trainer = Trainer(MODELS[name](FIELDS), shards.pull, shards.push, l2=0.0, rate=0.05)
        return trainer.learn(Batch(batch.keys, batch.values, label, batch.weight), causes_of(np.arange(100)), half)

    label = batch.label.copy()
    label[40] = 1 - label[40]
    one, other = predicted(batch.label), predicted(label)
    assert (one[:41] == other[:41]).all() and (one[41:] != other[41:]).all()  # all have the bias in common


def test_learning_in_turn_makes_the_size_of_a_push_matter_less():
    auc = {}
    for rate in (0.0, 0.1):
        shards = Shards(learning_rate=0.1)
        learn_all(Trainer(MODELS["fm"](FIELDS), shards.pull, shards.push, l2=1e-3, rate=rate), films(3000), size=1500)
        auc[rate] = summary(shards)["auc"]
    assert auc[0.1] > auc[0.0] + 0.05


@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_shuffled_labels_teach_nothing(rate):
    batch = films()
    shuffled = Batch(batch.keys, batch.values, np.random.default_rng(9).permutation(batch.label), batch.weight)
    shards = Shards()
    learn_all(Trainer(MODELS["fm"](FIELDS), shards.pull, shards.push, l2=1e-2, rate=rate), shuffled)
    assert summary(shards)["auc"] == pytest.approx(0.5, abs=0.02)


def test_an_empty_batch_calls_nobody():
    assert len(Trainer(MODELS["fm"](FIELDS), None, None, 0.0).learn(films(0), causes_of([]), np.empty(0, np.float32))) == 0


def absurd(batch, *at):
    """`batch` with finite values at `at` whose products are not; half a label, so that the slope is never 0."""
    values, label = batch.values.copy(), batch.label.copy()
    values[list(at)], label[list(at)] = 3e38, 0.5
    return Batch(batch.keys, values, label, batch.weight)


def test_a_gradient_that_is_not_finite_is_refused_by_cause_and_the_rest_is_learnt():
    batch, shards, refused = absurd(films(200), 3, 77, 199), Shards(), {}
    trainer = Trainer(MODELS["fm"](FIELDS), shards.pull, shards.push, l2=1e-3)
    half = np.full(200, 0.5, np.float32)
    with np.errstate(all="ignore"):
        trainer.learn(batch, causes_of(np.arange(200)), half, refuse=refused.__setitem__)
        assert sorted(refused) == [3, 77, 199] and all("not finite" in why and "3e+38" in why for why in refused.values())
        assert all(applied == set(range(200)) - {3, 77, 199} for applied in shards.applied)
        trainer.learn(batch, causes_of(np.arange(200)), half, refuse=refused.__setitem__)  # a replay
    good = np.setdiff1d(np.arange(200), [3, 77, 199])
    keys, counts = np.unique(batch.keys[good], return_counts=True)
    assert shards.sums("counts") == dict(zip(keys.tolist(), counts.tolist(), strict=True))
    assert summary(shards)["samples"] == 197
    assert all(np.isfinite(row[0]).all() for shard in shards.tables for row in shard.values())


def test_two_samples_that_are_finite_alone_are_both_learnt():
    shards, refused = Shards(), []
    batch = Batch(films(2).keys[[0, 0]], np.full((2, 3), 6e18, np.float32), np.zeros(2, np.float32), np.full(2, 6e19, np.float32))
    trainer = Trainer(MODELS["lr"](FIELDS), lambda model, table, keys: (np.zeros((len(keys), 1), np.float32), 1), shards.push, l2=0.0)
    shards.dim = 1
    with np.errstate(all="ignore"):
        trainer.learn(batch, causes_of([0, 1]), np.full(2, 0.5, np.float32), refuse=lambda *told: refused.append(told))
    assert shards.pushes == 2 and not refused and summary(shards)["samples"] == 2


def test_without_anyone_to_take_it_or_with_a_broken_model_it_is_an_error():
    batch, shards, half = absurd(films(8), 2), Shards(), np.full(8, 0.5, np.float32)
    with np.errstate(all="ignore"), pytest.raises(NotFinite, match=r"1 of 8 samples.*offset 2"):
        Trainer(MODELS["fm"](FIELDS), shards.pull, shards.push, l2=0.0).learn(batch, causes_of(np.arange(8)), half)
    broken = Trainer(MODELS["fm"](FIELDS), lambda model, table, keys: (np.full((len(keys), 9), np.nan, np.float32), 1), shards.push, l2=0.0)
    refused = []
    with pytest.raises(NotFinite, match="8 of 8 samples"):
        broken.learn(films(8), causes_of(np.arange(8)), half, refuse=lambda *told: refused.append(told))
    assert shards.pushes == 0 and refused == []


@pytest.mark.parametrize("times", [1, 3])
def test_a_push_that_is_too_stale_is_computed_anew_from_rows_of_now_and_scored_as_before(times):
    batch, shards, left = films(200), Shards(), [times]
    pulls = []

    def pull(*asked):
        pulls.append(asked[1])
        return shards.pull(*asked)

    def push(*asked):
        if left[0]:
            left[0] -= 1
            raise Stale("rows of long ago")
        return shards.push(*asked)

    trainer = Trainer(MODELS["fm"](FIELDS), pull, push, l2=0.0)
    at, half = np.arange(200), np.full(200, 0.5, np.float32)
    predicted = trainer.learn(batch, causes_of(at), half)
    assert trainer.stale == times and len(pulls) == times + 1
    plain = Shards()
    assert (predicted == Trainer(MODELS["fm"](FIELDS), plain.pull, plain.push, l2=0.0).learn(batch, causes_of(at), half)).all()
    assert shards.sums("counts") == plain.sums("counts") and shards.sums("metrics") == plain.sums("metrics")


def test_a_shard_that_finds_every_push_too_stale_stops_the_job():
    def push(*asked):
        raise Stale("rows of long ago")

    shards = Shards()
    trainer = Trainer(MODELS["fm"](FIELDS), shards.pull, push, l2=0.0)
    with pytest.raises(Stale):
        trainer.learn(films(20), causes_of(np.arange(20)), np.full(20, 0.5, np.float32))
    assert trainer.stale == STALE_MAX
