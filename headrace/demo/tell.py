"""The demo's tables: what the effect moved and why, where memory rests, whether the accounts agree."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from rich.table import Table

from headrace.demo.effect import Effect


def effect_table(effect: Effect, titles: dict[str, str]) -> Table:
    """The user's list before and after the clicks, with ranks and scores."""
    passed = f", passed over {len(effect.passed)} of other genres" if effect.passed else ""
    title = f"user {effect.user} clicked {len(effect.clicked)} films of {effect.genre}{passed}; {effect.seconds:.2f} s later"
    table = Table(title=title, title_justify="left")
    for name in ("rank", "before: popular, in this order" if effect.popular else "before", "score", "after", "score ", "moved"):
        table.add_column(name, justify="right" if name.strip() in ("rank", "score", "moved") else "left")
    ranks = {row["item_id"]: rank for rank, row in enumerate(effect.before)}
    for rank in range(max(len(effect.before), len(effect.after))):
        old = effect.before[rank] if rank < len(effect.before) else None
        new = effect.after[rank] if rank < len(effect.after) else None
        place = ranks.get(new["item_id"]) if new else None
        change = "" if new is None else "new" if place is None else f"{place - rank:+d}" if place != rank else "="
        table.add_row(str(rank + 1), _title(old, titles), _score(old), _title(new, titles), _score(new), change)
    return table


def effect_sentence(effect: Effect) -> str:
    """What happened to the films of the genre that were not clicked, and which slots did it."""
    said = (f"{len(effect.scores_before)} other films of {effect.genre}, none of them clicked:"
            f" {_moved(effect.scores_before, effect.scores_after)}")
    if effect.others_before:
        said += f". {len(effect.others_before)} films of other genres beside them: {_moved(effect.others_before, effect.others_after)}"
        apart = _change(effect.scores_before, effect.scores_after) - _change(effect.others_before, effect.others_after)
        places = [_place(*scores) for scores in ((effect.scores_before, effect.others_before), (effect.scores_after, effect.others_after))]
        said += (f". {effect.genre} against the others: {apart:+.2f}, mean place {places[0]:.0f} -> {places[1]:.0f} of the"
                 f" {len(effect.scores_before) + len(effect.others_before)}")
    why = ", ".join(f"{slot} {change:+.3f}" for slot, change, _ in effect.why[:5])
    return f"{said}. Why, for the first film of both lists, by slot (log-odds): {why}" if why else said


def _moved(was: dict[str, float], now: dict[str, float]) -> str:
    """Mean probability, mean change in log-odds, how many rose."""
    rose = sum(now[item] > was[item] for item in was)
    return (f"mean probability {sum(was.values()) / len(was):.4f} -> {sum(now.values()) / len(now):.4f}"
            f" (log-odds {_change(was, now):+.2f}), {rose} of {len(was)} rose")


def _place(mine: dict[str, float], others: dict[str, float]) -> float:
    """Mean place, from 1, of `mine` among all by score."""
    order = sorted([*mine.values(), *others.values()], reverse=True)
    return sum(order.index(score) + 1 for score in mine.values()) / len(mine)


def _change(was: dict[str, float], now: dict[str, float]) -> float:
    """Of the mean log-odds."""
    return sum(_log_odds(now.values())) / len(now) - sum(_log_odds(was.values())) / len(was)


def _log_odds(probabilities: Iterable[float]) -> list[float]:
    return [math.log(max(p, 1e-7) / max(1 - p, 1e-7)) for p in probabilities]


def memory_table(rows: list[dict[str, Any]]) -> Table:
    """Resting memory by process, Python workers with their TaskManager."""
    table = Table("memory by process", "resident MB")
    for row in sorted(rows, key=lambda row: -row["memory_mb"]):
        table.add_row(row["name"], f"{row['memory_mb']:>8,.0f}")
    table.add_row("all", f"{sum(row['memory_mb'] for row in rows):>8,.0f}", style="bold")
    return table


def accounts_table(checks: list[dict[str, Any]]) -> Table:
    """Each account, both sides, and whether they agree."""
    table = Table(title="accounting, counted from outside", title_justify="left")
    for name in ("account", "one side", "other side", "agree"):
        table.add_column(name, justify="right" if "side" in name else "left")
    for check in checks:
        table.add_row(check["account"], f"{check['left']:,}", f"{check['right']:,}", "yes" if check["agree"] else "[red]NO[/]")
    return table


def _title(row: dict[str, Any] | None, titles: dict[str, str]) -> str:
    return "" if row is None else titles.get(row["item_id"], row["item_id"])[:34]


def _score(row: dict[str, Any] | None) -> str:
    return "" if row is None else f"{row['score']:.3f}"
