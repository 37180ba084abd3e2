"""A backfill where rows are forgotten when they are idle."""

from tests.features.events import shard_at
from tests.features.test_backfilled import FEW, GENRES, Stream, assert_same, begun, fold, logged, run


def test_idle_rows_begin_anew_as_they_would_have(tmp_path):
    """`idle_s` ends every state of a row, as a time to live of all."""
    records = logged(400, 13)
    for record in records:
        record["context"]["item.genre"] = GENRES[int(record["item_id"][1:]) % 3]
    one, full = begun(tmp_path / "one", records, 250, FEW, idle_s=2400.0), shard_at(tmp_path / "full", feature_set=FEW, idle_s=2400.0)
    fold(full, records)
    fold(one, records[250:320], 250)
    stream = Stream(one, records, 320, step=1)
    run(stream, FEW, idle_s=2400.0)
    fold(one, records[stream.at :], stream.at)
    assert_same(one, full)
    one.close()
    full.close()
