"""Rooms inside a pickled stage: the worker has PyFlink and third-party packages, and no headrace."""

import subprocess
import sys

import pytest

pytest.importorskip("pyflink")

import cloudpickle

from headrace.streaming import shipped
from headrace.streaming.vectorize import Vectorize
from tests.streaming.test_stages import ADDRESSES

WORKER = """
import importlib.abc, sys, tempfile
class Absent(importlib.abc.MetaPathFinder):        # headrace is not installed on this worker
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "headrace" and not any("headrace-" in one for one in sys.path):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
sys.meta_path[:] = [one for one in sys.meta_path if "editable" not in type(one).__module__ and "editable" not in repr(one)]
tempfile.tempdir = sys.argv[1]
import cloudpickle
stage = cloudpickle.load(sys.stdin.buffer)
stage.open(None)
import headrace.schemas.codec
print(headrace.schemas.codec.__file__, stage.run.model, len(headrace.schemas.codec.SCHEMAS))
"""


def test_a_worker_without_headrace_runs_a_shipped_stage(tmp_path):
    shipped.by_value()
    data = cloudpickle.dumps(shipped.Shipped(Vectorize(ADDRESSES, "fm"), shipped.archive()))
    done = subprocess.run([sys.executable, "-c", WORKER, str(tmp_path)], input=data, capture_output=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    file, model, schemas = done.stdout.decode().split()
    assert file.startswith(str(tmp_path / "headrace-")) and model == "fm" and int(schemas) == 11


def test_the_same_code_goes_to_the_same_place_once(tmp_path):
    first, second = shipped.archive(), shipped.archive()
    assert first == second
    folder = shipped.unpack(first, tmp_path)
    assert shipped.unpack(second, tmp_path) == folder and list(tmp_path.iterdir()) == [folder]
    assert (folder / "headrace" / "features" / "kernels.py").exists() and (folder / "headrace" / "schemas" / "samples.avsc").exists()


def test_without_shipping_nothing_is_packed():
    from headrace.streaming.vectorize import vectorize

    assert not isinstance(vectorize(ADDRESSES, "fm")._func, shipped.Shipped)
    assert isinstance(vectorize(ADDRESSES, "fm", ship=True)._func, shipped.Shipped)
