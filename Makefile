# Lineside. `make help` lists the targets; set-up runs by itself and is skipped when nothing changed.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PYTEST_ARGS ?=

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*?## ' $(MAKEFILE_LIST) | awk -F':.*?## ' '{printf "  make %-12s %s\n", $$1, $$2}'

.PHONY: setup
setup: .venv/.ready .venv-edge/.ready ## Create the Python environments (workstation and device)

.venv/.ready: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if v == (3, 11) else f"want Python 3.11, which the lock is made for, found {v[0]}.{v[1]}; install it or run: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)")'
	@echo "set-up: workstation environment .venv (PyTorch, LiteRT, Metaflow; about 7 GB, some minutes) …"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv-edge/.ready: edge/requirements.txt tests/requirements-edge.txt
	@echo "set-up: device environment .venv-edge (numpy, Pillow, TFLite runtime) …"
	@test -x .venv-edge/bin/python || $(PYTHON) -m venv .venv-edge
	@.venv-edge/bin/pip install --quiet --disable-pip-version-check -r edge/requirements.txt -r tests/requirements-edge.txt
	@touch $@

.venv-edge-tflite/.ready: edge/requirements-tflite.txt tests/requirements-edge.txt
	@echo "set-up: device environment .venv-edge-tflite (the older tflite-runtime, for tests) …"
	@test -x .venv-edge-tflite/bin/python || $(PYTHON) -m venv .venv-edge-tflite
	@.venv-edge-tflite/bin/pip install --quiet --disable-pip-version-check -r edge/requirements-tflite.txt -r tests/requirements-edge.txt
	@touch $@

.PHONY: run
run: setup ## Train, verify and register a model of the built-in sample line
	@$(BIN)/python flows/train_flow.py run

.PHONY: inspect
inspect: setup ## Inspect new parts of the sample line with its newest approved model
	@$(BIN)/lineside inspect

.PHONY: loop
loop: setup ## The whole way on this machine: train, approve, deploy to three devices, inspect, show the fleet
	@$(BIN)/lineside loop

.PHONY: test
test: setup .venv-edge-tflite/.ready ## Run all tests, those of the device in its own two environments
	@tests/install-debian-packages.sh
	@echo "tests: device code in the device environment (ai-edge-litert)"
	@.venv-edge/bin/python -m pytest -q -p no:cacheprovider -n auto --maxprocesses 4 --dist loadfile tests/test_edge_*.py $(PYTEST_ARGS)
	@echo "tests: device code in the older device environment (tflite-runtime); kill -9 once is enough"
	@.venv-edge-tflite/bin/python -m pytest -q -p no:cacheprovider -n auto --maxprocesses 4 --dist loadfile $(filter-out tests/test_edge_kill.py,$(wildcard tests/test_edge_*.py)) $(PYTEST_ARGS)
	@echo "tests: workstation, flows and everything between them and the device"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder --ignore-glob='*/test_edge_*' $(PYTEST_ARGS)

.PHONY: check
check: setup ## Lint and type-check
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

.PHONY: bench
bench: setup ## Measure speed and memory against the peers (some minutes each)
	@for script in bench/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

.PHONY: lock
lock: setup ## Resolve requirements.in into requirements.txt, and the devices' requirements into edge/locks
	@$(BIN)/uv pip compile requirements.in --python-version 3.11 --quiet --no-header --output-file .venv/lock.txt
	@{ echo "-e ."; echo '# Locked from requirements.in by `make lock`; do not edit by hand.'; cat .venv/lock.txt; } > requirements.txt
	@$(BIN)/python -m inspection.fleet.components.locks

.PHONY: clean
clean: ## Remove the environments (keeps data and models in .lineside)
	@if [ -x $(BIN)/lineside ]; then $(BIN)/lineside fleet stop; fi
	@rm -rf .venv .venv-edge .venv-edge-tflite .venv-peers* *.egg-info .pytest_cache .mypy_cache .ruff_cache
