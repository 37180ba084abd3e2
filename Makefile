# setup: everything into .venv and the jar cache. demo, test, lint and clean follow from it. PYTHON=/path/python3.12 picks an interpreter.
SHELL := /bin/bash
PY := .venv/bin/python
STAMP := .venv/headrace-setup
WANT := $(shell cat pyproject.toml constraints.txt | sha256sum | cut -d' ' -f1)
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)
FARM := .typing/headrace
ROOMS := schemas rpc features ps ann models streaming engine jobs simulator

.PHONY: setup install demo test lint clean

setup:
	@if [ "$$(cat $(STAMP) 2>/dev/null)" != "$(WANT)" ]; then $(MAKE) --no-print-directory install; fi
	@$(PY) -m headrace jars fetch
	@if [ ! -e .venv/headrace-warm ] || [ -n "$$(find */kernels.py */layout.py headrace/config.py -newer .venv/headrace-warm)" ]; then \
	  echo "compiling kernels, once"; $(PY) -m headrace.warm && touch .venv/headrace-warm; fi

# Packages that are built at install (crcmod, dill, docopt, hdfs) need the pinned setuptools too: pip calls that a build constraint.
install:
	@command -v python3 >/dev/null || { echo "There is no python3 on PATH: install CPython 3.12, then: make setup" >&2; exit 1; }
	@chosen=$$(python3 headrace/check.py "$(PYTHON)" "$(CACHE)") && \
	if [ -n "$(PYTHON)" ] || ! $(PY) -m pip --version >/dev/null 2>&1; then "$$chosen" -m venv --clear .venv; fi
	PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 \
	$(PY) -m pip install --progress-bar on -e ".[local,test]" -c constraints.txt
	@echo "$(WANT)" > $(STAMP)

demo: setup
	@$(PY) -m headrace demo

test: setup lint
	@$(PY) -m pytest

# The rooms lie at the top and import as headrace.ROOM: a farm of links shows mypy the tree that the install makes.
lint:
	@$(PY) -m ruff check .
	@rm -rf .typing && mkdir -p $(FARM) && ln -s $(CURDIR)/headrace/* $(FARM)/ && for room in $(ROOMS); do ln -sfn $(CURDIR)/$$room $(FARM)/$$room; done
	@MYPYPATH=.typing $(PY) -m mypy -p headrace

clean:
	rm -rf .venv .typing .headrace build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
