"""The command line: quick, and sentences instead of tracebacks."""

import resource
import subprocess
import sys

import pytest

from headrace import cli


def run(*arguments: str, cwd=None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "headrace", *arguments], capture_output=True, text=True, cwd=cwd, check=False)


def test_help_is_quick_and_names_every_command():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = run("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    assert all(name in done.stdout for name in cli.COMMANDS)
    # The processor's time, since the machine may be busy with something else.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


@pytest.mark.parametrize("arguments, code, words", [
    (["config", "show"], 2, "the nearest is 'kafka.bootstrap'"),
    (["url", "kafca", "--config", "good.toml"], 2, "'kafca' has no address"),
    (["up", "--config", "good.toml", "--only", "flnk"], 2, "'flnk' is no part"),
    (["serve", "ranker", "--config", "good.toml"], 2, "'ranker' is no role"),
    (["status", "--config", "absent.toml"], 2, "absent.toml does not exist"),
])
def test_an_error_is_one_sentence(tmp_path, arguments, code, words):
    (tmp_path / "headrace.toml").write_text("[kafka]\nbootstarp = 'x'\n")
    (tmp_path / "good.toml").write_text("[kafka]\npartitions = 2\n")
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == code
    assert done.stderr.startswith("error: ") and words in done.stderr and "Traceback" not in done.stderr


def test_status_without_a_stack(tmp_path):
    done = run("status", cwd=tmp_path)
    assert done.returncode == 1 and "headrace up" in done.stdout
    assert run("status", "--json", cwd=tmp_path).stdout == "null\n"


def test_a_command_that_is_missing(monkeypatch, capsys):
    monkeypatch.setitem(cli.COMMANDS, "later", ("headrace.commands.absent:command", "Later."))
    with pytest.raises(SystemExit) as ended:
        cli.main(["later"])
    assert ended.value.code == 1
    assert "`headrace later` is not built yet" in capsys.readouterr().err


def test_an_unexpected_error_is_named_and_debug_shows_it(monkeypatch, capsys):
    monkeypatch.setitem(cli.COMMANDS, "broken", ("tests.headrace.test_cli:broken", "Breaks."))
    with pytest.raises(SystemExit) as ended:
        cli.main(["broken"])
    assert ended.value.code == 1
    assert capsys.readouterr().err == "error: KeyError: 'x' (unexpected; --debug shows where)\n"
    with pytest.raises(KeyError):
        cli.main(["--debug", "broken"])


def broken() -> None:
    """Breaks."""
    raise KeyError("x")
