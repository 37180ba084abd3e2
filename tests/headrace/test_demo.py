"""The demo's parts without a stack: the curve's bars and figures, the effect against a front in memory, accounts that disagree."""

from __future__ import annotations

import io
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from rich.console import Console

from headrace.config import Config
from headrace.demo import accounts as accounting
from headrace.demo import effect as effect_of
from headrace.demo import run as demo
from headrace.demo.accounts import accounts, by_cause
from headrace.demo.curve import Curve, rows_of, spark
from headrace.demo.effect import clicks, measure, moved_by_slot
from headrace.demo.tell import accounts_table, effect_sentence, effect_table, memory_table
from headrace.features.layout import F, K
from headrace.models import progressive
from headrace.models.choice import Choice
from headrace.replay import Sent
from headrace.rows import Rows
from headrace.taps import Mark, Taps


def test_bars_run_from_low_to_high_and_stay_inside():
    assert spark([0.5, 0.65, 0.8]) == "▁▅█"
    assert spark([0.0, 1.0, None]) == "▁█"
    assert spark([]) == ""
    long = spark([0.5] * 100 + [0.8] * 100, width=10)
    assert long == "▁" * 5 + "█" * 5


class World:
    """Taps on numbers: two shards, one partition a topic, samples as a list."""

    def __init__(self) -> None:
        self.grown = {"interactions": 0, "enriched": 0, "samples": 0, "dead-letters": 0}
        self.samples: list[dict] = []
        self.applied = [0, 0]
        self.metrics: dict[int, int] = {}

    def taps(self) -> Taps:
        def stats() -> list[dict]:
            return [{"models": {"fm": {"applied": count, "tables": {"weights": {"rows": 3}, "counts": {"rows": 2}}}}, "duplicates": 0}
                    for count in self.applied]

        return Taps(
            model="fm", window_offsets=4, highs=lambda topic: {0: self.grown[topic]},
            read=lambda topic, start, stop: iter(self.samples[start.get(0, 0) : stop[0]]), stats=stats, retries=lambda: 0,
            counts=lambda keys: np.array([self.metrics.get(int(key), 0) for key in keys], np.int64))

    def learn(self, scores: list[float], labels: list[float]) -> None:
        windows = np.zeros(len(scores), np.int64)
        for series in (progressive.MODEL, progressive.POPULARITY):
            probabilities = np.array(scores if series == progressive.MODEL else [0.5] * len(scores), np.float32)
            keys, counts = progressive.increments(series, windows, probabilities, np.array(labels, np.float32))
            for key, count in zip(keys.tolist(), counts.tolist(), strict=True):
                self.metrics[key] = self.metrics.get(key, 0) + count
        self.applied = [count + len(scores) for count in self.applied]


def test_a_look_at_the_curve_is_a_difference_to_the_mark_and_to_the_look_before():
    world, clock = World(), iter([0.0, 2.0, 4.0])
    world.learn([0.1], [1.0])  # of an earlier life, and wrong
    curve = Curve(world.taps(), Mark.of(world.taps()), 4, clock=lambda: next(clock))
    world.learn([0.9, 0.2], [1.0, 0.0])
    world.grown |= {"enriched": 10, "samples": 2}
    first = curve.look(Sent(rows=4, impressions=4))
    assert (first.seconds, first.applied, first.samples, first.lag, first.ps_rows) == (2.0, 2, 2, 2, 10)
    assert (first.events_per_s, first.samples_per_s, first.auc, first.auc_popularity) == (5.0, 1.0, 1.0, 0.5)
    world.applied = [7, 5]  # of which one was there before: the slowest shard counts
    assert curve.look(Sent(rows=4, impressions=4)).lag == 0
    assert " 4 learnt" in curve.line() and "AUC 1.000 (popularity 0.500)" in curve.line()
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(curve.text())
    shown = console.export_text()
    assert "4/4" in shown and "██" in shown


def test_a_curve_before_the_first_sample_has_no_figures():
    curve = Curve(World().taps(), Mark.of(World().taps()), 4)
    point = curve.look(Sent())
    assert point.auc is None and point.lag == 0 and "AUC   -   (popularity   -  )" in curve.line()
    assert rows_of({}) == 0


