# Each target first sets up .venv if it is missing or older than the lock. Requirements: Python 3.11-3.13, pip and make.
PYTHON ?= python3
CONFIG ?= config/demo.yaml
DATA   ?=
CORES  ?=
PROFILE ?= local
OPTIONS ?=
BIN    := .venv/bin
SHELL  := /bin/bash

.PHONY: setup report rerun segment results network structures test test-fast lab data check schema lock sync

WHERE = --data "$(DATA)" --profile "$(PROFILE)" $(if $(CORES),--cores $(CORES))
report: setup
	$(BIN)/python -m wmhlib.running.command "$(CONFIG)" $(WHERE) $(OPTIONS)

# Repeat a study from its run.json and compare the tables: RUN=path/to/run.json
rerun: setup
	$(BIN)/python -m wmhlib.running.rerun "$(RUN)" $(WHERE)

# Segment your own scans with the bundled network: SCANS="a file, a folder or a pattern" OUT=folder.
# OPTIONS: -p model FILE, -p threshold 0.3, -p smallest_mm3 5, -p bids FOLDER. The result is OUT/index.html.
SCANS ?=
OUT   ?= data/segmented
export SCANS OUT
segment: setup
	@$(BIN)/python workflow/notebook.py 07_segment_scan "$$OUT/07_segment_scan.ipynb" -p scans "$$SCANS" -p out "$$OUT" --page "$$OUT/index.html" $(OPTIONS)

# For maintainers: write a finished study as a page of docs/results/. Several studies with NAME=page become one page.
NAME ?=
results: setup
	$(BIN)/python -m wmhlib.report.results $(CONFIG) $(if $(NAME),--name "$(NAME)")

# For maintainers: make the trained network of config/transfer.yaml the bundled network.
network: setup
	$(BIN)/python -m wmhlib.apply.model_card config/transfer.yaml

# For maintainers: train the networks that find the inside of the skull and the ventricles, about half an hour on two cores.
structures: setup
	$(BIN)/python -m wmhlib.apply.train_structures config/structures.yaml

# On two cores, with the longest test files first (tests/conftest.py), so that both end at about the same time.
TWO = -n 2 --dist loadfile --no-loadscope-reorder
test: setup
	$(BIN)/python -m pytest $(TWO)

# Only tests that take at most a few seconds each, for use during development.
test-fast: setup
	$(BIN)/python -m pytest $(TWO) -m "not slow"

# OPTIONS go to JupyterLab, such as --port 8889 --no-browser. As root, in a container, it is allowed to start.
lab: setup
	$(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) notebooks $(OPTIONS)

# Download the public data sets, each into its folder of data/. Run it again to resume.
# OPTIONS: wmh-challenge ljubljana-ms (default: both) head-label-maps --t1 --orig --root DIR --workers N
data: setup
	$(BIN)/python -m wmhlib.intake.download $(OPTIONS)

setup: .venv/installed

.venv/installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"Python {v[0]}.{v[1]} found; 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.12 setup")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@mkdir -p .venv/etc/jupyter/jupyter_server_config.d # a notebook is saved without what running it leaves
	@echo '{"FileContentsManager": {"pre_save_hook": "wmhlib.running.notebooks.clean_before_saving"}}' > .venv/etc/jupyter/jupyter_server_config.d/wmhlib.json
	touch $@

# The checks of CI other than tests.
check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check workflow/Snakefile
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/notebook_pairs.py --check
	$(SCHEMA) | diff --brief - config/schema.json || { echo "config/schema.json does not match wmhlib: run make schema."; exit 1; }
	$(BIN)/python tests/lock_in_step.py

# For maintainers: update the schema of configurations after a change of settings (schema), the lock after a change of
# pyproject.toml (lock), and the notebooks after a change of their scripts (sync).
SCHEMA = $(BIN)/python -m wmhlib.running.schema
schema: setup
	$(SCHEMA) > config/schema.json

LOCK = $(BIN)/uv pip compile --quiet pyproject.toml --extra dev --universal --generate-hashes --no-strip-extras --python-version 3.11 --custom-compile-command "make lock"
lock: setup
	$(LOCK) -o requirements.lock

sync: setup
	$(BIN)/python tests/notebook_pairs.py
