# What people type. Every target sets up what it needs, once.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
SETUP_LOG := .venv/setup.log
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false

# Of a file, tests share a worker (tests/conftest.py).
SIDE_BY_SIDE := -n 2 --durations=10

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: .venv/ready  ## .venv with every package of requirements.lock, checked by hash

.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "Headstart is pinned for Python 3.11; set PYTHON=/path/to/python3.11")'
	@echo "setup: installing $$(grep -c == requirements.lock) packages into .venv"
	@$(PYTHON) -m venv .venv
	@set -o pipefail; pip="$(BIN)/pip install --disable-pip-version-check --progress-bar off --no-deps"; \
	count=0; { \
		$$pip --require-hashes --requirement requirements.lock && \
		$$pip --no-build-isolation --editable .; \
	} 2>&1 | tee $(SETUP_LOG) | while read -r word rest; do \
		if [ "$$word" = Collecting ] && (( ++count % 50 == 0 )); then echo "setup: $$count fetched"; fi; \
		case "$$word $$rest" in "Installing collected packages: "*,*) echo "setup: unpacking them";; esac; \
	done || { \
		tail -n 8 $(SETUP_LOG) >&2; \
		echo "setup: error: pip failed; all that it said is in $(SETUP_LOG)" >&2; \
		exit 1; }
	@touch $@

repro: setup  ## run what changed, from examples to metrics (dvc repro)
	headstart check
	dvc repro

flow: setup  ## the same as a Prefect flow (ARGS="--force" and more: make flow ARGS=--help)
	python -m flows.run $(ARGS)

serve: setup  ## a Prefect server, nightly retraining, and a run whenever the data changes
	python -m flows.serve

dashboard: setup  ## Prefect's own page (PORT=4200)
	python -m flows.dashboard $(if $(PORT),--port $(PORT))

why: setup  ## what make repro would run, because of what
	headstart why

test: setup  ## the tests
	pytest $(SIDE_BY_SIDE)

test-slow: setup  ## the tests that take long
	pytest $(SIDE_BY_SIDE) -m slow

coverage: setup  ## what the tests reach, branches too, in the stages and flows that they start as well
	pytest $(SIDE_BY_SIDE) -m "slow or not slow" --cov --cov-report=term-missing:skip-covered

check: setup  ## lint, format, types, security, and which room imports which
	ruff check
	ruff format --check
	mypy
	lint-imports

docs: setup  ## write docs/parameters.md from the schema of params.yaml
	python -m docs.make_parameters

audit: setup  ## known holes in the packages of requirements.lock (asks an advisory service)
	@$(PYTHON) -m venv .venv/audit
	@.venv/audit/bin/pip install --quiet --disable-pip-version-check pip-audit
	@.venv/audit/bin/pip-audit --strict --disable-pip --requirement requirements.lock || { \
		echo "audit: a hole was found, or a package had no answer: see above"; exit 1; }

store: setup  ## what is in the feature store
	python -m pipeline.store

clean-store: setup  ## empty the feature store: costs time, never correctness
	python -m pipeline.store clear

lock: setup  ## pin the newest versions that fit pyproject.toml (needs uv)
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --upgrade \
		--generate-hashes --no-emit-index-url --no-annotate --no-header --output-file requirements.lock

.PHONY: help setup repro flow serve dashboard why test test-slow coverage check docs audit store clean-store lock
