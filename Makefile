# Two commands do everything: `make demo` and `make test`.
PYTHON ?= python3
# Which torch to install. The pin is the version the embedded prior was trained and tested with.
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
PROMPT ?= a red penguin
export OMP_WAIT_POLICY := PASSIVE

.PHONY: demo install test test-slow lint format wheel-check clean

$(VENV)/.installed: pyproject.toml dream3d/__init__.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

install: $(VENV)/.installed

demo: install
	$(BIN)/dream3d generate "$(PROMPT)"

test: install
	$(BIN)/python -m pytest -m "not slow"

test-slow: install
	$(BIN)/python -m pytest -m slow

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Build the wheel, install it into a fresh environment outside the checkout and generate there.
wheel-check: install
	$(BIN)/python tests/wheel_check.py "$(TORCH)"

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache
