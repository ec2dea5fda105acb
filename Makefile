# What people type. Every target sets up what it needs, once.
.DEFAULT_GOAL := help
SHELL := /bin/bash
# Training on a GPU takes PyTorch.
GPU := $(wildcard /dev/nvidiactl /dev/dxg)
CLUSTER := s3 ray federated
ALL := torch openvino text audio instruments $(CLUSTER)
SETS := pipeline $(if $(GPU),torch) $(patsubst cluster,$(CLUSTER),$(patsubst all,$(ALL),$(EXTRAS)))
DEV := .venv/sets/dev
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false

# Of a file, tests share a worker (tests/conftest.py). Slow ones wait for processes and schedules, so
# that more workers than cores find an idle one.
test-slow test-all coverage: WORKERS := 5
WORKERS := 3
SIDE_BY_SIDE = -n $(WORKERS) --durations=10 --junitxml=.pytest_cache/tests.xml

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(SETS:%=.venv/sets/%)  ## .venv with the packages of the default run (EXTRAS="text cluster": more)

# Each extra by its hashes, and this clone; PYTHON=python3.13 chooses the Python.
.venv/sets/%: requirements/%.lock pyproject.toml
	@PYTHON=$(PYTHON) requirements/install $*

# What examples/flower uses; its packages fit no other set.
flower: .venv-flower/sets/flower  ## .venv-flower with Flower, for examples/flower

.venv-flower/sets/flower: requirements/flower.lock
	@PYTHON=$(PYTHON) HEADSTART_VENV=.venv-flower requirements/install flower

repro: setup  ## run what changed, from examples to metrics (checks, then dvc repro)
	headstart repro

flow: setup  ## the same as a Prefect flow (ARGS="--force" and more: make flow ARGS=--help)
	headstart flow $(ARGS)

example:  ## a small project, made and run (KIND=vector, text, audio, multilabel, regression or adapt)
	@[ -n "$(KIND)" ] || { echo "example: error: say which: make example KIND=text" >&2; exit 2; }
	@$(MAKE) --no-print-directory setup \
		EXTRAS="$(filter text audio,$(KIND)) $(filter example-text example-audio,example-$(KIND))"
	@examples/run $(KIND) $(ARGS)

serve: setup  ## a Prefect server, nightly retraining, and a run whenever the data changes
	headstart schedule

dashboard: setup  ## Prefect's own page (PORT=4200)
	headstart dashboard $(if $(PORT),--port $(PORT))

why: setup  ## what make repro would run, because of what
	headstart why

# What tests import is compiled once, and not by all workers at the same time.
.venv/compiled: $(DEV)
	@pytest -q --collect-only >/dev/null; touch $@

test: .venv/compiled  ## the tests
	pytest $(SIDE_BY_SIDE)

test-slow: .venv/compiled  ## the tests that take long
	pytest $(SIDE_BY_SIDE) -m slow

test-all: .venv/compiled  ## both, in one run
	pytest $(SIDE_BY_SIDE) -m "slow or not slow"

coverage: .venv/compiled  ## what the tests reach, branches too, in the stages and flows that they start as well
	pytest $(SIDE_BY_SIDE) -m "slow or not slow" --cov --cov-report=term-missing:skip-covered

check: $(DEV)  ## lint, format, types, security, which subpackage imports which, and words of the pages
	ruff check
	ruff format --check
	mypy
	lint-imports
	.ci/words

docs: setup  ## write docs/parameters.md and docs/commands.md from the code
	python -m docs.make_parameters
	python -m docs.make_commands

# The pages lie in .site as they do here, so that their links hold.
site: .venv-site/sets/site  ## build the documentation site; open .site/site/index.html
	@rm -rf .site && mkdir -p .site/pages
	@git ls-files --cached --others --exclude-standard -- '*.md' '*.png' '*.svg' '*.json' 'docs/examples/*.html' | tar -cf - -T - | tar -xf - -C .site/pages
	@cp docs/zensical.toml .site/
	@.venv-site/bin/zensical build --strict --config-file .site/zensical.toml
	@echo "site: .site/site/index.html opens in any browser"

.venv-site/sets/site: requirements/site.lock
	@PYTHON=$(PYTHON) HEADSTART_VENV=.venv-site requirements/install site

audit: setup  ## known holes in the packages of requirements/dev.lock (asks an advisory service)
	@python -m venv .venv/audit
	@.venv/audit/bin/pip install --quiet --disable-pip-version-check pip-audit
	@.venv/audit/bin/pip-audit --strict --disable-pip --requirement requirements/dev.lock || { \
		echo "audit: a hole was found, or a package had no answer: see above"; exit 1; }

store: setup  ## what is in the feature store
	python -m pipeline.store

clean-store: setup  ## empty the feature store: costs time, never correctness
	python -m pipeline.store clear

lock:  ## pin the newest versions that fit pyproject.toml, for every set (needs uv)
	requirements/compile --upgrade

.PHONY: help setup flower repro flow example serve dashboard why test test-slow test-all coverage check docs site audit store clean-store lock
