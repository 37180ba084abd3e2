"""The control: labels that belong to other rows cannot be learnt, whatever the pipe does; the same rows with their own labels can.

12,000 rows, of which two thirds are positive: the AUC of a coin has a standard deviation of 0.0056 on them, so 0.02 is 3.6 of it.
"""

import json

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
import pytest

from tests.end_to_end.test_accounts import MAPPING

ROWS = 12_000
SEED = 7


@pytest.fixture
def auc(loop, on_stack, kuairand, tmp_path):
    """auc(name, *options): the progressive AUC of a copy of KuaiRand, whose users, items and event ids are this copy's own."""

    def replayed(name, *options):
        table = pyarrow.parquet.read_table(kuairand).slice(0, ROWS)
        for column in ("user_id", "video_id"):
            at = table.column_names.index(column)
            table = table.set_column(at, column, pc.binary_join_element_wise(name, pc.cast(table[column], pa.string()), "-"))
        file, report = tmp_path / f"{name}.parquet", tmp_path / f"{name}.json"
        pyarrow.parquet.write_table(table, file)
        done = on_stack("replay", str(file), "--mapping", str(MAPPING), "--clock", "now", "--speed", "max", "--report", str(report),
                        *options)
        assert done.returncode == 0, done.stderr
        figures = json.loads(report.read_text())
        assert figures["samples"] == ROWS and figures["samples_applied"] == [ROWS] * 2
        assert figures["positives"] == sum(table["is_click"].to_pylist())
        return figures["auc"]

    return replayed


def test_shuffled_labels_teach_nothing_and_true_ones_do(auc):
    shuffled = auc("shuffled", "--shuffle-labels", str(SEED))
    true = auc("true")
    assert shuffled == pytest.approx(0.5, abs=0.02)
    assert true > 0.65
