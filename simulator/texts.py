"""Short texts in Chinese and English by topic, from the words of vocabulary.toml."""

from __future__ import annotations

import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

if sys.version_info >= (3, 11):
    import tomllib
else:  # CPython 3.10
    import tomli as tomllib

LANGUAGES = ("zh", "en")


@lru_cache(maxsize=1)
def vocabulary() -> dict[str, Any]:
    """{templates: {zh, en}, topics: [{name, zh_name, zh, en}]}."""
    return tomllib.loads((Path(__file__).parent / "vocabulary.toml").read_text(encoding="utf-8"))


def topic_names(count: int) -> list[str]:
    """Names of the first `count` topics, as they stand in tags."""
    names = [topic["name"] for topic in vocabulary()["topics"]]
    assert count <= len(names), f"the vocabulary has {len(names)} topics"
    return names[:count]


def compose(topic: int, language: str, chances: np.ndarray) -> str:
    """A title on topic number `topic`; `chances` float64[3] within 0 and 1 choose the template and the two words."""
    words, templates = vocabulary()["topics"][topic][language], vocabulary()["templates"][language]
    template = templates[int(chances[0] * len(templates))]
    first = int(chances[1] * len(words))
    second = (first + 1 + int(chances[2] * (len(words) - 1))) % len(words)  # never the first again
    return str(template.format(a=words[first], b=words[second]))
