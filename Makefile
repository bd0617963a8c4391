# Each target sets up .venv first if it is missing or older than the lock. Needs Python 3.11-3.13, pip and make.
PYTHON ?= python3
CONFIG ?= config/demo.yaml
DATA   ?=
CORES  ?=
PROFILE ?= local
OPTIONS ?=
BIN    := .venv/bin
SHELL  := /bin/bash

.PHONY: setup report rerun test lab data check lock sync

WHERE = --data "$(DATA)" --profile "$(PROFILE)" $(if $(CORES),--cores $(CORES))
report: setup
	$(BIN)/python -m wmhlib.study "$(CONFIG)" $(WHERE) $(OPTIONS)

# A study again from its run.json, and whether its tables come out the same: RUN=path/to/run.json
rerun: setup
	$(BIN)/python -m wmhlib.rerun "$(RUN)" $(WHERE)

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile

lab: setup
	$(BIN)/jupyter lab notebooks

# The public data sets, each into its folder of data/; again to go on.
# OPTIONS: wmh-challenge ljubljana-ms (default: both) --t1 --orig --root DIR --workers N
data: setup
	$(BIN)/python -m wmhlib.download $(OPTIONS)

setup: .venv/installed

.venv/installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"Python {v[0]}.{v[1]} found; 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.12 setup")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

# What CI checks beside the tests.
check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python tests/notebook_pairs.py --check
	$(BIN)/python tests/lock_in_step.py

# For maintainers: remake the lock after a change to pyproject.toml; bring every notebook in step with its script.
LOCK = $(BIN)/uv pip compile --quiet pyproject.toml --extra dev --universal --generate-hashes --python-version 3.11 --custom-compile-command "make lock"
lock: setup
	$(LOCK) -o requirements.lock

sync: setup
	$(BIN)/python tests/notebook_pairs.py
