# What people type. Every target sets up what it needs, once.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: .venv/ready  ## .venv with every package of requirements.lock, checked by hash

.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "Headstart is pinned for Python 3.11; set PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps --requirement requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
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
	pytest

test-slow: setup  ## the tests that take long
	pytest -m slow

coverage: setup  ## what the tests reach, branches too, in the stages and flows that they start as well
	pytest -m "slow or not slow" --cov --cov-report=term-missing:skip-covered

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
