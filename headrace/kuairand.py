"""The KuaiRand subset: kuairand_events.parquet with the two context columns that its mapping names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from headrace.movielens import DataError

NAME = "kuairand"
SOURCE = "kuairand_events.parquet"
TERMS = (Path(__file__).parent / "kuairand.txt").read_text(encoding="utf-8")
UTC_OFFSET_H = 8
STEP_MS = 10_000
MAPPING = """# The target is is_click. All other feedback is known only after the exposure and is no feature.
time_unit = "ms"

[columns]
user_id = "user_id"
item_id = "video_id"
ts = "ts_ms"
label = "is_click"
action = "click"

[context]
fields = ["duration", "hour"]
"""


def get(source: Path, to: Path) -> Path:
    """Write NAME.parquet, mapping.toml and TERMS.txt into folder `to` from SOURCE in folder `source`. Raises DataError."""
    try:
        events = pa.parquet.read_table(source / SOURCE)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{source / SOURCE}: {str(error).splitlines()[0]}; --from is the folder that holds it") from None
    missing = {"ts_ms", "user_id", "video_id", "is_click", "duration_ms"} - set(events.column_names)
    if missing:
        raise DataError(f"{source / SOURCE} lacks {', '.join(sorted(missing))}: not the file that this was made for")
    to.mkdir(parents=True, exist_ok=True)
    (to / "TERMS.txt").write_text(TERMS, encoding="utf-8")
    (to / "mapping.toml").write_text(MAPPING, encoding="utf-8")
    path = to / f"{NAME}.parquet"
    part = path.with_suffix(".part")
    pa.parquet.write_table(with_context(events), part, compression="zstd")
    part.replace(path)
    return path


def with_context(events: pa.Table) -> pa.Table:
    """`events` and columns duration (steps of 10 s, null where the length is 0: unknown) and hour (of the day, UTC+8)."""
    length_ms = events["duration_ms"].to_numpy()
    hour = (events["ts_ms"].to_numpy() // 3_600_000 + UTC_OFFSET_H) % 24
    return (events.append_column("duration", pa.array(length_ms // STEP_MS, mask=length_ms == 0))
            .append_column("hour", pa.array(hour.astype(np.int8))))
