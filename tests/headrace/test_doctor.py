"""doctor in every kind of installation: the client alone, parts, and what must not be together."""

from __future__ import annotations

import importlib.metadata
import importlib.util

import pytest
from typer.testing import CliRunner

from headrace import doctor
from headrace.config import Config


@pytest.fixture()
def installed(monkeypatch):
    """Call with the packages that are there."""
    real = importlib.util.find_spec

    def only(*names):
        every = {name for packages in doctor.PACKAGES.values() for name in packages} | {"psutil"}
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name in every - set(names) else real(name))

    return only


def findings(tmp_path):
    config = Config()
    config.stack.data_dir = tmp_path
    return {finding.name: finding for finding in doctor.examine(config)}


def test_the_client_alone_is_well_and_names_what_could_be_had(installed, tmp_path):
    installed()
    found = findings(tmp_path)
    assert all(finding.ok for finding in found.values()), found
    assert "java" not in found and "ports" not in found
    assert "headrace[local]" in found["packages local"].todo


def test_a_part_that_is_half_there_is_not_well(installed, tmp_path):
    installed("numpy", "numba", "psutil")
    found = findings(tmp_path)["packages serve"]
    assert not found.ok and "pyarrow" in found.found and "headrace[serve]" in found.todo


def test_an_old_python_hinders_the_stack_alone(installed, tmp_path, monkeypatch):
    monkeypatch.setattr(doctor.check, "python_problem", lambda _: "too new")
    installed()
    assert findings(tmp_path)["python"].ok
    installed("pyflink", "apache_beam")
    assert not findings(tmp_path)["python"].ok


def test_two_kinds_of_faiss_break_each_other(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.15.1")
    found = doctor.faiss()
    assert not found.ok and "pip uninstall faiss-cpu faiss-gpu" in found.todo


def test_the_command_in_this_environment(tmp_path):
    import typer

    from headrace.commands import doctor as command

    app = typer.Typer()
    app.command()(command.command)
    answer = CliRunner().invoke(app, ["--data", str(tmp_path)])
    assert "packages serve  all there" in answer.output
