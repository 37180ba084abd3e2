"""What models learn in one pass over real logs, in time order, each sample scored before it is learnt; beside Vowpal Wabbit.

Ours learn in pushes of the product's size through the product's trainer and parameter server; Vowpal Wabbit learns row by row, with the
best of a grid of its settings, each figure its own best.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from headrace.bench import quality_data, scores, vowpal
from headrace.bench.quality_data import Log
from headrace.bench.result import Row
from headrace.bench.run import BenchNeeds
from headrace.config import Flink, Model
from headrace.offline import Parameters, learn

SEEDS, SEEDS_QUICK = 3, 1
ROWS_QUICK = 6_000
FTRL_ROWS, FTRL_ROWS_QUICK = 20_000, 2_000
FTRL = {"alpha": 0.1, "beta": 1.0, "l1": 0.1, "l2": 0.1}
Figures = dict[str, tuple[float, float, str]]
"""Learner -> AUC, log-loss, note."""


def measure(quick: bool, data: Path | None = None) -> list[Row]:
    """Rows FIGURE.LEARNER.LOG: auc and logloss (nats) of fm, lr, popularity, vw (ids), vw_same_features, fm_no_counters; logloss of
    lr_ftrl and vw_ftrl, which have equal features and settings. Raises BenchNeeds when there is no log at all."""
    logs, missing = quality_data.logs(data, ROWS_QUICK if quick else None)
    if not logs:
        raise BenchNeeds(f"bench train.quality needs a log: {'; '.join(missing)}")
    rows = [row for log in logs for row in _rows(log, SEEDS_QUICK if quick else SEEDS, FTRL_ROWS_QUICK if quick else FTRL_ROWS)]
    if missing:
        rows[0] = Row(**{**vars(rows[0]), "note": f"{rows[0].note}; {'; '.join(missing)}"})
    return rows


def _rows(log: Log, seeds: int, ftrl_rows: int) -> list[Row]:
    found: Figures = {}
    found["fm"] = _ours(log, Model(name="fm"), seeds)
    found["fm_no_counters"] = _ours(log.only(quality_data.fields()), Model(name="fm"), seeds)
    found["lr"] = _ours(log, Model(name="lr"), 1)
    found["vw"] = _grid(log.only(quality_data.ids()), "")
    found["vw_same_features"] = _grid(log, vowpal.NO_CONSTANT)
    found["popularity"] = _scored(log, log.popularity, "the item's smoothed rate")
    label = log.batch.label
    base = scores.logloss(np.full(len(label), label.mean()), label)
    rows = []
    for name, (auc, loss, note) in found.items():
        peer = "vw" if name == "vw_same_features" else "popularity" if name == "vw" else "vw_same_features"
        auc_of, loss_of = (("chance", 0.5), ("the mean always", base)) if name == "popularity" else (
            (f"auc.{peer}", found[peer][0]), (f"logloss.{peer}", found[peer][1]))
        rows.append(Row(f"auc.{name}.{log.name}", auc, "AUC", *auc_of, note))
        rows.append(Row(f"logloss.{name}.{log.name}", loss, "nats", *loss_of, note))
    return rows + _ftrl(log, ftrl_rows)


def _ours(log: Log, model: Model, seeds: int) -> tuple[float, float, str]:
    batch_rows = Flink().train_batch_rows
    each = [_scored(log, learn(log.parts, Parameters(model), model, batch_rows, seed), "") for seed in range(seeds)]
    auc, loss = np.mean([[auc, loss] for auc, loss, _ in each], axis=0)
    spread = f"; mean of {seeds} seeds, AUC within {np.ptp([auc for auc, *_ in each]):.4f}" if seeds > 1 else ""
    return float(auc), float(loss), f"{len(log.batch):,} rows in pushes of {batch_rows}, defaults{spread}"


def _grid(log: Log, more: str) -> tuple[float, float, str]:
    """Best AUC and best log-loss over the grid."""
    examples = vowpal.lines(log.batch)
    each = {settings: _scored(log, vowpal.progressive(examples, f"{settings} {more}"), "") for settings in vowpal.GRID}
    auc = max(each, key=lambda settings: each[settings][0])
    loss = min(each, key=lambda settings: each[settings][1])
    return each[auc][0], each[loss][1], f"row by row; best of {len(each)}: AUC {auc or 'defaults'}, log-loss {loss or 'defaults'}"


def _ftrl(log: Log, rows_max: int) -> list[Row]:
    """FTRL-Proximal of ours and theirs, a sample a push, on the first rows; a pull of a key's own repeats in a sample sums them here."""
    parts, left = [], rows_max
    for batch, causes, popularity in log.parts:
        at = np.arange(min(left, len(batch)))
        parts.append((batch.take(at), causes.take(at), popularity[at]))
        left -= len(at)
    label, examples = log.batch.label[:rows_max], vowpal.lines(log.batch)[:rows_max]
    settings = f"--ftrl --ftrl_alpha {FTRL['alpha']} --ftrl_beta {FTRL['beta']} --l1 {FTRL['l1']} --l2 {FTRL['l2']} {vowpal.NO_CONSTANT}"
    theirs = scores.logloss(vowpal.progressive(examples, settings), label)
    model = Model(name="lr", optimizer="ftrl", learning_rate=FTRL["alpha"], l2=0.0)
    params = {name: value for name, value in FTRL.items() if name != "alpha"}
    parameters = Parameters(model.model_copy(update={"l2": 0.0}), params)
    ours = scores.logloss(learn(parts, parameters, model, 1), label)
    base = scores.logloss(np.full(len(label), label.mean()), label)
    note = f"first {len(label):,} rows, a sample a push, {', '.join(f'{name} {value}' for name, value in FTRL.items())}"
    return [Row(f"logloss.lr_ftrl.{log.name}", ours, "nats", "logloss.vw_ftrl", theirs, note),
            Row(f"logloss.vw_ftrl.{log.name}", theirs, "nats", "the mean always", base, note)]


def _scored(log: Log, probability: np.ndarray, note: str) -> tuple[float, float, str]:
    return scores.auc(probability, log.batch.label), scores.logloss(probability, log.batch.label), note
