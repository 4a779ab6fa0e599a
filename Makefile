# Everything from a machine that has only Python 3.11 or newer. `make env` makes .venv; the others make it if need be.
PYTHON ?= python3
MINUTES ?= 10
FRAMES ?= 400
OUT ?= runs/demo
BIN := .venv/bin
export OMP_WAIT_POLICY := PASSIVE

.PHONY: env demo test test-long lint bench clean

env: .venv/done

.venv/done: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "UTNet needs Python 3.11 or newer: make env PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep ^torch== constraints.txt)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: env
	$(BIN)/utnet demo --out $(OUT) --minutes $(MINUTES) --frames $(FRAMES)

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: env
	$(BIN)/python -m pytest -m 'not long' -n 2 --dist loadfile

test-long: env
	$(BIN)/python -m pytest -m long --timeout=3600

bench: env
	$(BIN)/python benchmarks/synth.py
	$(BIN)/python benchmarks/data.py
	$(BIN)/python benchmarks/sources.py

clean:
	rm -rf .venv build
