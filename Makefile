# setup: what the stack needs into .venv and the jar cache; `make demo` needs no more. setup-dev: what tests, lint and docs need too. PYTHON=/path/python3.12 picks an interpreter.
SHELL := /bin/bash
PY := .venv/bin/python
STAMP := .venv/headrace-setup
WANT := $(shell cat pyproject.toml constraints.txt | sha256sum | cut -d' ' -f1)
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)
FARM := .typing/headrace
ROOMS := schemas rpc features ps ann models streaming engine jobs simulator

# OFFLINE=FOLDER: everything from FOLDER, which `make bundle FOLDER=...` filled on a machine with a network; nothing is downloaded.
FROM := $(if $(OFFLINE),PIP_NO_INDEX=1 PIP_FIND_LINKS=$(abspath $(OFFLINE))/wheels)

# The system's certificates, as pip uses them: behind a proxy that inspects, those of the packages' own list do not do.
BUNDLE := $(firstword $(wildcard /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/ca-bundle.pem))
TRUST := $(if $(or $(REQUESTS_CA_BUNDLE),$(CURL_CA_BUNDLE)),,$(if $(BUNDLE),REQUESTS_CA_BUNDLE=$(BUNDLE)))

.PHONY: setup setup-dev install demo test lint docs clean bundle

setup:
	@if [ "$$(cat $(STAMP) 2>/dev/null)" != "$(WANT)" ]; then $(MAKE) --no-print-directory install; fi
	@$(TRUST) $(PY) -m headrace jars $(if $(OFFLINE),install $(OFFLINE)/jars.tar,fetch)
	@$(PY) -m headrace.warmed

# Packages that are built at install (crcmod, dill, docopt, hdfs) need the pinned setuptools too: pip calls that a build constraint.
install:
	@command -v python3 >/dev/null || { echo "There is no python3 on PATH: install CPython 3.12, then: make setup" >&2; exit 1; }
	@chosen=$$(python3 headrace/check.py "$(PYTHON)" "$(CACHE)") && \
	if [ -n "$(PYTHON)" ] || ! $(PY) -m pip --version >/dev/null 2>&1; then "$$chosen" -m venv --clear .venv; fi
	$(FROM) PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 \
	$(PY) -m pip install --progress-bar on -e ".[local]" -c constraints.txt
	@echo "$(WANT)" > $(STAMP)

setup-dev: setup
	@if [ "$$(cat $(STAMP)-dev 2>/dev/null)" != "$(WANT)" ]; then \
	  $(FROM) PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 \
	  $(PY) -m pip install --progress-bar on -e ".[local,test,docs]" -c constraints.txt && echo "$(WANT)" > $(STAMP)-dev; fi

# For the same Python and system. Packages without a wheel are built here, so that the other machine needs no compiler either.
bundle: setup
	@test -n "$(FOLDER)" || { echo "say where: make bundle FOLDER=/path" >&2; exit 1; }
	PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 \
	$(PY) -m pip wheel -w $(FOLDER)/wheels ".[local,test,docs]" setuptools wheel -c constraints.txt
	@rm -f $(FOLDER)/wheels/headrace-*.whl
	@$(PY) -m headrace jars bundle $(FOLDER)/jars.tar

demo: setup
	@$(PY) -m headrace demo

# Those that start a stack come after the others, which share the cores.
test: setup-dev lint
	@$(PY) -m pytest tests --ignore=tests/end_to_end -n auto --maxprocesses 4 --dist loadfile
	@$(PY) -m pytest tests/end_to_end

# The rooms lie at the top and import as headrace.ROOM: a farm of links shows mypy the tree that the install makes.
lint: setup-dev
	@$(PY) -m ruff check .
	@rm -rf .typing && mkdir -p $(FARM) && ln -s $(CURDIR)/headrace/* $(FARM)/ && for room in $(ROOMS); do ln -sfn $(CURDIR)/$$room $(FARM)/$$room; done
	@MYPYPATH=.typing $(PY) -m mypy -p headrace

docs: setup-dev
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet && echo "build/site/index.html"

clean:
	rm -rf .venv .typing .headrace build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
