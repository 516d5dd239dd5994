# Every chore of the project. `make help` lists them.
# On a fresh machine with Python 3.11 or newer, git and make, each target does its own set-up, in .venv.

PYTHON ?= $(shell .ci/pythons | head -n 1)
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= auto
SOURCES := $(shell find llm_common -type f -not -name '*.pyc') pyproject.toml README.md
PLUGINS := $(wildcard plugins/*/)
PLUGIN_SOURCES := $(shell find $(PLUGINS) -type f -not -path '*/tests/*' -not -name '*.pyc')

.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## run the demo: a support bot whose metrics you watch (30 seconds; ARGS="--seconds 10")
	@$(BIN)/llm-common demo $(ARGS)

test: $(VENV)/.installed ## run the tests against the installed wheel, with coverage (ARGS="-k name")
	rm -f .coverage .coverage.*
	$(BIN)/coverage run $(BIN)/pytest -n $(WORKERS) --dist worksteal $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

test-all: ## run the tests on every CPython from 3.11 that this machine has
	@set -e; for python in $$(.ci/pythons); do \
		minor=$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
		echo "== CPython $$minor"; \
		$(MAKE) --no-print-directory test-fast PYTHON=$$python VENV=.venv-$$minor; \
	done

test-fast: $(VENV)/.installed ## run the tests against the installed wheel, without coverage
	$(BIN)/pytest -n $(WORKERS) --dist worksteal $(ARGS)

check: $(VENV)/.installed ## format, lint and type checks, changing nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.dev ## format the code and mend what the linter can
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: $(VENV)/.installed ## measure what tracking and scraping cost (3 minutes; ARGS="--json figures.json")
	$(BIN)/python -m benchmarks $(ARGS)

bench-check: $(VENV)/.installed ## the short form of it, which fails only at twice a bar
	$(BIN)/python -m benchmarks --short --check

bench-rules: $(VENV)/.installed ## measure what the recording rules save a Prometheus (5 minutes; ARGS="--instances 20")
	$(BIN)/python -m benchmarks.recording_rules $(ARGS)

torture: $(VENV)/.installed ## kill workers, crowd threads, flood with hostile input, soak for an hour; print totals (15 minutes)
	$(BIN)/python tests/flooding.py
	KILLS=50 ACTIONS=1000000 TASKS=10000 STORM=5000 SOAK=3600 \
	$(BIN)/pytest --capture=no --quiet \
		tests/e2e/test_totals.py tests/backends/test_folding.py \
		tests/e2e/test_crowds.py tests/e2e/test_odd_moments.py tests/e2e/test_soak.py $(ARGS)

mutation: .venv-mutation/.installed ## change the code in thousands of small ways; the tests must notice (an hour; ARGS="tracker")
	.venv-mutation/bin/python tests/mutation.py $(ARGS)

docs: $(VENV)/.installed ## build the documentation site into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

docs-serve: $(VENV)/.installed ## serve the documentation on 127.0.0.1:8000, reloading
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

pictures: $(VENV)/.installed ## draw the pictures of the documentation, from the demo and the real servers (2 minutes)
	$(BIN)/python docs/pictures.py
	PYTHONPATH=tests $(BIN)/python tests/live_pictures.py

clean: ## remove everything that the other targets made
	rm -rf .venv* .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist mutants site

$(VENV)/.created:
	@test -n "$(PYTHON)" || { echo "CPython 3.11 or newer is needed; none was found on PATH" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.demo: $(VENV)/.created $(SOURCES) requirements/dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint requirements/dev.txt --upgrade --force-reinstall --no-deps .
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint requirements/dev.txt '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.created requirements/dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements/dev.txt
	@touch $@

$(VENV)/.installed: $(VENV)/.dev $(SOURCES) $(PLUGIN_SOURCES)
	rm -rf $(VENV)/dist
	@set -e; for folder in . $(PLUGINS); do \
		echo "building the wheel of $$folder"; \
		$(BIN)/python -m build --wheel --no-isolation --outdir $(VENV)/dist $$folder > $(VENV)/build.log || { cat $(VENV)/build.log; exit 1; }; \
	done
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --force-reinstall $(VENV)/dist/*.whl
	@touch $@

.venv-mutation/.installed: requirements/mutation.txt requirements/dev.txt pyproject.toml
	test -x .venv-mutation/bin/pip || $(PYTHON) -m venv .venv-mutation
	.venv-mutation/bin/pip install --quiet --disable-pip-version-check --requirement requirements/mutation.txt .
	@touch $@

.PHONY: help demo test test-all test-fast check format bench bench-check bench-rules torture mutation docs docs-serve pictures clean
