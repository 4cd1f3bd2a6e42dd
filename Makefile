# Two commands do all the set-up: `make demo` and `make test`. Only Python >= 3.11, make and a package registry are needed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check install --no-deps

export DAGSTER_DISABLE_TELEMETRY := 1

.PHONY: help demo test dev lint format bench faults lock clean

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/'

demo: $(VENV)/run ## take the sample video through every asset and show its moments
	@$(BIN)/moments process samples/sample.mp4
	@$(BIN)/python -m moments.demo

test: $(VENV)/dev ## lint and the whole test suite
	@$(MAKE) --no-print-directory lint
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

dev: $(VENV)/run ## Dagster UI and daemon at 127.0.0.1:3000
	@$(BIN)/moments dev

lint: $(VENV)/dev ## ruff, mypy, the five floors, Dagster's own check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@mkdir -p $(VENV)/dagster-home
	DAGSTER_HOME=$(CURDIR)/$(VENV)/dagster-home $(BIN)/dg check defs

format: $(VENV)/dev ## let ruff order and format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/dev ## run the benchmarks and print a table
	$(BIN)/python -m benchmarks

faults: $(VENV)/dev ## break everything around submissions (SEED=, FAULTS=400, PATIENCE=300), then check what came of them
	$(BIN)/python -m benchmarks.faults --faults $(or $(FAULTS),400) $(if $(SEED),--seed $(SEED)) $(if $(PATIENCE),--patience $(PATIENCE))

lock: $(VENV)/dev ## resolve the dependencies anew
	$(BIN)/python -m pip --quiet install uv
	$(BIN)/uv pip compile pyproject.toml requirements/build.in --extra dev $(LOCK_OPTIONS) -o requirements/dev.lock
	$(BIN)/uv pip compile pyproject.toml requirements/build.in $(LOCK_OPTIONS) -c requirements/dev.lock -o requirements/run.lock

# Without registry addresses: each installation names its own.
LOCK_OPTIONS := --quiet --upgrade --universal --generate-hashes --no-header

clean: ## stop the services; remove the environment and all state
	-@$(BIN)/moments down
	rm -rf $(VENV) .moments

# An environment is ready when its stamp is newer than what it is made from. `dev` holds all that `run` does.
$(VENV)/run: requirements/run.lock pyproject.toml
	@$(MAKE) --no-print-directory environment LOCK=requirements/run.lock
	@touch $@

$(VENV)/dev: requirements/dev.lock pyproject.toml
	@$(MAKE) --no-print-directory environment LOCK=requirements/dev.lock
	@touch $@ $(VENV)/run

.PHONY: environment
environment:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "moments needs Python 3.11 or newer: make PYTHON=/path/to/python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the locked dependencies into $(VENV) (about a minute) …"
	@$(PIP) --require-hashes -r $(LOCK)
	@$(PIP) --no-build-isolation -e .
