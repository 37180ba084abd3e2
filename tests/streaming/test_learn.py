"""Which samples the training stage learns: those of its target, and of these the ones that are chosen; the others are counted."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("pyflink")

from headrace.features.layout import F, K
from headrace.models.choice import Choice
from headrace.streaming.learn import LEFT_OUT
from tests.streaming.test_stages import Counter, learner, sample_columns

__all__ = ["learner"]  # a fixture of theirs


def test_samples_of_other_targets_are_passed_by_and_counted(learner):
    stage, shards = learner
    stage.lesson, stage.others, stage.accidental = replace(stage.lesson, several=True), Counter(), Counter()
    columns = sample_columns([4, 4, 5, 5], [1, 1, 2, 2])
    columns[8][1] = columns[9][1] = columns[10][1] = b""  # its features stayed in the JVM
    frame = stage.eval(*columns, pd.Series(["click", "like", "like", "click"]))
    (_, effect, causes, updates), = shards.pushed
    assert (effect, causes.offset.tolist(), stage.others.count) == ("click", [4, 5], 2) and updates["counts"][1].sum() == 2 * F
    assert frame["user"].tolist() == [True, False, False, True] and frame["item"].tolist() == [True, False, False, False]
    assert not stage.eval(*sample_columns([6], [1]), pd.Series(["like"]))["user"].any() and len(shards.pushed) == 1


@pytest.mark.parametrize("several", [False, True])
def test_clicks_that_count_as_none_are_counted_and_learnt_as_negatives(learner, several):
    stage, shards = learner
    stage.lesson, stage.others, stage.accidental = replace(stage.lesson, several=several, judged=True), Counter(), Counter()
    columns = sample_columns([4, 5, 6], [1, 2, 3])
    columns[5] = pd.Series([0.0, 1.0, 0.0])
    stage.eval(*columns, *[pd.Series(["click", "click", "like"])] * several, pd.Series([True, False, True]))
    assert stage.accidental.count == (1 if several else 2) and shards.pushed[0][2].offset.tolist() == ([4, 5] if several else [4, 5, 6])


def test_what_is_not_learnt_is_counted_scored_and_touches_nobody(learner):
    stage, shards = learner
    stage.lesson, stage.left_out = replace(stage.lesson, choice=Choice(0.01, 3.0)), {name: Counter() for name in LEFT_OUT}
    offsets = range(40)
    columns = sample_columns([*offsets, 0], [*range(100, 140), 100])
    before = [pd.Series([np.full(K, shown, np.float32).tobytes()]) for shown in (2, 3)]
    columns[10] = pd.concat([before[0]] * 8 + [before[1]] * 32 + [before[0]], ignore_index=True)  # the first eight users were shown little
    frame = stage.eval(*columns)
    (_, _, causes, updates), = shards.pushed
    assert len(causes) == 40 and updates["metrics"][1].sum() > 0, "every cause is applied, every sample is scored"
    learnt = updates["counts"][1].sum() / F
    left = {name: one.count for name, one in stage.left_out.items()}
    assert left == {"samples_of_inactive_users": 8, "negatives_left_out": 40 - 8 - learnt} and 16 <= learnt < 20
    assert frame["user"].sum() == learnt and not frame["user"][:8].any() and not frame["user"][40]
    users = set(updates["weights"][0].tolist()) & set(range(100, 140))
    assert len(users) == learnt and users.isdisjoint(range(100, 108))
