"""Scoring at the exposure: what an engine would have answered, and no waiting for a replica that is away."""

import numpy as np
import pytest

pytest.importorskip("pyflink")

from headrace.features.layout import SIDE, SLOTS, F, K
from headrace.models.batch import unique_keys
from headrace.models.catalog import MODELS
from headrace.models.fields import fields_of
from headrace.models.fm import probability
from headrace.streaming import scoring
from headrace.streaming.scoring import Scorer, Scoring
from tests.ps.worlds import served

KEYS = np.arange(2 * F, dtype=np.uint64).reshape(2, F) % 40
VALUES = np.random.default_rng(3).normal(size=(2, F)).astype(np.float32)


def weights(keys):
    """A row of 1 + 2 floats a key."""
    wave = keys.astype(np.float64)
    return np.stack([wave / 100, np.sin(wave), np.cos(wave)], axis=1).astype(np.float32)

NUMBERS = np.zeros((len(KEYS), K), np.float32)


def test_scores_are_the_models_on_the_rows_served():
    def pull(header, arrays):
        assert (header["model"], header["table"]) == ("fm", "weights")
        return {"sequence": 41, "age_ms": 3}, {"values": weights(arrays["keys"])}

    with served({"pull": pull}) as (server, _):
        scorer = Scorer(Scoring((f"127.0.0.1:{server.port}",), "fm"))
        score, sequence = scorer.score(KEYS, VALUES, NUMBERS)
        assert scorer.score(KEYS[:0], VALUES[:0], NUMBERS[:0]) is None
        scorer.close()
    keys, index = unique_keys(KEYS)
    np.testing.assert_array_equal(score, probability(MODELS["fm"](fields_of(SLOTS, SIDE)).predict(weights(keys), index, VALUES)))
    assert sequence == 41 and score[0] != score[1]


def test_a_replica_that_is_away_is_asked_once_in_a_while(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(scoring.time, "monotonic", lambda: now[0])
    scorer = Scorer(Scoring(("127.0.0.1:1",), "fm"))
    assert [scorer.score(KEYS, VALUES, NUMBERS) for _ in range(5)] == [None] * 5
    assert scorer.failures == 1
    now[0] += scoring.PAUSE_S
    assert scorer.score(KEYS, VALUES, NUMBERS) is None and scorer.failures == 2
    scorer.close()
