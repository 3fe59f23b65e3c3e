# make setup | test | quick | coverage | test-legacy | docs | demo | clean; `make` alone says what each does. Options: PYTHON=..., VENV=..., ARGS=...
VENV ?= .venv
export VENV
LEGACY_VENV ?= .venv-legacy
ARGS ?=
# processes that share the tests, each file in one of them; each takes about 2 GB of memory
TEST_PROCESSES ?= 2
# in the order of tests/conftest.py, not by numbers of tests
PYTEST = -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)
# the mathematics, without compilers and trained networks: about 45 seconds on 2 cores
QUICK = -m 'not slow' -k 'not compile and not graph and not trained and not training and not samples' tests/adf \
	tests/equivariant/test_basis.py tests/equivariant/test_norm.py tests/utils tests/testing
# OpenMP's threads spin while they wait; where something else uses a core, that makes small layers five times slower
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help setup lint types check tests test quick coverage test-legacy docs demo clean

help:
	@echo 'make setup   make $(VENV): pinned packages, compiled mmcv operators (once; 10 to 15 minutes on 2 cores)'
	@echo 'make demo    set-up, then train a rotated detector on synthetic scenes, test it, draw its detections with uncertainty'
	@echo 'make test    set-up, then ruff, mypy, import-linter and all tests (ARGS="tests/test_packaging.py -k lock" for some)'
	@echo 'make quick   the same with a minute of tests: what to run before each commit'
	@echo 'make coverage   all tests, and which lines they reach; as HTML in build/coverage'
	@echo 'make test-legacy   the tests on the original stack, in $(LEGACY_VENV): torch 2.0.1, mmcv 2.0.1, mmdet 3.0.0'
	@echo 'make docs    set-up, then the pages of docs/ as HTML in build/docs; a warning is an error'
	@echo 'make clean   remove $(VENV) and everything built; results in work_dirs stay'
	@echo 'Options: PYTHON=/path/to/python3.11, VENV=/other/place, MAX_JOBS=1 TEST_PROCESSES=1 where memory is short'

setup:
	@PYTHON='$(PYTHON)' bash tools/setup.sh

# what needs no test to be found
check: lint types

lint: setup
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m ruff format --check .

types: setup
	$(VENV)/bin/python -m mypy
	$(VENV)/bin/lint-imports

tests: setup
	$(VENV)/bin/python $(PYTEST)

# mypy takes more than a minute where it has not run before: it runs beside the tests
test: lint
	@$(MAKE) --no-print-directory -j2 types tests

quick: check
	$(VENV)/bin/python $(PYTEST) $(QUICK)

coverage: setup
	$(VENV)/bin/python $(PYTEST) --cov --cov-report=term --cov-report=html:build/coverage

# the tests alone: the linters read the same files there
test-legacy:
	@LOCK=requirements-legacy.lock VENV='$(LEGACY_VENV)' PYTHON='$(PYTHON)' bash tools/setup.sh
	$(LEGACY_VENV)/bin/python $(PYTEST)

# -E: read every page anew, so that a warning shows each time
docs: setup
	$(VENV)/bin/python -m sphinx -E -W --keep-going -q -b html -d build/doctrees docs build/docs
	@echo 'the pages are in build/docs/index.html'

demo: setup
	$(VENV)/bin/python tools/demo.py $(ARGS)

# only what the set-up made: a directory of that name without its stamps stays
clean:
	@for venv in '$(VENV)' '$(LEGACY_VENV)'; do if [ -d "$$venv/.setup" ]; then rm -rf "$$venv"; fi; done
	rm -rf build *.egg-info .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .coverage .coverage.*
	find mmrotate_plugin* tests tools configs -name __pycache__ -type d -prune -exec rm -rf {} +
