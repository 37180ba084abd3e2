"""What `headrace verify ps` pushes and expects, against plain Python."""

from collections import Counter

import numpy as np

from headrace.verify.ps import expected
from headrace.verify.ps_trainer import FEATURES, KEYS, Made, Position


def test_what_is_pushed_adds_up_to_what_is_expected_however_it_is_cut():
    made, rng, at = Made(5, 3), np.random.default_rng(1), 0
    total = Counter()
    while at < 3000:
        size = int(rng.integers(1, 400))
        keys, counts = made.push(np.arange(at, at + size))["counts"]
        assert len(np.unique(keys)) == len(keys) and counts.sum() == size * FEATURES
        total.update(dict(zip(keys.tolist(), counts[:, 0].tolist(), strict=True)))
        at += size
    keys, number = expected(made, at)
    assert dict(zip(keys.tolist(), number.tolist(), strict=True)) == total and len(total) > KEYS // 2


def test_a_part_of_a_push_is_what_its_causes_alone_push():
    made = Made(5, 3)
    index = np.array([3, 4, 9])
    whole, part = made.keys(np.arange(100, 120)), made.keys(np.arange(100, 120)[index])
    assert (whole[index] == part).all() and not (Made(6, 3).keys(np.arange(20)) == made.keys(np.arange(20))).all()
    weights = made.push(np.arange(50))["weights"][1]
    assert weights.shape[1] == 3 and weights.dtype == np.float32 and np.isfinite(weights).all()


def test_a_position_outlives_its_process(tmp_path):
    assert Position(tmp_path / "position").read() == 0
    Position(tmp_path / "position").write(77)
    assert Position(tmp_path / "position").read() == 77
