"""Tables of commands: as wide as a terminal, or, in a pipe, as their rows."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

WIDE = 1000


def print_table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under their names; what cells hold is text, also when it looks like markup."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*names, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else WIDE, markup=False, highlight=False).print(table)
