"""Whether `samples` is what a join of the whole log says: every exposure's label and actions by cause, and every record of the log in one
account, so that the accounts add up to what was sent.

The log is `interactions` as producers sent it. What the features job drops is dropped here as it does: an event_id among the last 64 of its
user is a retry. What was refused the dead letters say. What is late the log says itself, and the dead letters must say the same. DuckDB
joins the rest (join_statements.py). Strategy `wait` only: under `eager` an action finds what came before it, not the latest by event time.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from headrace.recompute import join_statements as statements
from headrace.recompute.engine import database
from headrace.schemas.reasons import FEATURES, REASONS
from headrace.schemas.targets import QUIET, Noise, Target

EXAMPLES, KNOWN, AHEAD_MS = 5, 64, 1000
HEARTBEAT, IMPRESSION = "heartbeat", "impression"
PASSED = {reason for reason, row in REASONS.items() if FEATURES not in row.seen}  # told by later jobs: the features job had passed them on
Record = Mapping[str, Any]
Place = tuple[int, int]
_EVENT = [("partition", pa.int32()), ("offset", pa.int64()), ("event_id", pa.string()), ("request_id", pa.string()),
          ("scene", pa.string()), ("user_id", pa.string()), ("item_id", pa.string()), ("ts", pa.int64())]
LOG = pa.schema([*_EVENT, ("action", pa.string()), ("value", pa.float64())])
SAMPLES = pa.schema([*_EVENT, ("target", pa.string()), ("label", pa.float64()), ("actions", pa.list_(pa.string())),
                     ("action_ts", pa.int64())])
LETTERS = pa.schema([("partition", pa.int32()), ("offset", pa.int64()), ("reason", pa.string())])


class JoinError(Exception):
    """The log cannot be joined again: what is missing of it, and what to do."""


class Sent(NamedTuple):
    """A record of `interactions`: where it lies, when the broker took it, and what it says, None where nobody can read it."""

    place: Place
    append_ms: int
    record: Record | None


class Rules(NamedTuple):
    """How the samples job joins; the first of `targets` is samples.target. `restarted`: a job was, so that `enriched` may hold copies,
    which come late."""

    source: int
    targets: tuple[Target, ...]
    out_of_orderness_ms: int
    restarted: bool = False
    noise: Noise = QUIET


@dataclass
class Report:
    """`checked` samples of exposures, one a target each. `differing`: how many samples are missing, extra, different or of a late exposure;
    how many actions are unsaid, denied; how many late records no dead letter names, and how many it names that are not late. `accounts`:
    what became of the `sent` records, each in one. `copies`: further samples of a cause and target; `late_copies`: records in time that are
    called late as well, where jobs were restarted."""

    sent: int = 0
    checked: int = 0
    differing: dict[str, int] = field(default_factory=dict)
    accounts: dict[str, int] = field(default_factory=dict)
    copies: int = 0
    late_copies: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def accounted(self) -> int:
        return sum(self.accounts.values())

    @property
    def mismatches(self) -> int:
        return sum(self.differing.values()) + (self.sent != self.accounted)

    def told(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "accounted": self.accounted, "mismatches": self.mismatches}


def join(interactions: Iterable[Sent], samples: Iterable[Record], letters: Iterable[Record], rules: Rules) -> Report:
    """Compare. `interactions` in the order of each partition, whole; `samples` and dead `letters` as they lie there."""
    report = Report()
    reasons: dict[Place, set[str]] = {}
    for one in letters:
        if one["topic"] == "interactions":
            reasons.setdefault((one["partition"], one["offset"]), set()).add(one["reason"])
    log, left = _passed_on(interactions, reasons)
    first: dict[tuple[int, int, int, str], Record] = {}
    for one in samples:
        report.copies += 1
        first.setdefault((one["source"], one["partition"], one["offset"], one["target"]), one)
    report.copies -= len(first)
    foreign = [cause[:3] for cause in first if cause[0] != rules.source]
    rows = [_sample(one) for cause, one in first.items() if cause[0] == rules.source]
    told = [{"partition": place[0], "offset": place[1], "reason": reason} for place, whys in reasons.items() for reason in sorted(whys)]
    db = database({"log": pa.Table.from_pylist(log, LOG), "samples": pa.Table.from_pylist(rows, SAMPLES),
                   "letters": pa.Table.from_pylist(told, LETTERS)})
    try:
        for statement in (statements.placed(rules.out_of_orderness_ms), statements.told(rules.noise.repeated_ms),
                          statements.attributed(rules.targets, rules.noise), statements.expected(rules.targets, rules.noise),
                          statements.compared(), statements.fates(rules.targets[0].name)):
            db.execute(statement)
        _judge(db, report, left, rules)
    finally:
        db.close()
    report.sent = sum(left.values()) + sum(row["action"] != HEARTBEAT for row in log)
    if foreign:
        report.differing["extra"] += len(foreign)
        report.examples.append(f"samples of another source than interactions: {_named(foreign)}")
    return report


def _passed_on(interactions: Iterable[Sent], reasons: Mapping[Place, set[str]]) -> tuple[list[dict[str, Any]], Counter[str]]:
    """(what the features job passed on, as it did; how many it refused, how many were retries, how many nobody can read yet)."""
    known: dict[str, deque[str]] = {}
    passed, left = [], Counter[str]()
    for place, append_ms, record in interactions:
        if reasons.get(place, set()).difference(PASSED):
            left["refused"] += 1
            continue
        if record is None:
            left["open"] += 1
            continue
        row = {"partition": place[0], "offset": place[1], "ts": record["ts_ms"] if record["ts_ms"] <= append_ms + AHEAD_MS else append_ms,
               **{name: record[name] for name in ("event_id", "request_id", "scene", "user_id", "item_id", "action", "value")}}
        if record["action"] != HEARTBEAT:
            last = known.setdefault(record["user_id"], deque(maxlen=KNOWN))
            if record["event_id"] in last:
                left["retries"] += 1
                continue
            last.append(record["event_id"])
        passed.append(row)
    return passed, left


def _sample(one: Record) -> dict[str, Any]:
    return {"partition": one["partition"], "offset": one["offset"], "ts": one["ts_ms"], "target": one["target"], "label": one["label"],
            "actions": sorted(one["actions"].split(",")) if one["actions"] else [], "action_ts": one["action_ts_ms"],
            **{name: one[name] for name in ("event_id", "request_id", "scene", "user_id", "item_id")}}


def _judge(db: Any, report: Report, left: Counter[str], rules: Rules) -> None:
    restarted = rules.restarted
    verdicts = Counter(dict(db.execute(statements.VERDICTS).fetchall()))
    of_first = Counter(dict(db.execute(statements.VERDICTS_OF, [rules.targets[0].name]).fetchall()))  # an exposure is in one account
    fates = Counter(dict(db.execute(statements.FATES).fetchall()))
    late, = db.execute(statements.LATE).fetchone()
    again, = db.execute(statements.AGAIN).fetchone()
    report.checked = verdicts["equal"] + verdicts["different"]
    for verdict, said in (("missing", "has no sample"), ("extra", "no exposure of the log in time"),
                          ("late", "its exposure is late"), ("different", "")):
        report.differing[verdict] = verdicts[verdict]
        for partition, offset, target, found, wanted in db.execute(statements.ROWS, [verdict, EXAMPLES]).fetchall():
            of = f" for {target}" if len(rules.targets) > 1 else ""
            report.examples.append(f"{verdict} sample of {partition}:{offset}{of}: {said or _apart(found, wanted)}")
    for fate, said in (("unsaid", "has no exposure in its window, and no dead letter says so"),
                       ("denied", "has an exposure in its window, and a dead letter says that there is none")):
        report.differing[fate] = fates[fate]
        for partition, offset, action in db.execute(statements.ACTIONS, [fate, EXAMPLES]).fetchall():
            report.examples.append(f"{action} {partition}:{offset} {said}")
    report.late_copies = len(db.execute(statements.UNJUST).fetchall()) if restarted else 0
    unlike = {"late, and not told": statements.UNTOLD, **({} if restarted else {"told late, and in time": statements.UNJUST})}
    if rules.noise.repeated_ms:
        unlike |= {"repeated, and not told": statements.UNTOLD_AGAIN, "told repeated, and is not": statements.UNJUST_AGAIN}
    for name, statement in unlike.items():
        found = db.execute(statement).fetchall()
        report.differing[name] = len(found)
        report.examples += [f"{name}: {action} {partition}:{offset}" for partition, offset, action in found[:EXAMPLES]]
    report.accounts = {
        "samples": sum(of_first[name] for name in ("equal", "different", "extra", "late")), "exposures late": late,
        **({"exposures repeated": again} if rules.noise.repeated_ms else {}), "exposures open": of_first["open"],
        "exposures without a sample": of_first["missing"],
        "actions attributed": fates["attributed"], "actions without exposure": fates["orphan"], "actions late": fates["late"],
        "actions open": fates["open"], "actions in doubt": fates["unsaid"] + fates["denied"],
        "retries": left["retries"], "refused": left["refused"], "not read yet": left["open"]}


def _apart(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    return "; ".join(f"{name} is {value!r}, and the log says {wanted[name]!r}" for name, value in found.items() if value != wanted[name])


def _named(causes: list[tuple[int, int, int]]) -> str:
    return ", ".join(":".join(map(str, cause)) for cause in causes[:EXAMPLES]) + (" ..." if len(causes) > EXAMPLES else "")
