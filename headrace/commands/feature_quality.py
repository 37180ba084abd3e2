"""`headrace features stats`, `freeze`, `unfreeze`, `reference`, `events`: how features do on the live stream, and which models read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.commands import options
from headrace.commands.options import Data, File, Json
from headrace.commands.tables import print_table

if TYPE_CHECKING:
    from headrace.config import Config
    from headrace.features.client import FeatureClient
    from headrace.features.feature_set import FeatureSet

CALL_S, BUSY_S = 5.0, 30.0  # until nobody is there; until one that compiles its kernels, or folds much, has answered
Name = Annotated[str, typer.Argument(metavar="NAME", help="A feature: a definition, a built-in number or slot.")]
Why = Annotated[str, typer.Option("--why", help="For people: kept with the decision.")]
_SHARES, _FIGURES = ("null_rate", "default_rate"), ("min", "p50", "max", "psi", "cardinality", "age_seconds")


class FeaturesAway(Exception):
    """The feature service does not answer; the message says where, and how to start it."""


def stats(as_json: Json = False, file: File = None, data: Data = None) -> None:
    """Of each feature null rate, share of defaults, min, p50, max, PSI, cardinality, age and state, where a watch runs; and what the
    feature service holds."""
    from headrace.watch.feature_figures import read

    settings = options.configured(file, data)
    with service(settings) as client:
        held, masks = client.stats(), client.masks()
    figures, replicas = read(settings.watch.http_port), _replicas(settings)
    if as_json:
        typer.echo(json.dumps({**held, "replicas": replicas, "frozen": masks["frozen"], "features": figures}, indent=2))
        return
    families = held.pop("families", {})
    print_table(["what", "count"], [[name, value if isinstance(value, str) else f"{value:,}"] for name, value in held.items()])
    print_table(["family", "rows", "bytes"], [[name, f"{one['rows']:,}", f"{one['bytes']:,}"] for name, one in sorted(families.items())])
    if replicas:
        print_table(["replica", "sequence"],
                    [[address, "does not answer" if at is None else f"{at:,}"] for address, at in replicas.items()])
    typer.echo()
    if figures is None:
        typer.echo("features are not watched: the watch does not answer (watch.enabled, quality.enabled)")
    else:
        print_table(["feature", *_SHARES, *_FIGURES, "state"], [
            [name, *(_share(one.get(key)) for key in _SHARES), *(_number(one.get(key)) for key in _FIGURES), _state(name, one, masks)]
            for name, one in figures.items()])
    for name, one in masks["frozen"].items():
        typer.echo(f"{name} is frozen to its default since {_time(one['at_ms'])} by {one['by']}: {one['why']}")


def _replicas(settings: Config) -> dict[str, int | None]:
    """How far each replica of the shard has come, by address; None: it does not answer, or copies."""
    from headrace.features.client import FeatureClient
    from headrace.rpc.errors import Unavailable

    found: dict[str, int | None] = {}
    for address in settings.features.replicas:
        client = FeatureClient(address, deadline_s=0.0, timeout_s=CALL_S)
        try:
            found[address] = int(client.stats()["sequence"])
        except Unavailable:
            found[address] = None
        finally:
            client.close()
    return found


def freeze(name: Name, why: Why = "", file: File = None, data: Data = None) -> None:
    """Have every model read NAME as its default, served and learnt, until it is unfrozen. Rows and samples keep what it is."""
    from headrace.features.masks import FREEZE

    changed = _decide(FREEZE, name, why, file, data)
    typer.echo(f"{name} is frozen to its default" if changed else f"{name} was frozen already; `headrace features events` says since when")


def unfreeze(name: Name, why: Why = "", file: File = None, data: Data = None) -> None:
    """Have models read NAME again. A watch that still finds it beyond the same bound leaves it to you."""
    from headrace.features.masks import UNFREEZE

    changed = _decide(UNFREEZE, name, why, file, data)
    typer.echo(f"{name} is read again" if changed else f"{name} was not frozen; `headrace features events` says what was")


def reference(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A feature; without it each.")] = "",
    why: Why = "",
    file: File = None,
    data: Data = None,
) -> None:
    """Take the reference that drift is measured against anew, from now on."""
    from headrace.features.masks import RESET

    settings = options.configured(file, data)
    _decide(RESET, name, why, file, data)
    typer.echo(f"the reference of {name or 'each feature'} is taken anew, over {settings.quality.reference_s:g} s and"
               f" {settings.quality.reference_min:,} exposures at least")


def events(
    last: Annotated[int, typer.Option(min=1, help="So many, the newest.")] = 20,
    as_json: Json = False,
    file: File = None,
    data: Data = None,
) -> None:
    """What was frozen, unfrozen, alarmed of: when, by whom, why."""
    with service(options.configured(file, data)) as client:
        found = client.masks()["events"][-last:]
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for one in found:
        typer.echo(f"{_time(one['at_ms'])}  {one['event']:<8} {one['feature'] or 'each'} by {one['by']}: {one['why']}")
    if not found:
        typer.echo("nothing has happened to a feature")


def _decide(decision: str, name: str, why: str, file: Any, data: Any) -> bool:
    from headrace.versions import PERSON

    with service(options.configured(file, data)) as client:
        return client.decide(decision, name, PERSON, why)


@contextmanager
def service(settings: Config, feature_set: FeatureSet | None = None) -> Iterator[FeatureClient]:
    """A client of the service that the configuration names. Raises FeaturesAway."""
    from headrace.features.client import FeatureClient
    from headrace.features.feature_set import BASE
    from headrace.rpc.errors import Unavailable

    client = FeatureClient(settings.features.address, deadline_s=CALL_S, timeout_s=BUSY_S, feature_set=feature_set or BASE)
    try:
        yield client
    except Unavailable as error:
        raise FeaturesAway(f"the feature service does not answer: {error}; `headrace up` starts one") from None
    finally:
        client.close()


def _state(name: str, one: dict[str, Any], masks: dict[str, Any]) -> str:
    words = ["frozen"] if name in masks["frozen"] else []
    words += [f"broken: {', '.join(one['broken'])}"] if one["broken"] else []
    return "; ".join(words) or "ok"


def _share(number: float | None) -> str:
    return "" if number is None else f"{number:.1%}"


def _number(number: float | None) -> str:
    return "" if number is None else f"{number:.4g}"


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
