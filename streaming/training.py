"""Tables and INSERTs of a model's training job: `samples` -> learn -> `touched.MODEL`, and under `fast` the same of `provisional`."""

from __future__ import annotations

from headrace.schemas.topics import PROVISIONAL, touched_topic
from headrace.streaming.tables import PLACE, Connection, avro_sink, avro_source

_FEATURES = ["feature_set", "feature_keys", "feature_values", "numbers"]
_PACKED = ("feature_keys", "feature_values", "numbers")
_LIVE = ["model", "score", "strategy"]
_READ = ["source", "partition", "offset", "user_id", "item_id", "ts_ms", "target", "label", "weight", "action_ts_ms", *_FEATURES]


def tables(connection: Connection, model: str, scored: bool = False, fast: bool = False) -> list[str]:
    """With `scored` the model and score of the exposure, and the strategy that made the sample, are read too; with `fast` exposures whose
    label is not final."""
    first = [avro_source(connection, PROVISIONAL, PROVISIONAL, "samples", f"train-{model}-{PROVISIONAL}", only=_READ, place=True)]
    return [avro_source(connection, "samples", "samples", "samples", f"train-{model}", only=_READ + _LIVE * scored,
                        place=True),
            *first * fast,
            avro_sink(connection, "touched", touched_topic(model).name, "touched")]


def inserts(model: str, target: str, scored: bool = False, fast: bool = False, several: bool = False, judged: bool = False) -> list[str]:
    """The INSERTs of the job's statement set; `several`: samples are of other targets too, which the function is told and passes by;
    `judged`: it is told, too, which negatives have a click that counts as none."""
    first = [insert(model, target, source=PROVISIONAL, function=f"learn_{PROVISIONAL}")]
    return [insert(model, target, scored, several=several, judged=judged), *first * fast]


def insert(model: str, target: str, scored: bool = False, source: str = "samples", function: str = "learn", several: bool = False,
           judged: bool = False) -> str:
    """One evaluation of `function` a sample of `source`; the user and the item leave as two rows, each once a batch. Of a sample of another
    target its features stay in the JVM."""
    cause = "`source`, `partition`, `offset`"
    caused = "COALESCE(`action_ts_ms`, `ts_ms`)"
    mine = f"`target` = '{target}'"
    carried = [f"CASE WHEN {mine} THEN `{name}` ELSE CAST(x'' AS BYTES) END" if several and name in _PACKED else f"`{name}`"
               for name in _FEATURES]
    features = ", ".join([*carried, caused, *(f"`{name}`" for name in _LIVE * scored), *["`target`"] * several,
                          *["(`label` < 0.5 AND `action_ts_ms` IS NOT NULL)"] * judged])
    return (f"INSERT INTO touched SELECT t.id, {cause}, t.space, t.id, '{model}', `ts_ms`, `caused_ms` FROM ("
            f"SELECT {cause}, `user_id`, `item_id`, `ts_ms`, {caused} AS `caused_ms`, {function}({PLACE}, {cause},"
            f" `label`, `weight`, {features})"
            f" AS e FROM {source}{'' if several else f' WHERE {mine}'}"
            ") CROSS JOIN UNNEST(ARRAY[ROW('user', `user_id`), ROW('item', `item_id`)]) AS t(space, id)"
            " WHERE (t.space = 'user' AND e.`user`) OR (t.space = 'item' AND e.`item`)")
