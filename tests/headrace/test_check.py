"""The sentences of the machine check: each names the reason and the way out."""

import ast
from pathlib import Path

import pytest

from headrace import check

GOOD = {"path": "/opt/python3.12", "implementation": "cpython", "version": [3, 12, 1], "venv": True}
FACTS = {"system": "linux", "machine": "x86_64", "libc": "glibc", "disk_gb": 50.0, "memory_gb": 16.0, "pythons": [GOOD]}


def test_a_good_machine():
    assert check.verdict(FACTS) == ("/opt/python3.12", "This machine will do.")


@pytest.mark.parametrize("changed, words", [
    ({"system": "darwin", "machine": "arm64"}, ["macOS", "Linux x86-64"]),
    ({"system": "win32", "machine": "AMD64"}, ["Windows", "wsl --install"]),
    ({"machine": "aarch64"}, ["aarch64", "x86-64 machine"]),
    ({"libc": "musl"}, ["musl", "glibc"]),
    ({"disk_gb": 1.2}, ["1.2 GB of disk", "free some"]),
    ({"memory_gb": 1.9}, ["1.9 GB of memory", "larger"]),
    ({"pythons": []}, ["no python3", "CPython 3.12"]),
    ({"pythons": [{**GOOD, "version": [3, 13, 0]}]}, ["cpython 3.13 is too new", "make setup PYTHON=python3.12"]),
    ({"pythons": [{**GOOD, "version": [3, 8, 10]}]}, ["cpython 3.8 is too old", "make setup PYTHON=python3.12"]),
    ({"pythons": [{**GOOD, "implementation": "pypy"}]}, ["pypy", "CPython 3.12"]),
    ({"pythons": [{**GOOD, "version": [3, 11, 2], "venv": False}]}, ["apt-get install python3.11-venv"]),
])
def test_the_way_out(changed, words):
    path, sentence = check.verdict({**FACTS, **changed})
    assert path == ""
    for word in words:
        assert word in sentence
    assert "\n" not in sentence


def test_a_later_python_will_do_when_the_first_does_not():
    path, _ = check.verdict({**FACTS, "pythons": [{**GOOD, "version": [3, 13, 0], "path": "/new"}, GOOD]})
    assert path == "/opt/python3.12"


def test_it_parses_on_an_old_python():
    """An old interpreter has to print the sentence and not a SyntaxError."""
    ast.parse(Path(check.__file__).read_text(), feature_version=(3, 6))
    assert "from __future__" not in Path(check.__file__).read_text()  # `annotations` is of 3.7
