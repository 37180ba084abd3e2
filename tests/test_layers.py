"""The rules of docs/architecture.md about imports and files, read from the source with `ast`."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
LAYER = {"schemas": 0, "rpc": 0, "simulator": 0, "features": 1, "ps": 1, "ann": 1, "models": 1, "streaming": 2, "engine": 2, "jobs": 4,
         "headrace": 4}
# engine -> files or folders that may import it
SINGLE = {
    "rocksdict": ("features/store.py",),
    "faiss": ("ann/index.py",),
    "confluent_kafka": ("streaming/kafka.py", "streaming/transactions.py", "streaming/positions.py", "headrace/kafka.py",
                        "headrace/kafka_admin.py"),
    "pyflink": ("streaming/", "jobs/"),
    "fastavro": ("schemas/codec.py", "schemas/container.py"),
    "jgo": ("headrace/maven.py",),
    "river": ("headrace/watch/river_peer.py",),
    "datasketches": ("headrace/watch/sketches.py",),
    "duckdb": ("headrace/recompute/engine.py",),
    "fsspec": ("headrace/lake/objects.py",),
    "s3fs": (),
    "vowpalwabbit": ("headrace/bench/vowpal.py",),
}
LINES_MAX = 400
FILES = sorted(file for room in LAYER for file in (TOP / room).rglob("*.py"))


def name(file: Path) -> str:
    return file.relative_to(TOP).as_posix()


def room(file: Path) -> str:
    return file.relative_to(TOP).parts[0]


def imported(file: Path) -> Iterator[str]:
    """Every module that a file imports, at any depth of it; `from headrace import x` counts as headrace.x."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(file)} imports relatively"
            if node.module == "headrace":
                yield from (f"headrace.{alias.name}" for alias in node.names)
            elif node.module:
                yield node.module


def rooms_imported(file: Path) -> set[str]:
    parts = [module.split(".") for module in imported(file) if module.split(".")[0] == "headrace"]
    return {part[1] if len(part) > 1 and part[1] in LAYER else "headrace" for part in parts}


@pytest.mark.parametrize("file", FILES, ids=name)
def test_imports_go_down(file):
    mine = room(file)
    for other in rooms_imported(file) - {mine}:
        shared = {mine, other} == {"jobs", "headrace"}  # the two of layer 4 read one configuration
        assert LAYER[other] < LAYER[mine] or shared, f"{name(file)} of {mine} imports {other}"


@pytest.mark.parametrize("file", FILES, ids=name)
def test_single_importers(file):
    for module in imported(file):
        allowed = SINGLE.get(module.split(".")[0])
        assert allowed is None or name(file).startswith(allowed), f"{name(file)} imports {module}; only {', '.join(allowed)} may"


@pytest.mark.parametrize("file", FILES, ids=name)
def test_numba_lives_in_kernels(file):
    if any(module.split(".")[0] == "numba" for module in imported(file)):
        assert file.name.endswith("kernels.py")


@pytest.mark.parametrize("file", FILES, ids=name)
def test_the_environment_is_read_in_one_place(file):
    """headrace/java.py copies it for children; that is the other one."""
    reads = [node.attr for node in ast.walk(ast.parse(file.read_text()))
             if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv") and isinstance(node.value, ast.Name)
             and node.value.id == "os"]
    assert not reads or name(file) in ("headrace/config.py", "headrace/java.py")


@pytest.mark.parametrize("file", FILES, ids=name)
def test_no_file_is_long(file):
    assert len(file.read_text().splitlines()) <= LINES_MAX


@pytest.mark.parametrize("file", [file for file in FILES if file.name == "__init__.py"], ids=name)
def test_importing_a_room_imports_nothing_else(file):
    """What stands at the top of an __init__.py runs for everybody: a room's engine must not be dragged in by another's import."""
    for node in ast.parse(file.read_text()).body:
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for module in modules:
            assert module.split(".")[0] in sys.stdlib_module_names, f"{name(file)} imports {module} on import"
