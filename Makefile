# Every target makes the environment that it needs. All it takes is make and Python 3.11 or newer.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test test-slow lint tables bench docs clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.has-plot  ## attack and defend a classifier; writes demo.png
	$(BIN)/python examples/demo.py

# The workers share the cores between them: one thread each.
test test-slow: export OMP_NUM_THREADS := 1
test test-slow: export MPLBACKEND := agg

test: lint  ## lint, then all quick tests, doctests and examples
	$(BIN)/pytest -n auto

test-slow: $(VENV)/.has-test  ## cross-checks with other libraries, full-size runs
	$(BIN)/pytest -n auto -m slow

lint: $(VENV)/.has-test  ## ruff, mypy, and numpydoc on everything public
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tests/_docstrings.py

tables: $(VENV)/.has-test  ## write the tables of README and docs that follow from the code
	$(BIN)/python docs/tables.py

bench: $(VENV)/.has-bench  ## speed and strength against other libraries
	$(BIN)/python -m benchmarks

docs: $(VENV)/.has-docs  ## build docs/_build/html; warnings are errors
	$(BIN)/sphinx-build -W --keep-going docs docs/_build/html

clean:  ## remove the environment and all that was built
	rm -rf $(VENV) build dist *.egg-info docs/_build docs/generated demo.png
	rm -rf .mypy_cache .pytest_cache .ruff_cache

# One environment; a stamp tells which extra of pyproject.toml is in it, as pinned.
$(VENV)/.has-%: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -c constraints.txt -e ".[$*]"
	touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