class Front:
    """An engine in memory: each learnt click lifts every item by `lift`, which shows once the replica has folded it, `lag` calls of score
    after training has applied it. Meanwhile every score falls a little with time, as features age."""

    def __init__(self, lift: float = 0.02, lag: int = 2) -> None:
        self.lift, self.lag = lift, lag
        self.emitted: list[dict] = []
        self.asked = self.asked_after = 0
        self.learnt = 0

    def applied(self) -> int:
        """One sample more at each look, as far as clicks were sent."""
        self.learnt = min(self.learnt + 1, sum(event["action"] == "impression" for event in self.emitted))
        return self.learnt

    def _score(self, item: str) -> float:
        lifted = self.lift * self.learnt if self.asked_after > self.lag else 0.0
        return 0.3 + int(item.removeprefix("i")) / 1000 - self.asked / 1e6 + lifted

    def score(self, user: str, items: list[str]) -> dict:
        self.asked += 1
        self.asked_after += self.learnt >= 5
        moved = self.asked_after > self.lag
        return {"items": [{"item_id": item, "score": self._score(item)} for item in items], "weights": {"sequence": 8 if moved else 7}}

    def recommend(self, user: str, n: int = 10, **more) -> dict:
        assert more == {"preview": True, "explain": True}  # the demo looks, and leaves no impressions
        slots = [{"slot": "user_id", "name": "user_id=1", "linear": self.learnt * 0.1, "pairs": 0.0},
                 {"slot": "bias", "name": None, "linear": 0.5, "pairs": 0.0}]
        seen = {event["item_id"] for event in self.emitted}
        items = [f"i{place}" for place in range(40) if f"i{place}" not in seen][:n]
        return {"items": [{"item_id": item, "score": self._score(item), "explain": {"slots": slots}} for item in items]}

    def emit(self, events: list[dict]) -> dict:
        self.emitted += events
        return {"accepted": len(events)}


GENRE = [f"i{n}" for n in range(30)]


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(effect_of, "CLICKED", 5)
    monkeypatch.setattr(effect_of, "PASSED", 3)


def test_the_effect_compares_items_that_were_not_clicked_once_the_clicks_are_learnt_and_served():
    front = Front()
    effect = measure(front, "u", "Drama", GENRE, {"i0", "i2"}, front.applied)
    assert effect.clicked == ["i1", "i3", "i4", "i5", "i6"]
    assert list(effect.scores_before) == list(effect.scores_after) == [f"i{n}" for n in range(7, 30)]
    sent = [(event["item_id"], event["action"]) for event in front.emitted[:3]]
    assert sent == [("i1", "impression"), ("i1", "click"), ("i3", "impression")]
    assert len({event["event_id"] for event in front.emitted}) == 10
    assert effect.rose and effect.rise == pytest.approx(0.1, abs=1e-4)
    assert effect.why[0] == ("user_id=1", pytest.approx(0.5), pytest.approx(0.5)) and effect.why[1][:2] == ("bias", 0.0)
    assert "23 other films of Drama, none of them clicked" in effect_sentence(effect) and "23 of 23 rose" in effect_sentence(effect)
    assert "other genres" not in effect_sentence(effect)
    table = effect_table(effect, {"i0": "Casablanca"})
    assert table.row_count == 10 and "Casablanca" in list(table.columns[1].cells)
    assert "new" in list(table.columns[-1].cells)


def test_items_of_other_genres_stand_beside_as_a_measure():
    front = Front()
    effect = measure(front, "u", "Drama", GENRE, {"i0", "i31"}, front.applied, others=[f"i{n}" for n in range(30, 40)])
    assert effect.passed == ["i30", "i32", "i33"]
    assert list(effect.others_before) == list(effect.others_after) == [f"i{n}" for n in range(34, 40)]
    sent = [(event["item_id"], event["action"]) for event in front.emitted]
    assert sent[:3] == [("i1", "impression"), ("i1", "click"), ("i30", "impression")]
    assert sent[3:6] == [("i2", "impression"), ("i2", "click"), ("i32", "impression")]
    assert len(sent) == 13 and len({event["event_id"] for event in front.emitted}) == 13
    assert "6 films of other genres beside them: " in effect_sentence(effect) and "(log-odds +" in effect_sentence(effect)
    assert "Drama against the others: " in effect_sentence(effect) and "of the 30" in effect_sentence(effect)
    assert "clicked 5 films of Drama, passed over 3 of other genres" in str(effect_table(effect, {}).title)


