"""What every test shares: the tests' folder is importable as `tests`, so that naive.py is one module for all rooms."""
