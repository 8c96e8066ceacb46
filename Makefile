# Needs python3 (3.11 or 3.12), make and a package index; everything else goes into .venv.
PYTHON ?= python3
PORT ?= 7860
SERVE ?= 1

BIN := .venv/bin
INSTALLED := .venv/.installed
FAST := not slow and not browser and not pacs and not gpu

.PHONY: setup demo test lint clean

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt .ci/install
	PYTHON=$(PYTHON) .ci/install
	touch $@

# SERVE=0 stops after the drafts; PORT=8000 moves the page.
demo: setup
	$(BIN)/mmfm demo --port $(PORT) $(if $(filter 0,$(SERVE)),--no-serve)

test: setup
	$(BIN)/python -m pytest -m "$(FAST)" $(PYTEST_ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf .venv dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
