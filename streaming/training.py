"""Tables and the INSERT of a model's training job: `samples` -> learn -> `touched.MODEL`."""

from __future__ import annotations

from headrace.schemas.topics import touched_topic
from headrace.streaming.tables import PLACE, Connection, avro_sink, avro_source

_FEATURES = ["feature_set", "feature_keys", "feature_values", "numbers"]
_SCORE = ["model", "score"]
_READ = ["source", "partition", "offset", "user_id", "item_id", "ts_ms", "target", "label", "weight", "action_ts_ms", *_FEATURES]


def tables(connection: Connection, model: str, scored: bool = False) -> list[str]:
    """With `scored` the model and score of the exposure are read too."""
    return [avro_source(connection, "samples", "samples", "samples", f"train-{model}", only=_READ + _SCORE * scored,
                        place=True),
            avro_sink(connection, "touched", touched_topic(model).name, "touched")]


def insert(model: str, target: str, scored: bool = False) -> str:
    """One evaluation of `learn` a sample; the user and the item leave as two rows, each once a batch."""
    cause = "`source`, `partition`, `offset`"
    caused = "COALESCE(`action_ts_ms`, `ts_ms`)"
    features = ", ".join([*(f"`{name}`" for name in _FEATURES), caused, *(f"`{name}`" for name in _SCORE * scored)])
    return (f"INSERT INTO touched SELECT t.id, {cause}, t.space, t.id, '{model}', `ts_ms`, `caused_ms` FROM ("
            f"SELECT {cause}, `user_id`, `item_id`, `ts_ms`, {caused} AS `caused_ms`, learn({PLACE}, {cause},"
            f" `label`, `weight`, {features})"
            f" AS e FROM samples WHERE `target` = '{target}'"
            ") CROSS JOIN UNNEST(ARRAY[ROW('user', `user_id`), ROW('item', `item_id`)]) AS t(space, id)"
            " WHERE (t.space = 'user' AND e.`user`) OR (t.space = 'item' AND e.`item`)")
