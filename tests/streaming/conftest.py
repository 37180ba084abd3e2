"""A Flink table environment a test, in the JVM of this pytest process (planning only: nothing is submitted)."""

import os
import sys

import pytest


@pytest.fixture
def flink_env(monkeypatch):
    """A maker of fresh environments."""
    pytest.importorskip("pyflink")
    from headrace import jars, java
    from headrace.streaming.environment import Settings, environment

    monkeypatch.setenv("JAVA_HOME", str(java.home()))
    return lambda: environment(Settings("test", sys.executable, jars=tuple(jars.paths(jars.folder(dict(os.environ)), "flink"))))