def test_the_others_are_of_no_film_that_has_the_genre_too():
    films = demo.Films({}, {"Drama": ["a", "b"], "War": ["b", "c", "d"], "Noir": ["e"]}, {})
    assert films.without("Drama") == ["e", "c", "d"] and films.without("War") == ["a", "e"]


def test_scores_that_fall_are_no_rise():
    front = Front(lift=-0.01)
    assert not measure(front, "u", "Drama", GENRE, set(), front.applied).rose


def test_clicks_that_are_not_learnt_are_named():
    front = Front()
    with pytest.raises(TimeoutError, match="training has not applied the clicks of user u within 0 s"):
        measure(front, "u", "Drama", GENRE, set(), lambda: 0, deadline_s=0.05)


def test_lists_without_a_common_item_explain_nothing():
    assert moved_by_slot([{"item_id": "a", "explain": {"slots": []}}], [{"item_id": "b", "explain": {"slots": []}}]) == []
    assert [event["action"] for event in clicks("u", ["a"], "x")] == ["impression", "click"]


LABELS = [True, False, True]


def file_rows() -> Rows:
    text = pa.array(["1", "2", "3"])
    return Rows("0123abcd", "click", np.arange(3), np.arange(3) + 10**12, np.array(LABELS), text, text, {})


def learnt(world: World, labels: list[bool], extra: int = 0) -> None:
    """Samples of the file's rows under `labels`, each twice, as Flink may; `extra` positives that are not the file's."""
    made = [{"source": 1, "partition": 0, "offset": n, "event_id": f"0123abcd-{n}-i", "label": float(label)}
            for n, label in enumerate(labels)]
    made += [{"source": 1, "partition": 0, "offset": 9 + n, "event_id": f"demo-u-{n}", "label": 1.0} for n in range(extra)]
    world.samples = [sample for sample in made for _ in range(2)]
    world.grown["samples"] = len(world.samples)
    world.applied = [len(made)] * 2


def report(**more) -> dict:
    return {"interactions_sent": 5, "interactions_decoded": 5, "dead_letters": 0, "impressions": 3, "samples": 3, "samples_applied": [3, 3],
            **more}


@pytest.fixture
def counted(monkeypatch):
    """What the two shards' integer tables sum to; the export itself is tested with a stack."""
    sums = {"a": 2 * F, "b": F}
    monkeypatch.setattr(accounting, "counts_sum", lambda address, model: sums[address])
    return sums


def test_accounts_that_agree(counted):
    world = World()
    mark = Mark.of(world.taps())
    learnt(world, LABELS)
    checks = accounts(report(), file_rows(), 0, world.taps(), mark, ["a", "b"])
    assert len(checks) == 7 and all(check["agree"] for check in checks)
    learnt(world, LABELS, extra=2)
    counted["a"] += 2 * F
    more = report(interactions_sent=9, interactions_decoded=9, impressions=5, samples=5, samples_applied=[5, 5])
    assert all(check["agree"] for check in accounts(more, file_rows(), 2, world.taps(), mark, ["a", "b"]))
    assert accounts_table(checks).row_count == 7
    assert memory_table([{"name": "kafka", "memory_mb": 300}, {"name": "ps-0", "memory_mb": 200}]).row_count == 3


def test_the_counts_are_of_the_samples_that_are_learnt(counted):
    world, choice = World(), Choice(kept=1e-9)
    mark = Mark.of(world.taps())
    learnt(world, LABELS)
    world.samples = [{**one, "weight": 1.0, "numbers": np.zeros(K, "<f4").tobytes()} for one in world.samples]
    positives = sum(LABELS)
    counted |= {"a": positives * F, "b": 0}
    checks = accounts(report(), file_rows(), 0, world.taps(), mark, ["a", "b"], choice)
    assert positives < len(LABELS) and all(check["agree"] for check in checks), checks
    assert any("samples learnt x slots" in check["account"] for check in checks)
    counted["b"] = F
    assert not all(check["agree"] for check in accounts(report(), file_rows(), 0, world.taps(), mark, ["a", "b"], choice))


