"""How templates are filled: everything escaped, a forgotten name an error, and the few ways in which numbers are said."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

FOLDER = Path(__file__).parent / "templates"
NONE = "–"


def environment() -> Environment:
    """Templates of templates/, with the filters below."""
    made = Environment(loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {"figure": figure, "count": count, "per_s": per_s, "ms": ms, "signed": signed, "clock": clock, "seconds": seconds,
                     "curve": curve, "words": words}
    return made


def figure(value: float | None, digits: int = 3) -> str:
    return NONE if value is None else f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 3) -> str:
    return NONE if value is None else f"{value:+.{digits}f}".replace("-", "−")


def count(value: float | None) -> str:
    """Whole numbers with thousands apart."""
    return NONE if value is None else f"{value:,.0f}"


def per_s(value: float | None) -> str:
    return NONE if value is None else f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.1f}"


def ms(value: float | None) -> str:
    return NONE if value is None else f"{value:,.0f} ms" if value < 10_000 else f"{value / 1000:,.1f} s"


def seconds(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f} s"


def clock(at_ms: int) -> str:
    """The hour, as this machine's clock shows it."""
    return time.strftime("%H:%M:%S", time.localtime(at_ms / 1000))


def words(text: str) -> Markup:
    """A sentence, escaped, with what stands between backticks as code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def curve(values: Sequence[Any], width: int = 120, height: int = 28) -> str:
    """Points of an SVG polyline from 0 to the largest; "" for fewer than two."""
    there = [float(value) for value in values if value is not None]
    if len(there) < 2:
        return ""
    top = max(there) or 1.0
    return " ".join(f"{i * width / (len(there) - 1):.1f},{height - 1 - value / top * (height - 2):.1f}" for i, value in enumerate(there))
