# `make demo` and `make test` set everything up; a second call reinstalls nothing.
PYTHON ?= python3
BIN := .venv/bin
# One thread per process: labels and chains run side by side, and threads that spin make both slower.
export OMP_NUM_THREADS = 1
export OPENBLAS_NUM_THREADS = 1
export MKL_NUM_THREADS = 1

.PHONY: demo test test-long lint venv clean

venv: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "alloop needs Python 3.11 or newer: call make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[pyscf,postgres,test]'
	touch $@

demo: venv
	$(BIN)/alloop demo

test: venv lint
	$(BIN)/pytest --numprocesses 2 --dist loadfile

test-long: venv
	$(BIN)/pytest -m long --durations=0

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright

clean:
	rm -rf .venv demo
