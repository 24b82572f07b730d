# Two commands do everything: `make demo` and `make test`. Both install into .venv first.
PYTHON ?= python3
# Where pip finds the CPU build of torch, for example TORCH_INDEX=https://.../whl/cpu ; empty: pip's own configuration.
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
PIP_FLAGS := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

.PHONY: test lint install

install: $(VENV)/.installed

$(VENV)/.installed: setup.cfg constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c constraints.txt torch
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c constraints.txt -e ".[demo,dev]"
	touch $@

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/python -m pytest
