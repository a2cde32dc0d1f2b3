# `make run` does the project's main job, `make test` its tests; both set up what they need.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export OMP_WAIT_POLICY ?= passive

.PHONY: run test fast lint docs bench clean

$(VENV)/.run: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet torch==2.13.0 --editable .
	touch $@

$(VENV)/.test: pyproject.toml $(VENV)/.run
	$(BIN)/pip install --quiet --group dev --group docs
	touch $@

# Answers real customer messages with a real small model until the answers pass their checks.
run: $(VENV)/.run
	$(BIN)/ostinato models get smollm2
	$(BIN)/ostinato refine examples/support/job.toml --limit 32

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A process for each processor, up to four, with one thread each: torch's own threads would wait for
# one another. The tests of a file stay together, as they share what takes long to make.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile

# All tests, the slow ones too.
test: lint
	$(PYTEST)

# The everyday tests.
fast: lint
	$(PYTEST) -m "not slow"

# The documentation as a site, in the folder `site`. A warning, such as for a broken link, is an error.
docs: $(VENV)/.test
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

$(VENV)/.bench: pyproject.toml $(VENV)/.test
	$(BIN)/pip install --quiet --group bench
	touch $@

bench: $(VENV)/.bench
	$(BIN)/python benchmarks/loop_overhead.py

clean:
	rm -rf $(VENV) .ostinato out site
