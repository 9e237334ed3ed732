# Everything below needs Python 3.11+ and nothing else; `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install demo dev check format test test-real bench docs clean

help: ## show this help
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Ostler needs Python 3.11 or newer, this is {v[0]}.{v[1]}. Try: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

install: $(VENV)/.installed ## make .venv with a working .venv/bin/ostler

demo: install ## install, then show Ostler at work with its own tiny model
	@$(BIN)/ostler demo

dev: $(VENV)/.installed-dev ## a server with the demo model that restarts when the code changes
	@$(BIN)/python tools/dev.py

check: $(VENV)/.installed-dev ## format, lint, types, import layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev ## put the code in form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: $(VENV)/.installed-dev ## the quick tests; they need only pip
	$(BIN)/pytest -m 'not real' -n 2 --dist worksteal

test-real: $(VENV)/.installed-dev ## install the big parts (apt, pip) and test with them
	bash tests/real/install.sh
	$(BIN)/pytest -m real
	$(BIN)/pytest --on-postgresql -m 'not real' tests/core tests/access tests/jobs tests/models tests/usage tests/library tests/chats

bench: $(VENV)/.installed-dev ## measure, print a table, write benchmarks/results/
	$(BIN)/python -m benchmarks

docs: $(VENV)/.installed-dev ## write the generated pages of docs/ anew
	$(BIN)/python docs/generate.py

clean: ## take away what was built (never your data)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
