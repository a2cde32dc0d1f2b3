# `make run` does the project's main job, `make test` its tests; both set up what they need.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export OMP_WAIT_POLICY ?= passive

.PHONY: run test fast lint bench clean

$(VENV)/.run: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet torch==2.13.0 --editable .
	touch $@

$(VENV)/.test: pyproject.toml $(VENV)/.run
	$(BIN)/pip install --quiet --group dev
	touch $@

# Answers real customer messages with a real small model until the answers pass their checks.
run: $(VENV)/.run
	$(BIN)/ostinato models get smollm2
	$(BIN)/ostinato refine examples/support/job.toml --limit 32

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# All tests, the slow ones too.
test: lint
	$(BIN)/pytest

# The everyday tests.
fast: lint
	$(BIN)/pytest -m "not slow"

$(VENV)/.bench: pyproject.toml $(VENV)/.test
	$(BIN)/pip install --quiet --group bench
	touch $@

bench: $(VENV)/.bench
	$(BIN)/python benchmarks/loop_overhead.py

clean:
	rm -rf $(VENV) .ostinato out
