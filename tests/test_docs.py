"""What the pages say can be typed: every `headrace` line of README and docs/ names a command and options that there are, every file it
points to is there, and the examples' TOML is a configuration."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
import typer.main

from headrace import cli, config

TOP = Path(__file__).parent.parent
PAGES = sorted([TOP / "README.md", *(TOP / "docs").glob("*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(headrace [a-z][^`]*)`")
PLACEHOLDER = re.compile(r"^[A-Z][A-Z_0-9.]*$|^\[|^\.\.\.|^\(|\||\]$|…")


def fences(page: Path, *kinds: str) -> list[str]:
    return [body for kind, body in FENCE.findall(page.read_text()) if kind in kinds]


def commands(page: Path) -> list[str]:
    """Every command line of ours on a page, in blocks and within the text."""
    found = []
    for body in fences(page, "", "bash", "sh", "console"):
        for line in body.replace("\\\n", " ").splitlines():
            inside = re.search(r"(?:^|[\s$(|;])(?<!from )(headrace [a-z].*)", line.split(" #")[0])
            if inside and not line.startswith(" "):
                found.append(inside.group(1))
    text = FENCE.sub("", page.read_text())
    return found + [line.replace("\n", " ") for line in INLINE.findall(text)]


def words_of(line: str) -> list[str]:
    """The words that are typed; what a page leaves to the reader ([...], A|B) is left out."""
    line = re.split(r"\s[|>]\s|\s>\S|;|&&|\)\"|\s2>", re.sub(r"\[[^\]]*\]", "", line))[0].rstrip(')"')
    return [word for word in shlex.split(line, posix=False) if word not in ("...", "\\")]


def parsed(words: list[str]) -> None:
    """Raises click.UsageError for a command or an option that is not there. Values are not judged: many stand for the reader's own."""
    name = words[1]
    app = typer.main.get_command(cli._app(name))
    command: click.Command = app
    rest = words[1:]
    while isinstance(command, click.Group) or hasattr(command, "commands"):
        if not rest or rest[0].startswith("-"):
            break
        inner = command.commands.get(rest[0])  # type: ignore[attr-defined]
        assert inner is not None, f"no command {rest[0]!r} in {' '.join(words)}"
        command, rest = inner, rest[1:]
    known = {option for parameter in command.params for option in [*parameter.opts, *parameter.secondary_opts]} | {"--help", "--debug"}
    for word in rest:
        if word.startswith("--"):
            assert word.split("=")[0] in known, f"no option {word} in {' '.join(words)}; there are {sorted(known)}"


CASES = [(page, line) for page in PAGES for line in commands(page)]


@pytest.mark.parametrize(("page", "line"), CASES, ids=[f"{page.name}:{line[:60]}" for page, line in CASES])
def test_a_command_is_there_with_its_options(page, line):
    words = words_of(line)
    if len(words) < 2 or PLACEHOLDER.match(words[1]):
        return
    assert words[1] in cli.COMMANDS, f"{page.name}: there is no `headrace {words[1]}`"
    parsed(words)


def test_a_wrong_command_and_a_wrong_option_are_noticed():
    for words in (["headrace", "jobs", "sumbit"], ["headrace", "up", "--dettach"]):
        with pytest.raises(AssertionError):
            parsed(words)
    assert len(CASES) > 100, "the pages have commands, and they are found"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", FENCE.sub("", page.read_text())):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} points to {target}"
    for named in re.findall(r"(?<![\w/])docs/([a-z-]+\.md)", page.read_text()):
        assert (TOP / "docs" / named).exists(), f"{page.name} names docs/{named}"


SECTIONS = [(page, body) for page in PAGES for body in fences(page, "toml")
            if re.search(r"^\[(kafka|registry|flink|rpc|engine|samples|ps|features|model|watch|lake|stack)[.\]]", body, re.MULTILINE)]


@pytest.mark.parametrize(("page", "body"), SECTIONS, ids=[f"{page.name}-{number}" for number, (page, _) in enumerate(SECTIONS)])
def test_a_piece_of_configuration_can_be_read(page, body, tmp_path):
    file = tmp_path / "headrace.toml"
    file.write_text(body)
    config.load(file, environ={})


def test_every_page_is_in_the_sites_navigation():
    named = set(re.findall(r": ([\w-]+\.md)", (TOP / "mkdocs.yml").read_text()))
    assert named == {page.name for page in (TOP / "docs").glob("*.md")}
