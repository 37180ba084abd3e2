"""The wheel and the sdist as others install them: in an environment of its own, without the repository beside it."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.end_to_end.conftest import environment

TOP = Path(__file__).parents[2]


def ran(*command: str | Path, cwd: Path, code: int = 0) -> str:
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=environment(PIP_DISABLE_PIP_VERSION_CHECK="1"), capture_output=True,
                          text=True, check=False)
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the wheel and the sdist of what git would commit."""
    folder = tmp_path_factory.mktemp("dist")
    source = folder / "source"
    source.mkdir()
    tracked = ran("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=TOP).splitlines()
    for name in tracked:
        if (TOP / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((TOP / name).read_bytes())
    ran(sys.executable, "-c", "from setuptools.build_meta import build_sdist; build_sdist('..')", cwd=source)
    sdist, = folder.glob("*.tar.gz")
    ran(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, sdist, cwd=folder)  # of the sdist: it lacks nothing
    return folder


@pytest.fixture(scope="module")
def client_alone(built, tmp_path_factory) -> Path:
    """The bin folder of an environment with the base install."""
    folder = tmp_path_factory.mktemp("base")
    ran(sys.executable, "-m", "venv", folder / "v", cwd=folder)
    wheel, = built.glob("*.whl")
    ran(folder / "v" / "bin" / "python", "-m", "pip", "install", "-q", wheel, "-c", TOP / "constraints.txt", cwd=folder)
    return folder / "v" / "bin"


def test_both_hold_what_the_code_reads_beside_itself(built):
    wheel, = built.glob("*.whl")
    sdist, = built.glob("*.tar.gz")
    held = set(zipfile.ZipFile(wheel).namelist())
    for room in ("headrace", "schemas", "jobs", "engine", "simulator", "streaming", "rpc", "features", "ps", "ann", "models"):
        folder = "headrace" if room == "headrace" else f"headrace/{room}"
        for file in (TOP / room).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts and file.suffix != ".pyc":
                assert f"{folder}/{file.relative_to(TOP / room)}" in held, f"the wheel lacks {file}"
    with tarfile.open(sdist) as tar:
        names = {name.split("/", 1)[1] for name in tar.getnames() if "/" in name}
    assert {"pyproject.toml", "schemas/interactions.avsc", "headrace/jars.lock", "engine/app.py"} <= names


def test_the_base_is_the_client_and_says_what_else_needs(client_alone, tmp_path):
    headrace = client_alone / "headrace"
    assert ran(headrace, "version", cwd=tmp_path).strip()
    assert "not installed" in ran(headrace, "doctor", cwd=tmp_path)
    assert "[kafka]" in ran(headrace, "config", "show", cwd=tmp_path)
    for words in (("up",), ("connect", "check"), ("jobs", "list")):
        said = ran(headrace, *words, cwd=tmp_path, code=1)
        assert "pip install 'headrace[local]'" in said and "Traceback" not in said
    assert "does not answer" in ran(client_alone / "python", "-c", f"""
from headrace import Client, EngineError
try:
    Client("http://127.0.0.1:{1}", deadline_s=0.2).recommend("u")
except EngineError as error:
    print(error)
""", cwd=tmp_path)


def test_the_client_is_imported_in_time_and_drags_nothing_in(client_alone, tmp_path):
    best = min(float(ran(client_alone / "python", "-c", "import time; t = time.perf_counter(); from headrace import Client; "
                         "print(1000 * (time.perf_counter() - t))", cwd=tmp_path)) for _ in range(5))
    print(f"import of the client: {best:.0f} ms")
    loaded = ran(client_alone / "python", "-c", "from headrace import Client; import sys; print(sorted(sys.modules))", cwd=tmp_path)
    assert not any(f"'{name}'" in loaded for name in ("numpy", "pyarrow", "typer", "pydantic", "rich"))
