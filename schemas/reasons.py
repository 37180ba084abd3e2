"""The reviewed table of reason codes: every way in which an event, a message or a sample can be refused, and what to do about it.

A code is what dead letters, verdicts of POST /events and `headrace dead-letters` are keyed by, so it never changes its meaning. Two faults
share a code when the next step is the same. `schemas.errors.Malformed` takes no code that is not in here.
"""

from __future__ import annotations

from dataclasses import dataclass

FEATURES, SAMPLES, TRAIN, VECTORS, INGEST = "features job", "samples job", "train job", "vectors job", "ingest job"
DOOR, COMMAND = "POST /events", "dead-letters resend"
_JOB, _BOTH, _AVRO, _ALL = (FEATURES,), (FEATURES, DOOR), (FEATURES, INGEST), (FEATURES, DOOR, INGEST)


@dataclass(frozen=True)
class Reason:
    """`what` is wrong; `seen`: who says it (jobs by a dead letter, POST /events by a verdict); `then`: the operator's next step.

    `resend`: the same bytes can be good later, once that step is done, and nothing of the event has been folded.
    """

    what: str
    seen: tuple[str, ...]
    then: str
    resend: bool = False


REASONS: dict[str, Reason] = {
    # the message as a whole
    "null_value": Reason("the record has a key and no value", _AVRO,
                         "a log is not compacted: stop the producer that sends tombstones"),
    "empty": Reason("the value has no bytes", _AVRO, "look at the producer's serializer: it gives nothing"),
    "bad_magic": Reason("the first byte is not 00, so this is no Confluent wire format", _AVRO,
                        "give the producer Confluent's Avro serializer, or send JSON to POST /events"),
    "short_header": Reason("fewer than the 5 bytes of a header and one of a datum", _AVRO, "look at the producer's serializer"),
    "oversized": Reason("the event has more bytes than engine.event_bytes_max", _ALL,
                        "raise engine.event_bytes_max, submit the features job again and resend; or send less", True),
    # the writer's schema
    "unknown_schema": Reason("the registry has no schema of this id", _AVRO,
                             "register the producer's schema, or mend the registry that it asks; then resend", True),
    "bad_schema": Reason("the writer's schema is no Avro, recursive, too deep or too large, or has items of no bytes", _AVRO,
                         "use the schema of the registry's interactions-value"),
    "wrong_record": Reason("the writer's schema is of another record", _JOB,
                           "the producer writes to the wrong topic, or names its record otherwise"),
    "unresolvable": Reason("the writer's schema cannot be read as ours: a field without default is missing or of another type", _JOB,
                           "write with the registry's interactions-value; after an upgrade that reads the old schema, resend", True),
    # the datum
    "truncated": Reason("the datum ends within a field", _AVRO, "bytes were lost on the way, or the schema id is not the one written with"),
    "trailing_bytes": Reason("bytes are left after the datum", _AVRO,
                             "the schema id is not the one written with, or records were glued together"),
    "bad_utf8": Reason("a text is not UTF-8", _AVRO, "encode ids and texts as UTF-8 in the producer"),
    "bad_varint": Reason("a number has more than ten bytes, or is padded", _AVRO,
                         "no Avro writer does this: look for damage, or a hand-made encoder"),
    "out_of_range": Reason("a number does not fit its type of 32 or 64 bits", _AVRO,
                           "the schema id is not the one written with, or the writer is hand-made"),
    "bad_length": Reason("a text or bytes of a negative length", _AVRO, "the schema id is not the one written with, or bytes are damaged"),
    "bad_union_index": Reason("a union names a branch that it does not have", _AVRO,
                              "the schema id is not the one written with, or bytes are damaged"),
    "bad_enum_index": Reason("an enum names a symbol that it does not have", _AVRO,
                             "the schema id is not the one written with, or bytes are damaged"),
    "bad_block_count": Reason("a block of an array or a map claims more items than bytes are left, or a size that is not its own", _AVRO,
                              "the schema id is not the one written with, or someone tries to exhaust memory"),
    "bad_boolean": Reason("a boolean is neither 0 nor 1", _AVRO, "the schema id is not the one written with, or bytes are damaged"),
    "duplicate_key": Reason("a map names a key twice, and only one of the two values could be kept", _AVRO, "mend the writer's map"),
    "not_finite": Reason("a number is NaN or infinite, in a field or within the features of an exposure", _AVRO,
                         "mend the producer's arithmetic; leave the field out when there is no value"),
    # what the event says
    "empty_id": Reason("user_id, item_id or a given event_id is empty", _ALL, "send ids; an event without a user teaches nothing"),
    "long_id": Reason("an id or the scene has more than 256 bytes", _ALL, "send ids and not texts; hash what is longer"),
    "control_character": Reason("an id, the scene or the action holds a control character: it only looks like the one that is meant", _ALL,
                                "strip line ends and NULs in the producer"),
    "bad_action": Reason("the action is empty, longer than 64 bytes, holds a comma, or is the engine's own heartbeat", _ALL,
                         "send a plain name; of an ingest name the event in [events]"),
    "bad_value": Reason("the value is no finite number that 32 bits can hold", _BOTH,
                        "send a strength such as a rating or seconds of dwell"),
    "bad_position": Reason("the position is negative or no whole number", _BOTH, "count from 0, or leave it out"),
    "bad_ts": Reason("ts_ms is not milliseconds between 1990 and 2100; the detail says when it looks like another unit", _ALL,
                     "send milliseconds since 1970 UTC"),
    "bad_context": Reason("context has more than 64 entries, one above 1 KiB, one without a name or with = in its name", _ALL,
                          "send less, or rename"),
    "bad_exposure": Reason("the lengths of feature_keys, feature_values and numbers disagree, or features have no feature_set", _JOB,
                           "send features as /recommend wrote them, or none"),
    "bad_score": Reason("the score of an exposure is no probability", _JOB, "send the probability of 0 to 1, not a logit"),
    "foreign_features": Reason("an exposure was served with a feature set that this stack does not fold", _JOB,
                               "serve and fold one feature set; when the stack has been brought to that set, resend", True),
    "feature_width": Reason("the features of an exposure have another width than their feature set", _JOB,
                            "the feature set's name is wrong or its layout was changed without a new version"),
    "wrong_key": Reason("the record's key is not its user_id, so the order of a user's events is lost", _JOB,
                        "key by user_id in plain UTF-8; resend keys anew", True),
    # JSON at the door
    "bad_type": Reason("a field has another type than it must, or the record is no object", (DOOR, INGEST),
                       "the engine's /docs says what an event is; of an ingest the mapping names another field than is meant"),
    "unknown_field": Reason("the JSON event has a field that no event has", (DOOR,), "the verdict names the nearest one"),
    "missing_field": Reason("user_id, item_id, the time or the action is missing or null", (DOOR, INGEST),
                            "send it; of an ingest look whether the mapping names the field as the record does"),
    "undelivered": Reason("Kafka did not take the event in time", (DOOR,), "send it again with the same event_id; look at the broker"),
    # what others write into a topic that is ingested
    "not_json": Reason("the value is no JSON", (INGEST,),
                       "look at what the producer writes: the mapping's format is another, or it writes NaN, which JSON has not"),
    "bad_envelope": Reason("the record is no change as Debezium tells it: no op that it knows, or no row after it", (INGEST,),
                           "a row flattened by Debezium (ExtractNewRecordState) is of format json or avro"),
    # what the jobs find
    "late": Reason("the event came too far behind its partition: an exposure would be a wrong negative", (SAMPLES,),
                   "mend the producer's clock or lag, or raise samples.out_of_orderness_ms; its features are folded, so nothing is resent"),
    "no_exposure": Reason("an action without an exposure in its window", (SAMPLES,),
                          "the impression of the same user and item comes before its action and at most samples.window_ms (1 s "
                          "by default) earlier: send it, or raise samples.window_ms to the time your users take; the action's "
                          "features are folded, so do not resend it"),
    "repeated_exposure": Reason("no fault: an exposure soon after another of its user and item, which samples.noise leaves out", (SAMPLES,),
                                "nothing; clicks on it count for the one before. samples.noise.repeated_exposure_ms sets how soon"),
    "foreign_sample": Reason("a sample carries another feature set than the train job learns on", (TRAIN,),
                             "samples of before an upgrade: start the train job behind them, or replay the log"),
    "bad_sample": Reason("a sample's features have another width, or a number in it is not finite", (TRAIN,),
                         "look at who else writes to samples: our jobs do not make such"),
    "non_finite_gradient": Reason("the gradient of this sample alone is not finite", (TRAIN,),
                                  "look at its feature values for absurd sizes; the rest of its push was learnt"),
    "poison": Reason("the worker died three times, or failed, at this event and at no other", _AVRO,
                     "read the detail and the TaskManager's log, mend what it names, then resend", True),
    "poison_sample": Reason("the worker died three times, or failed, at the sample of this event and at no other", (TRAIN,),
                            "read the detail and the TaskManager's log; the event is folded, its sample is left out"),
    "poison_touch": Reason("the worker died three times, or failed, at the vector of one id and of no other", (VECTORS,),
                           "read the detail and the TaskManager's log; the id's next touch is tried again"),
    "resent": Reason("no fault: this record was sent again by `headrace dead-letters resend`", (COMMAND,),
                     "nothing; the detail says under which offset"),
}


def table() -> str:
    """The table in Markdown, as docs/dead-letters.md holds it (a test compares)."""
    rows = [f"| `{code}` | {entry.what} | {', '.join(entry.seen)} | {entry.then} | {'yes' if entry.resend else ''} |"
            for code, entry in REASONS.items()]
    return "\n".join(["| reason | what is wrong | said by | what to do next | resend |", "| --- | --- | --- | --- | --- |", *rows])