@pytest.mark.parametrize(("labels", "more", "sums", "account"), [
    (LABELS, {"interactions_sent": 6}, {}, "interactions sent"),
    (LABELS, {"samples": 2}, {}, "impressions = samples"),
    ([True, True, True], {}, {}, "positives in samples"),
    ([True, True, False], {}, {}, "samples whose label differs"),
    (LABELS, {}, {"a": 2 * F + 1}, "sum of the parameter server's counts"),
    (LABELS, {"samples_applied": [3, 4]}, {}, "samples applied by shard 1"),
])
def test_each_account_can_disagree(counted, labels, more, sums, account):
    world = World()
    mark = Mark.of(world.taps())
    learnt(world, labels)
    counted |= sums
    checks = accounts(report(**more), file_rows(), 0, world.taps(), mark, ["a", "b"])
    assert account in " ".join(check["account"] for check in checks if not check["agree"])


def test_labels_that_changed_places_are_seen_though_their_number_is_right():
    world = World()
    mark = Mark.of(world.taps())
    learnt(world, [False, True, True])
    assert by_cause(world.taps(), mark, file_rows()) == (2, 2, 0)


def test_accounts_that_disagree_fail_the_demo_with_both_sides(monkeypatch, tmp_path):
    """The whole of demo.run but the stack, the jobs and the replay."""
    @contextmanager
    def there(*_):
        yield SimpleNamespace(stack=Config().stack, engine=Config().engine, ps=Config().ps, watch=Config().watch, samples=Config().samples)

    told = []
    checks = [{"account": "samples", "left": 99_999, "right": 100_000, "agree": False},
              {"account": "other", "left": 1, "right": 1, "agree": True}]
    monkeypatch.setattr(demo, "own_stack", there)
    monkeypatch.setattr(demo, "live_taps", lambda config: there())
    monkeypatch.setattr(demo.submission, "submit", lambda config, names: told.append(names))
    monkeypatch.setattr(demo.movielens, "get", lambda folder: (tmp_path / "m.parquet", True))
    monkeypatch.setattr(demo, "load", lambda file, mapping: file_rows())
    monkeypatch.setattr(demo.mapping, "load", lambda file: None)
    monkeypatch.setattr(demo, "processes", lambda data: [])
    monkeypatch.setattr(demo.Films, "of", classmethod(lambda cls, file: None))
    monkeypatch.setattr(demo.Mark, "of", classmethod(lambda cls, taps: None))
    ran = SimpleNamespace(run=lambda file: {}, effect=None, mark=None, curve=SimpleNamespace(points=[]))
    monkeypatch.setattr(demo, "Demo", lambda *_: ran)
    monkeypatch.setattr(demo, "accounts", lambda *_: checks)
    monkeypatch.setattr(demo, "_tell", lambda *_: None)
    console = Console(file=io.StringIO())
    with pytest.raises(demo.DemoFailed, match=r"^samples: 99999 against 100000$"):
        demo.run(tmp_path / "demo", console)
    assert told == [demo.JOBS]
    checks[0]["agree"] = True
    assert demo.run(tmp_path / "demo", console)["accounts"] == checks


def test_films_are_by_genre_most_rated_first(tmp_path):
    file = tmp_path / "films.parquet"
    pyarrow.parquet.write_table(pa.table({
        "user_id": ["1", "1", "2"], "item_id": ["a", "b", "b"], "title": ["A", "B", "B"],
        "genre": ["Drama", "Drama|War", "Drama|War"]}), file)
    films = demo.Films.of(file)
    assert films.by_genre == {"Drama": ["b", "a"], "War": ["b"]}
    assert films.seen == {"1": {"a", "b"}, "2": {"b"}} and films.titles == {"a": "A", "b": "B"}
