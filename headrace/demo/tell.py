"""The demo's tables: what the effect moved and why, where memory rests, whether the accounts agree."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from headrace.demo.effect import Effect


def effect_table(effect: Effect, titles: dict[str, str]) -> Table:
    """The user's list before and after the clicks, with ranks and scores."""
    table = Table(title=f"user {effect.user} clicked 5 films of {effect.genre}; {effect.seconds:.2f} s later", title_justify="left")
    for name in ("rank", "before", "score", "after", "score ", "moved"):
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
    rows = effect.scores_before
    rose = sum(effect.scores_after[item] > effect.scores_before[item] for item in rows)
    said = (f"{len(rows)} other films of {effect.genre}, none of them clicked: mean probability "
            f"{sum(rows.values()) / len(rows):.4f} -> {sum(effect.scores_after.values()) / len(rows):.4f}, {rose} of {len(rows)} rose")
    if effect.others_before:
        was, now = effect.others_before, effect.others_after
        mean = [sum(one.values()) / len(one) for one in (was, now)]
        said += (f". {len(was)} films of other genres beside them: {mean[0]:.4f} -> {mean[1]:.4f},"
                 f" {sum(now[item] > was[item] for item in was)} rose")
    why = ", ".join(f"{slot} {change:+.3f}" for slot, change, _ in effect.why[:5])
    return f"{said}. Why, for the first film of both lists, by slot (log-odds): {why}" if why else said


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
