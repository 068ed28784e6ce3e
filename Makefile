# Two commands matter: `make demo` (the main job on the embedded default) and `make test`;
# `make setup` installs what the first one needs, for studies of one's own.
# Each target sets up what it needs in .venv.

PYTHON ?= python3
# torch's CPU build saves gigabytes: make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest
# Test processes at a time, on two cores: a third of the unit tests' time is spent waiting.
JOBS ?= 3
SERVED_JOBS ?= 3
# A file's tests share what they start, so one process runs all of them (tests/integration/conftest.py).
BY_FILE := --dist loadfile --no-loadscope-reorder
# A test that fails while the machine holds it up is repeated; tests/held_up.py says when that is.
REPEAT := --reruns 3 --only-rerun HeldUp -raR

# Where it is set, each of the hundreds of processes that tests start compiles the harness again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo test check-slow test-stack lint format bench clean

setup: $(VENV)/.demo
	$(BIN)/harness doctor --prepare

demo: $(VENV)/.demo
	$(BIN)/harness doctor --prepare
	$(BIN)/harness demo

# Both halves run whatever the other does, and each ends with pytest's own summary line.
test: $(VENV)/.dev
	$(BIN)/harness doctor --prepare
	@failed=0; set -x; \
	$(PYTEST) -n $(JOBS) --dist worksteal $(REPEAT) tests/unit || failed=1; \
	$(PYTEST) -n $(SERVED_JOBS) $(BY_FILE) $(REPEAT) tests/integration || failed=1; \
	exit $$failed

# What takes minutes or a machine of its own: trained reference models, every architecture really
# exported, error rates over many drawn studies, benchmarks, property tests with four times as many
# examples. The benchmarks' smoke tests, and how late a timer wakes, come last, with nothing beside
# them.
TIMED := tests/integration/test_benchmarks_load.py tests/integration/test_server_overhead.py \
	tests/unit/load/test_load_timer.py
check-slow: $(VENV)/.dev
	$(BIN)/harness doctor --prepare
	@failed=0; set -x; \
	$(PYTEST) -n $(JOBS) --dist worksteal -m "slow or hypothesis" --hypothesis-profile thorough $(REPEAT) $(TIMED:%=--ignore=%) tests/unit || failed=1; \
	$(PYTEST) -n $(JOBS) --dist worksteal -m slow $(REPEAT) $(TIMED:%=--ignore=%) tests/integration || failed=1; \
	$(PYTEST) -m slow $(REPEAT) $(TIMED) || failed=1; \
	exit $$failed

# The container stack, where there is an engine; docs/stack.md says how without a registry of images.
test-stack: $(VENV)/.dev
	$(PYTEST) $(REPEAT) tests/stack

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev
	$(BIN)/harness export studies/reference.yaml
	$(BIN)/python benchmarks/server_overhead.py
	$(BIN)/python benchmarks/generator_capacity.py
	$(BIN)/python benchmarks/fidelity.py
	$(BIN)/python benchmarks/time_to_answer.py
	$(BIN)/python benchmarks/scale_out.py

# What a run, a test or a build leaves in the checkout; the caches outside it stay.
clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find runs -mindepth 1 -maxdepth 1 ! -name README.md -exec rm -rf {} +
	find model_repository -mindepth 1 -maxdepth 1 -type d -exec rm -rf {} +
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.demo: pyproject.toml
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else "Python 3.11 to 3.13 is needed, this is %d.%d: make PYTHON=python3.12 ..." % v[:2])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==2.13.0
	$(PIP) install --quiet -e '.[export,quality]'
	touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(PIP) install --quiet -e '.[export,quality,track,dev]'
	touch $@
