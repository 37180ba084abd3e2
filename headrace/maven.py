"""Coordinates to files, by jgo: resolves what jars.toml wants and downloads one jar with a bar. The only importer of jgo."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headrace.jars import Jar, JarsError, Wanted, digest

Bar = Callable[[str, int], Any]


def resolve(group: Wanted, staging: Path) -> list[Jar]:
    """Every jar that `group` needs, downloaded below `staging` and hashed. Raises JarsError."""
    from jgo.maven import Dependency

    context = _context(staging, None)
    jars: dict[str, Jar] = {}  # by group:artifact; the coordinate named first decides the version
    for wanted in group.coordinates:
        organisation, artifact, version = wanted.split(":")
        root = Dependency(context.project(organisation, artifact).at_version(version).artifact(), scope="compile")
        with _readable(wanted):
            # One coordinate at a time: together, jgo would let one project's managed versions override another's dependencies.
            below = context.resolver.resolve([root], transitive=True)[1] if group.transitive else []
            for dependency in [root, *below]:
                file = Path(dependency.artifact.resolve())
                name = f"{dependency.groupId}:{dependency.artifactId}"
                jars.setdefault(name, Jar(group.group_name, f"{name}:{dependency.version}", digest(file), file.stat().st_size))
    return sorted(jars.values(), key=lambda jar: jar.coordinate)


def lock(groups: list[Wanted], file: Path) -> list[Jar]:
    """Resolve `groups` and write `file` (jars.lock)."""
    with tempfile.TemporaryDirectory() as staging:
        jars = [jar for group in groups for jar in resolve(group, Path(staging))]
    head = "# Written by `headrace jars lock` from jars.toml: sha256, bytes, table, coordinate.\n"
    file.write_text(head + "".join(jar.line() + "\n" for jar in jars))
    return jars


def download(bar: Bar | None, mirror: str = "") -> Callable[[Jar, Path], Path]:
    """A `download` for jars.fetch; `bar(file, bytes)` is a context manager that gives a callable to count bytes with.

    `mirror`: URL of a Maven repository that is asked instead of the public one. Proxies are those of the environment.
    """

    def one(jar: Jar, staging: Path) -> Path:
        organisation, artifact, version = jar.coordinate.split(":")
        context = _context(staging, bar, mirror)
        with _readable(jar.coordinate):
            return Path(context.project(organisation, artifact).at_version(version).artifact().resolve())

    return one


def _context(staging: Path, bar: Bar | None, mirror: str = "") -> Any:
    from jgo.maven import MavenContext, PythonResolver

    # The public repository is always among jgo's own, under this name: a mirror takes its place.
    remote = {"central": mirror.rstrip("/")} if mirror else None
    return MavenContext(repo_cache=staging, resolver=PythonResolver(progress_callback=bar), remote_repos=remote, timeout=60)


@contextmanager
def _readable(what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:  # requests' errors are OSErrors
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise JarsError(f"could not download {what}: the certificate is signed by nobody that is known here, as behind a proxy that"
                            " inspects: set REQUESTS_CA_BUNDLE to a file with its certificate authority (often"
                            " /etc/ssl/certs/ca-certificates.crt), then `headrace jars fetch`") from error
        raise JarsError(f"could not download {what}: {error}; check the network, or set HEADRACE_MAVEN_MIRROR, then"
                        " `headrace jars fetch`") from error
