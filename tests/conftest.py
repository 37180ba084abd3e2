"""What every test shares: the tests' folder is importable as `tests`, so that naive.py is one module for all rooms; and no example of a
property is a race against the clock, since these machines are busy and a first call compiles."""

import pytest
from hypothesis import settings

from tests.s3_server import S3Server

settings.register_profile("headrace", deadline=None)
settings.load_profile("headrace")


@pytest.fixture(scope="session")
def s3():
    """A local S3 server, one a session that asks for it."""
    server = S3Server()
    yield server
    server.close()


@pytest.fixture
def bucket(s3, monkeypatch):
    """A new bucket of it by name, which this process may use."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return s3.bucket()
