# Two commands do everything: `make demo` and `make test`. Both install into .venv first.
PYTHON ?= python3
# Index of CPU wheels of torch, where pip's own configuration would bring a CUDA build; empty: pip's own configuration.
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint install

demo: $(VENV)/.demo
	$(BIN)/spectral-probe analyze

test: lint
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

install: $(VENV)/.dev

$(VENV)/.torch: constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	touch $@

$(VENV)/.demo: $(VENV)/.torch setup.cfg
	$(PIP) -e ".[demo]"
	touch $@

$(VENV)/.dev: $(VENV)/.torch setup.cfg
	$(PIP) -e ".[demo,dev]"
	touch $(VENV)/.demo $@
