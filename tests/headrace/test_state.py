"""stack.json and the lock of a data folder."""

import json
import os

import pytest

from headrace import state
from headrace.processes import start_time


def test_one_stack_a_folder(tmp_path):
    with state.hold(tmp_path), pytest.raises(state.AlreadyUp, match="headrace down"):
        state.hold(tmp_path)
    state.hold(tmp_path).close()


def test_a_running_stack_is_read(tmp_path):
    here = {"supervisor": {"pid": os.getpid(), "started": start_time(os.getpid())}, "config": {}}
    state.write(tmp_path, here)
    assert state.read(tmp_path) == here


@pytest.mark.parametrize("text", [json.dumps({"supervisor": {"pid": os.getpid(), "started": 1.0}}), "{half"], ids=["another", "half"])
def test_a_dead_stack_is_forgotten(tmp_path, text):
    state.file_of(tmp_path).write_text(text)
    assert state.read(tmp_path) is None
    assert not state.file_of(tmp_path).exists()
