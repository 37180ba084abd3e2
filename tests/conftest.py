"""What every test shares: the tests' folder is importable as `tests`, so that naive.py is one module for all rooms; and no example of a
property is a race against the clock, since these machines are busy and a first call compiles."""

from hypothesis import settings

settings.register_profile("headrace", deadline=None)
settings.load_profile("headrace")
