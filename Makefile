PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN_STAMP := $(VENV)/.run-installed
DEV_STAMP := $(VENV)/.dev-installed

.DEFAULT_GOAL := help
.PHONY: help run test setup lint types bench chaos docs lock clean

help: ## Show these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(RUN_STAMP) ## Install what is needed and stream a first answer (ARGS="..." goes to `guidance-agent ask`)
	@$(BIN)/guidance-agent ask $(ARGS)

test: $(DEV_STAMP) ## Install the development tools and run all tests
	$(BIN)/python -m pytest -n 3 --dist loadfile -q $(ARGS)

setup: $(DEV_STAMP) ## Install the package and the development tools into .venv

lint: $(DEV_STAMP) ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEV_STAMP) ## Check types
	$(BIN)/mypy

bench: $(DEV_STAMP) ## Measure the figures of specs/performance.md (ARGS="--only NAME" for some of them)
	$(BIN)/python -m benchmarks.run $(ARGS)

chaos: $(DEV_STAMP) ## Kill processes while they stream and judge, and while they work on batches (ARGS="--quick" for a few)
	$(BIN)/python -m benchmarks.run --only kills --only batch_kills $(ARGS)

docs: $(DEV_STAMP) ## Build the documentation site into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

lock: $(DEV_STAMP) ## Make the lock files anew from pyproject.toml
	$(BIN)/python scripts/lock.py

clean: ## Remove the environment and what tools have cached
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(not ((3, 11) <= sys.version_info[:2] <= (3, 13)) and "Python 3.11 to 3.13 is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(RUN_STAMP): locks/run.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/run.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(DEV_STAMP): locks/dev.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@ $(RUN_STAMP)
